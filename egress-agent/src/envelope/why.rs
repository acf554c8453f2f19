//! Why a connection through the envelope proxy came to nothing, for people. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a connection came to nothing.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Why {
    /// The program does not trust the proxy's authority; what its alert said.
    Distrusted(String),
    /// The program ended the connection right after the handshake, as those do that pin.
    Dropped,
    /// The program's TLS asks for another name, or for none.
    OtherName(Option<String>),
    /// What the program says is not TLS.
    NotTls,
    /// The handshake with the program failed for another reason.
    Handshake(String),
    /// The proxy cannot speak for the name.
    NoCertificate(String),
    /// No address of the name is granted.
    Nowhere,
    /// None of its addresses took the connection; what the last one said.
    Unreachable(String),
    /// The server's certificate is over, or does not hold yet.
    Expired,
    /// The server's certificate is for other names: these.
    WrongName(Vec<String>),
    /// Nobody whom the host trusts stands behind the server's certificate.
    UnknownIssuer,
    /// The server's certificate is wrong in another way.
    BadCertificate(String),
    /// The server wants a client certificate, which only the program has.
    ClientCertificate,
    /// The handshake with the server failed for another reason.
    ServerTls(String),
    /// The server ended the connection, or broke it, before it had answered.
    Silent(String),
    /// What the server answered is not HTTP.
    Garbled(String),
}

/// Text of strangers in a sentence: printable and bounded.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(200).map(shown).collect()
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distrusted(alert) => write!(
                f,
                "the program does not trust the certificate of the envelope proxy (it said {}): it \
                 brings its own list of authorities or pins the server's certificate; inspection \
                 is not possible for it",
                plain(alert)
            ),
            Self::Dropped => f.write_str(
                "the program ended the connection after the handshake without a request, as \
                 programs do that pin the server's certificate",
            ),
            Self::OtherName(Some(name)) => {
                write!(f, "the program asks for {} there", plain(name))
            }
            Self::OtherName(None) => f.write_str("the program names no server in its TLS"),
            Self::NotTls => f.write_str("what the program sends is not TLS, so it is not read"),
            Self::Handshake(error) => {
                write!(
                    f,
                    "the TLS handshake with the program failed: {}",
                    plain(error)
                )
            }
            Self::NoCertificate(error) => f.write_str(&plain(error)),
            Self::Nowhere => f.write_str("no address of it is granted"),
            Self::Unreachable(error) => {
                write!(
                    f,
                    "none of its addresses took the connection: {}",
                    plain(error)
                )
            }
            Self::Expired => {
                f.write_str("the server's certificate is expired or does not hold yet")
            }
            Self::WrongName(names) => {
                let names: Vec<_> = names.iter().take(5).map(|name| plain(name)).collect();
                write!(f, "the server's certificate is for {}", names.join(", "))
            }
            Self::UnknownIssuer => f.write_str(
                "this host trusts nobody who stands behind the server's certificate; add its \
                 authority to the host's store if it is right",
            ),
            Self::BadCertificate(error) => {
                write!(f, "the server's certificate is wrong: {}", plain(error))
            }
            Self::ClientCertificate => f.write_str(
                "the server wants a client certificate, which the envelope proxy does not have: a \
                 rule with inspect cannot serve it",
            ),
            Self::ServerTls(error) => {
                write!(
                    f,
                    "the TLS handshake with the server failed: {}",
                    plain(error)
                )
            }
            Self::Silent(error) => {
                write!(
                    f,
                    "the server ended the connection without an answer: {}",
                    plain(error)
                )
            }
            Self::Garbled(what) => {
                write!(f, "the server's answer is not proper HTTP: {}", plain(what))
            }
        }
    }
}
