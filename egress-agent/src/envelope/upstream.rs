//! The way to the server: the name's granted addresses are raced, and its certificate is verified
//! as any client of this host would.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, AlertDescription, CertificateError, ClientConfig, RootCertStore, SignatureScheme,
        client::{ResolvesClientCert, Resumption},
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
        sign::CertifiedKey,
    },
};

use super::{
    relay::{Tcp, buffered},
    why::Why,
};

/// When the next address is tried beside those that have not answered (RFC 8305 section 5).
const NEXT_AFTER: Duration = Duration::from_millis(250);
/// How long all addresses together may take.
const REACHED_WITHIN: Duration = Duration::from_secs(30);
/// How long the handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(20);
/// TLS sessions that can be resumed, of all names.
const SESSIONS: usize = 64;

/// Why there is no way to any server.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// The host trusts nobody.
    #[error("no certificate of the host's trust store could be read")]
    NoRoots,
    /// TLS as such.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// How servers are connected to, by what is offered to them.
pub(super) struct Upstream {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
}

/// A connection to the server.
pub(super) struct Connected {
    pub(super) stream: TlsStream<Tcp>,
    /// The server has asked for a client certificate; whether it insists shows later (TLS 1.3).
    pub(super) wanted: bool,
    /// What it chose.
    pub(super) speaks: Speaks,
    /// Which of the name's addresses it is at.
    pub(super) at: IpAddr,
}

/// Which HTTP is spoken on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Which HTTP is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offer {
    /// This one.
    Only(Speaks),
    /// Both.
    Either,
}

impl Speaks {
    /// Its name in TLS (RFC 7301).
    pub(super) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

tokio::task_local! {
    /// Whether the handshake of this task was asked for a client certificate.
    static WANTED: Cell<bool>;
}

/// Has no certificate, and notices the question.
#[derive(Debug)]
struct Notices;

impl ResolvesClientCert for Notices {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Outside of a handshake of ours there is nobody to tell.
        let _told = WANTED.try_with(|wanted| wanted.set(true));
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl Upstream {
    /// `roots` are the host's trust anchors, PEM. Those that cannot be read are left out, as other
    /// clients do.
    pub(super) fn new(roots: &str) -> Result<Self, UpstreamError> {
        let mut store = RootCertStore::empty();
        let parsed = CertificateDer::pem_slice_iter(roots.as_bytes()).filter_map(Result::ok);
        if store.add_parsable_certificates(parsed).0 == 0 {
            return Err(UpstreamError::NoRoots);
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_client_cert_resolver(Arc::new(Notices));
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let offering = |offered: &[Speaks]| {
            let mut config = config.clone();
            config.alpn_protocols = offered.iter().map(|it| it.alpn().to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            http1: offering(&[Speaks::Http1]),
            http2: offering(&[Speaks::Http2]),
            either: offering(&[Speaks::Http2, Speaks::Http1]),
        })
    }

    /// A connection to `name` at one of `addresses`.
    pub(super) async fn connect(
        &self,
        name: &str,
        addresses: &[IpAddr],
        port: u16,
        offer: Offer,
    ) -> Result<Connected, Why> {
        let config = match offer {
            Offer::Only(Speaks::Http1) => &self.http1,
            Offer::Only(Speaks::Http2) => &self.http2,
            Offer::Either => &self.either,
        };
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| Why::ServerTls(format!("{name} is not a name that TLS knows")))?;
        let tcp = timeout(REACHED_WITHIN, race(addresses, port))
            .await
            .unwrap_or_else(|_| Err(Why::Unreachable("no answer in time".to_owned())))?;
        plain(&tcp);
        let at = tcp
            .peer_addr()
            .map_err(|error| Why::Unreachable(error.to_string()))?
            .ip();
        let connector = TlsConnector::from(Arc::clone(config));
        WANTED
            .scope(Cell::new(false), async move {
                let shaken =
                    timeout(HANDSHAKE_WITHIN, connector.connect(server, buffered(tcp))).await;
                let wanted = WANTED.with(Cell::get);
                match shaken {
                    Ok(Ok(stream)) => {
                        let speaks = match stream.get_ref().1.alpn_protocol() {
                            Some(b"h2") => Speaks::Http2,
                            // One that chooses nothing speaks what there was before (RFC 9112).
                            _ if offer != Offer::Only(Speaks::Http2) => Speaks::Http1,
                            _ => return Err(Why::ServerTls("it speaks no HTTP/2".to_owned())),
                        };
                        Ok(Connected {
                            stream,
                            wanted,
                            speaks,
                            at,
                        })
                    }
                    Ok(Err(error)) => Err(why(&error, wanted)),
                    Err(_) => Err(Why::ServerTls("no answer in time".to_owned())),
                }
            })
            .await
    }
}

/// What an error of TLS with the server means. `wanted`: it has asked for a client certificate.
pub(super) fn why(error: &io::Error, wanted: bool) -> Why {
    let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        return match wanted {
            true => Why::ClientCertificate,
            false => Why::ServerTls(error.to_string()),
        };
    };
    match tls {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Why::Expired,
            CertificateError::NotValidForName => Why::WrongName(Vec::new()),
            CertificateError::NotValidForNameContext { presented, .. } => {
                // Each as `DnsName("NAME")`.
                let name = |it: &String| it.split('"').nth(1).unwrap_or(it).to_owned();
                Why::WrongName(presented.iter().map(name).collect())
            }
            CertificateError::UnknownIssuer => Why::UnknownIssuer,
            other => Why::BadCertificate(other.to_string()),
        },
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            Why::ClientCertificate
        }
        // Before TLS 1.3 there is no word for it.
        rustls::Error::AlertReceived(_) if wanted => Why::ClientCertificate,
        other => Why::ServerTls(other.to_string()),
    }
}

/// The first address that takes a connection: both families in turn, each next one after 250 ms,
/// or at once where all before it have failed (RFC 8305).
async fn race(addresses: &[IpAddr], port: u16) -> Result<TcpStream, Why> {
    let mut next = in_turn(addresses).into_iter();
    let mut running = JoinSet::new();
    let mut why = Why::Nowhere;
    let mut due = Instant::now();
    loop {
        if running.is_empty() || due <= Instant::now() {
            match next.next() {
                Some(address) => {
                    running.spawn(TcpStream::connect(SocketAddr::new(address, port)));
                    due = Instant::now() + NEXT_AFTER;
                }
                None if running.is_empty() => return Err(why),
                None => {}
            }
        }
        let more = next.len() > 0;
        tokio::select! {
            Some(ended) = running.join_next() => match ended {
                // The others end with the set.
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => {
                    why = Why::Unreachable(error.to_string());
                    due = Instant::now();
                }
                Err(error) => why = Why::Unreachable(error.to_string()),
            },
            () = sleep_until(due), if more => {}
        }
    }
}

/// IPv6 and IPv4 in turn, beginning with the first one's family.
fn in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_family = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (mut one, mut other): (Vec<_>, Vec<_>) = addresses
        .iter()
        .partition(|address| address.is_ipv6() == first_family);
    one.reverse();
    other.reverse();
    let mut ordered = Vec::with_capacity(addresses.len());
    while let Some(address) = one.pop() {
        ordered.push(address);
        ordered.extend(other.pop());
    }
    ordered.extend(other.into_iter().rev());
    ordered
}

/// As a connection without anybody in between: nothing is held back to be sent together, and a peer
/// that is gone is noticed.
pub(super) fn plain(stream: &TcpStream) {
    let set = || -> io::Result<()> {
        stream.set_nodelay(true)?;
        Ok(setsockopt(stream, sockopt::KeepAlive, &true)?)
    };
    // Slower, or noticed later; nothing else.
    let _carried_anyway = set();
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use super::*;

    #[test]
    fn families_take_turns() {
        let [a, b, c]: [IpAddr; 3] = ["::1", "::2", "::3"].map(|text| text.parse().unwrap());
        let [x, y]: [IpAddr; 2] = ["1.1.1.1", "2.2.2.2"].map(|text| text.parse().unwrap());
        assert_eq!(in_turn(&[a, b, c, x, y]), [a, x, b, y, c]);
        assert_eq!(in_turn(&[x, y, a]), [x, a, y]);
        assert_eq!(in_turn(&[x, a, b, c]), [x, a, b, c]);
        assert!(in_turn(&[]).is_empty());
    }
}
