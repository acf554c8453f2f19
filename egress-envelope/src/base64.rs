//! Base64 in one way only (RFC 4648): one of both alphabets, no blanks, no bits left over.

/// Whether a text that a table marks with this word is in the alphabet that the word means. Some
/// servers skip what is not in theirs, and read something else.
pub(crate) fn is_in_alphabet(word: &str, text: &str) -> bool {
    match word {
        "mime-base64" => !text.contains(['-', '_']),
        "mime-base64url" => !text.contains(['+', '/']),
        _ => true,
    }
}

/// Reads a whole text; the padding may be missing. `None`: it is none, or could be read otherwise.
pub(crate) fn read(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    let padding = text.len().checked_sub(bare.len())?;
    let rest = bare.len() % 4;
    let wanted = 4_usize.checked_sub(rest)? % 4;
    let mixed = bare.contains(['+', '/']) && bare.contains(['-', '_']);
    if mixed || rest == 1 || (padding != 0 && padding != wanted) {
        return None;
    }
    let mut out = Vec::with_capacity(bare.len());
    let (mut held, mut bits) = (0_u32, 0_u32);
    for byte in bare.bytes() {
        let six = digit(byte)?;
        held = (held << 6) | u32::from(six);
        bits = bits.wrapping_add(6);
        if bits >= 8 {
            bits = bits.wrapping_sub(8);
            out.push(u8::try_from(held >> bits).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    (held == 0).then_some(out)
}

/// The six bits that a letter of either alphabet stands for (RFC 4648 sections 4 and 5).
pub(crate) fn digit(letter: u8) -> Option<u8> {
    Some(match letter {
        b'A'..=b'Z' => letter.wrapping_sub(b'A'),
        b'a'..=b'z' => letter.wrapping_sub(b'a').wrapping_add(26),
        b'0'..=b'9' => letter.wrapping_sub(b'0').wrapping_add(52),
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn one_text_one_reading() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zg", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("-_-_", b"\xfb\xff\xbf"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(read(text).as_deref(), Some(bytes), "{text}");
        }
        for text in [
            "Z", "Zg=", "Zh==", "Zm9v=", "Z g=", "Zg\n", "-/-/", "Zg==Zg==",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
