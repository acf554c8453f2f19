//! The head of a proxy's answer to `CONNECT` (RFC 9112 section 4). Pure.

/// Longest head that is read. Bytes.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Bytes of a reason phrase that are shown.
const MAX_REASON: usize = 80;

/// What the bytes so far say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Head {
    /// The head has not ended.
    More,
    /// It is none.
    Bad,
    /// It has ended.
    Whole {
        /// The status code, 100 to 599.
        status: u16,
        /// The reason phrase, printable.
        reason: String,
        /// Bytes of the head; what follows is the tunnel's.
        len: usize,
    },
}

/// Reads a head. A line may end without CR (RFC 9112 section 2.2).
pub(super) fn read(bytes: &[u8]) -> Head {
    let mut first = None;
    let mut at = 0_usize;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            break;
        };
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        at = at.saturating_add(line.len());
        match first {
            None => match status_line(text) {
                Some(read) => first = Some(read),
                None => return Head::Bad,
            },
            Some((status, reason)) if text.is_empty() => {
                return Head::Whole {
                    status,
                    reason,
                    len: at,
                };
            }
            Some(_) => {}
        }
    }
    let is_http = b"HTTP/1.".iter().zip(bytes).all(|(a, b)| a == b);
    if bytes.len() >= MAX_HEAD || !is_http {
        return Head::Bad;
    }
    Head::More
}

fn status_line(line: &[u8]) -> Option<(u16, String)> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first()?;
    let (code, rest) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    if !minor.is_ascii_digit() || !code.iter().all(u8::is_ascii_digit) {
        return None;
    }
    if !rest.is_empty() && !rest.starts_with(b" ") {
        return None;
    }
    let status = std::str::from_utf8(code).ok()?.parse().ok()?;
    let shown = rest.iter().skip(1).take(MAX_REASON);
    let shown = shown.map(|&byte| {
        if (b' '..=b'~').contains(&byte) {
            char::from(byte)
        } else {
            '?'
        }
    });
    (100..600)
        .contains(&status)
        .then(|| (status, shown.collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(status: u16, reason: &str, len: usize) -> Head {
        Head::Whole {
            status,
            reason: reason.to_owned(),
            len,
        }
    }

    #[test]
    fn answers_of_proxies() {
        let squid = b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03";
        assert_eq!(read(squid), whole(200, "Connection established", 39));
        assert_eq!(read(b"HTTP/1.0 200\r\n\r\n"), whole(200, "", 16));
        assert_eq!(read(b"HTTP/1.1 407 Auth\nX: y\n\n"), whole(407, "Auth", 24));
        assert_eq!(
            read(b"HTTP/1.1 503 \x1b[31mred\xff\r\n\r\n"),
            whole(503, "?[31mred?", 26)
        );
    }

    #[test]
    fn what_is_no_answer() {
        for bytes in [
            &b"SSH-2.0-x\r\n"[..],
            b"\x15\x03\x01\x00\x02",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 20\r\n\r\n",
            b"HTTP/1.1 2000 x\r\n\r\n",
            b"HTTP/1.1 999 x\r\n\r\n",
            b"HTTP/1.1  200 x\r\n\r\n",
            b"\r\nHTTP/1.1 200 x\r\n\r\n",
            &[b'H'; MAX_HEAD],
        ] {
            assert_eq!(read(bytes), Head::Bad, "{}", String::from_utf8_lossy(bytes));
        }
        let mut long = b"HTTP/1.1 200 x\r\n".to_vec();
        long.resize(MAX_HEAD, b'a');
        assert_eq!(read(&long), Head::Bad);
    }

    proptest! {
        #[test]
        fn a_head_in_pieces_says_the_same(cut in 0_usize..40, rest in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut bytes = b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec();
            let end = bytes.len();
            bytes.extend(&rest);
            prop_assert_eq!(read(&bytes), whole(200, "Connection established", end));
            let cut = cut.min(end - 1);
            prop_assert_eq!(read(bytes.get(..cut).unwrap_or_default()), Head::More);
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Head::Whole { len, reason, .. } = read(&bytes) {
                prop_assert!(len <= bytes.len());
                prop_assert!(reason.chars().all(|c| (' '..='~').contains(&c)));
            }
        }
    }
}
