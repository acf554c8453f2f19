//! A text as servers may read it: without escapes and encodings, one inside the other.
//!
//! What comes out is searched and never sent, so too many readings do no harm: every run of letters
//! that could be base64 is read as base64, from each of its first four letters on.

use crate::base64;

/// How many encodings may be inside each other.
const MAX_DEPTH: u8 = 3;
/// Bytes of all readings for each byte that is read.
const MAX_RATIO: usize = 48;
/// Bytes of readings that there may be of any text.
const SMALL: usize = 64 << 10;
/// Letters of the shortest run that is read as base64 or hexadecimal: 8 bytes and more have it.
const SHORTEST: usize = 11;
/// Ends a run in what was read, so that two of them are not one.
const BETWEEN: u8 = 0xff;

/// Gives every reading of a text, the text itself first, until one is enough. `Err`: there are more
/// than are looked at.
pub(crate) fn each(text: &[u8], enough: &mut impl FnMut(&[u8]) -> bool) -> Result<bool, TooMany> {
    let mut left = text.len().saturating_mul(MAX_RATIO).max(SMALL);
    look(text, MAX_DEPTH, &mut left, enough)
}

/// There are more readings than are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooMany;

fn look(
    text: &[u8],
    depth: u8,
    left: &mut usize,
    enough: &mut impl FnMut(&[u8]) -> bool,
) -> Result<bool, TooMany> {
    *left = left.checked_sub(text.len()).ok_or(TooMany)?;
    if enough(text) {
        return Ok(true);
    }
    let Some(depth) = depth.checked_sub(1) else {
        return Ok(false);
    };
    for read in [unescaped, unquoted, percent, plus] {
        if let Some(other) = read(text)
            && look(&other, depth, left, enough)?
        {
            return Ok(true);
        }
    }
    let readers = [hexadecimal as fn(&[u8], usize) -> Vec<u8>, base64];
    for (read, shift) in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3)] {
        let Some(reader) = readers.get(read) else {
            continue;
        };
        let other = reader(text, shift);
        if !other.is_empty() && look(&other, depth, left, enough)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Without escapes of JSON (RFC 8259 section 7). `None`: there are none.
fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    text.contains(&b'\\').then_some(())?;
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let (b'\\', Some((&escape, after))) = (byte, rest.split_first()) else {
            out.push(byte);
            continue;
        };
        rest = after;
        match escape {
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'u' => {
                let Some((digits, after)) = rest.split_at_checked(4) else {
                    continue;
                };
                let digits = std::str::from_utf8(digits).unwrap_or_default();
                if let Ok(code) = u32::from_str_radix(digits, 16) {
                    rest = after;
                    // Halves of a pair are no letter of any secret.
                    let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                    out.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            other => out.push(other),
        }
    }
    Some(out)
}

/// Without `%41`. `None`: there is none.
fn percent(text: &[u8]) -> Option<Vec<u8>> {
    escapes(text, b'%', &[])
}

/// The same of a form, where `+` is a blank.
fn plus(text: &[u8]) -> Option<Vec<u8>> {
    let both = text.contains(&b'%') && text.contains(&b'+');
    let blank = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
    let text: Vec<u8> = both.then(|| text.iter().map(blank).collect())?;
    percent(&text)
}

/// Without `=41` and the ends of lines that are none (quoted-printable, RFC 2045 section 6.7).
fn unquoted(text: &[u8]) -> Option<Vec<u8>> {
    escapes(text, b'=', &[b"\r\n", b"\n"])
}

fn escapes(text: &[u8], mark: u8, nothing: &[&[u8]]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let (mut rest, mut any) = (text, false);
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == mark {
            if let Some(after) = nothing.iter().find_map(|it| rest.strip_prefix(*it)) {
                (rest, any) = (after, true);
                continue;
            }
            if let [high, low, after @ ..] = rest
                && let (Some(high), Some(low)) = (digit(*high), digit(*low))
            {
                out.push(high << 4 | low);
                (rest, any) = (after, true);
                continue;
            }
        }
        out.push(byte);
    }
    any.then_some(out)
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// Every run that could be base64, of either alphabet and over the ends of lines, from one of its
/// first letters on.
fn base64(text: &[u8], shift: usize) -> Vec<u8> {
    runs(text, shift, base64::digit, |letters, out| {
        for four in letters.chunks(4) {
            let bits = four
                .iter()
                .fold(0_u32, |bits, it| bits << 6 | u32::from(*it));
            let bits = bits << (6 * (4_usize.saturating_sub(four.len())));
            let [_, bytes @ ..] = bits.to_be_bytes();
            out.extend(
                bytes
                    .get(..four.len().saturating_sub(1))
                    .unwrap_or_default(),
            );
        }
    })
}

fn hexadecimal(text: &[u8], shift: usize) -> Vec<u8> {
    runs(text, shift, digit, |digits, out| {
        for two in digits.chunks_exact(2) {
            out.push(two.iter().fold(0, |byte, it| byte << 4 | it));
        }
    })
}

/// What stands for a byte of an alphabet, run by run.
fn runs(
    text: &[u8],
    shift: usize,
    value: fn(u8) -> Option<u8>,
    read: impl Fn(&[u8], &mut Vec<u8>),
) -> Vec<u8> {
    let (mut out, mut run) = (Vec::new(), Vec::new());
    let mut end = |run: &mut Vec<u8>| {
        if run.len() >= SHORTEST {
            read(run.get(shift..).unwrap_or_default(), &mut out);
            out.push(BETWEEN);
        }
        run.clear();
    };
    for &byte in text {
        match value(byte) {
            Some(value) => run.push(value),
            None if matches!(byte, b'\r' | b'\n') && !run.is_empty() => {}
            None => end(&mut run),
        }
    }
    end(&mut run);
    out
}

#[cfg(test)]
mod tests {
    use super::{TooMany, each};

    fn is_in(text: &str) -> bool {
        let has = |view: &[u8]| view.windows(12).any(|part| part == b"s3cret-token");
        each(text.as_bytes(), &mut |view| has(view)) == Ok(true)
    }

    #[test]
    fn however_it_is_written() {
        for text in [
            "x s3cret-token y",
            r#"{"a":"s3\u0063ret\u002dtoken"}"#,
            r"s3cret-tok\en",
            "a=s%33cret%2Dtoken",
            "s3cret=2Dto=\r\nken",
            "czNjcmV0LXRva2Vu",
            // From every letter of a group on.
            "aczNjcmV0LXRva2Vu",
            "aaczNjcmV0LXRva2Vu",
            "aaaczNjcmV0LXRva2Vu",
            // In lines, as JSON has them, and without the letters at its ends.
            r#""czNjcmV0\r\nLXRva2Vu""#,
            "7333637265742d746f6b656e",
            "07333637265742D746F6B656E",
            // Twice: base64 of base64, percent of base64, base64 of JSON.
            "Y3pOamNtVjBMWFJ2YTJWdQ==",
            "czNjcm%560LXRva2Vu",
            "eyJhIjoiczNcdTAwNjNyZXQtdG9rZW4ifQ==",
        ] {
            assert!(is_in(text), "{text}");
        }
        for text in ["s3cret token", "s3cret-toke", "", r"\", "%", "=", "%%%"] {
            assert!(!is_in(text), "{text}");
        }
    }

    #[test]
    fn what_is_encoded_again_and_again_is_not_looked_at_for_ever() {
        let mut count = 0_usize;
        let mut all = |text: &[u8]| {
            count += text.len();
            false
        };
        let text = "%41QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=41\\u0041+".repeat(4_000);
        let looked = each(text.as_bytes(), &mut all);
        assert!(count <= text.len() * 48, "{count}");
        assert!(matches!(looked, Ok(false) | Err(TooMany)));
        let mut bytes: Vec<u8> = (0..=255).collect();
        bytes = bytes.repeat(1_000);
        let mut count = 0_usize;
        assert_eq!(
            each(&bytes, &mut |it| {
                count += it.len();
                false
            }),
            Ok(false)
        );
        assert!(count < bytes.len() * 8, "{count}");
    }
}
