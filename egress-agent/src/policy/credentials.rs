//! User name and password for a proxy. Pure.

use std::fmt;

use super::fault::Complaint;

/// Most bytes of both together, decoded.
const MAX_CREDENTIALS: usize = 1_024;
/// A password of this many bytes does not stand in another text by chance.
const TELLING: usize = 6;

/// User name and password. Shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Decoded, with a colon in between (RFC 7617 section 2).
    pair: Vec<u8>,
    /// As they stood in the URL.
    written: String,
}

impl Credentials {
    /// Reads what stands before the `@` of a URL.
    pub(super) fn parse(written: &str) -> Result<Self, Complaint> {
        let bad = || {
            Complaint::new(
                "the credentials in the proxy's URL cannot be read",
                "write “http://USER:PASSWORD@HOST:PORT” with %3A for “:”, %40 for “@” and %25 for “%”",
            )
        };
        let (user, password) = written.split_once(':').unwrap_or((written, ""));
        let mut pair = decoded(user).ok_or_else(bad)?;
        // RFC 7617 section 2: a user name has no colon.
        if pair.contains(&b':') {
            return Err(bad());
        }
        pair.push(b':');
        pair.extend(decoded(password).ok_or_else(bad)?);
        if pair.len() > MAX_CREDENTIALS || pair.iter().any(u8::is_ascii_control) {
            return Err(bad());
        }
        Ok(Self {
            pair,
            written: written.to_owned(),
        })
    }

    /// The value of `Proxy-Authorization` (RFC 7617).
    pub fn authorization(&self) -> String {
        format!("Basic {}", base64(&self.pair))
    }

    /// Whether a text has them in it, decoded, as they were written or encoded; or the password
    /// alone, where that is too long to stand there by chance.
    pub fn are_in(&self, text: &[u8]) -> bool {
        let password = |pair: &[u8]| -> Vec<u8> {
            let colon = pair.iter().position(|&byte| byte == b':');
            let password = colon.and_then(|at| pair.get(at.saturating_add(1)..));
            password.unwrap_or_default().to_vec()
        };
        let written = self.written.as_bytes();
        let passwords = [password(&self.pair), password(written)];
        let passwords = passwords.into_iter().filter(|it| it.len() >= TELLING);
        let whole = [
            self.pair.clone(),
            written.to_vec(),
            base64(&self.pair).into_bytes(),
        ];
        whole
            .into_iter()
            .chain(passwords)
            .any(|needle| text.windows(needle.len().max(1)).any(|part| part == needle))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Percent-encoding undone (RFC 3986 section 2.1).
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(out)
}

/// Base64 with padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let sextet = usize::try_from(bits >> shift & 63).unwrap_or(0);
            let letter = ALPHABET.get(sextet).copied().unwrap_or(b'=');
            text.push(if place <= group.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Credentials {
        Credentials::parse(text).unwrap_or_else(|error| unreachable!("{text} {error}"))
    }

    #[test]
    fn credentials_are_decoded_and_known_again() {
        // The example of RFC 7617 section 2, and one with every kind of padding.
        let credentials = read("Aladdin:open%20sesame");
        assert_eq!(
            credentials.authorization(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        for text in [
            "x open sesame",
            "http://a:open%20sesame@b",
            "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ] {
            assert!(credentials.are_in(text.as_bytes()), "{text}");
        }
        assert!(!credentials.are_in(b"Aladdin sesame"));
        let short = read("u:1");
        assert!(short.are_in(b"x=http://u:1@proxy") && !short.are_in(b"1"));
        assert!(!format!("{credentials:?}").contains("sesame"));
        assert_eq!(base64(b""), "");
        assert_eq!(base64(b"f"), "Zg==");
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
        assert_eq!(base64(&[0xff, 0xfe]), "//4=");
    }
}
