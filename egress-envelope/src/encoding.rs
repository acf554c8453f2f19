//! Bodies that were made smaller (RFC 9110 section 8.4), read under a limit.

use std::{borrow::Cow, io::Read};

use flate2::bufread::{GzDecoder, ZlibDecoder};

use crate::{content::Content, head::Head};

/// How many times as long as what was sent a body may be, once it is longer than [`SMALL`].
const MAX_RATIO: usize = 200;
/// Bytes that a body may have at any ratio.
const SMALL: usize = 64 << 10;
/// Flags of a gzip header that are read: a text, and with a file's name (RFC 1952 section 2.3.1).
const FLAGS: u8 = 0b1001;

/// The body as it is meant, of at most `most` bytes. What is sent on are the bytes that came: nothing
/// stands behind them that another reader could find.
pub(crate) fn decoded<'a>(
    head: &Head,
    content: &Content,
    body: &'a [u8],
    most: u64,
) -> Result<Cow<'a, [u8]>, &'static str> {
    let mut all = head.values("content-encoding");
    let coding = match (all.next(), all.next()) {
        (None, _) => return Ok(Cow::Borrowed(body)),
        (Some(coding), None) => coding.to_ascii_lowercase(),
        (Some(_), Some(_)) => return Err("several content encodings"),
    };
    if coding == "identity" {
        return Ok(Cow::Borrowed(body));
    }
    // Many servers do not know encodings. For them the bytes are no JSON, but could be a form, a
    // part or a field of a mail.
    if *content != Content::Json {
        return Err("a content encoding of something else than JSON");
    }
    let most = limit(body.len(), most);
    let (read, rest) = match coding.as_str() {
        "gzip" | "x-gzip" => {
            // What a header can hold besides is skipped by some and read by others.
            if body.get(3).is_none_or(|flags| flags & !FLAGS != 0) {
                return Err("a content encoding that is none");
            }
            let mut reader = GzDecoder::new(body);
            (limited(&mut reader, most)?, reader.into_inner())
        }
        // With the frame that the name means (RFC 1950); some servers read it without one.
        "deflate" if !is_bare(body) => {
            let mut reader = ZlibDecoder::new(body);
            (limited(&mut reader, most)?, reader.into_inner())
        }
        "deflate" => return Err("a content encoding with a frame that can be missing"),
        _ => return Err("a content encoding that is not known"),
    };
    if !rest.is_empty() {
        return Err("a content encoding with something behind its end");
    }
    Ok(Cow::Owned(read))
}

/// The most bytes that a body of so many may become.
fn limit(sent: usize, most: u64) -> usize {
    let ratio = sent.saturating_mul(MAX_RATIO).max(SMALL);
    usize::try_from(most).unwrap_or(usize::MAX).min(ratio)
}

/// Whether a reader that knows no frame (RFC 1951) could begin: each first byte of a frame is the
/// beginning of a stored block there, whose length stands twice, the second time inverted.
fn is_bare(body: &[u8]) -> bool {
    match body {
        [_, one, two, other, another, ..] => *one == !*other && *two == !*another,
        _ => false,
    }
}

fn limited(reader: &mut impl Read, most: usize) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = reader.take(limit).read_to_end(&mut out);
    read.map_err(|_| "a content encoding that is none")?;
    if out.len() > most {
        return Err("a content encoding that hides more than what is judged");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{SMALL, is_bare, limit};

    #[test]
    fn limits() {
        assert_eq!(limit(100, 1 << 20), SMALL);
        assert_eq!(limit(1000, 1 << 20), 200_000);
        assert_eq!(limit(100_000, 1 << 20), 1 << 20);
        assert_eq!(limit(1, 10), 10);
        assert_eq!(limit(usize::MAX, u64::MAX), usize::MAX);
    }

    #[test]
    fn stored_blocks() {
        assert!(is_bare(b"\x78\x01\x02\xfe\xfdab"));
        assert!(!is_bare(b"\x78\x01\x02\xfe\xfcab"));
        assert!(!is_bare(b"\x78\x01\x02\xfe"));
    }
}
