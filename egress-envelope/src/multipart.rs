//! Bodies of parts (multipart/form-data, RFC 7578 and RFC 2046 section 5.1), read in one way only:
//! nothing before the first part and behind the last one, no nesting, no encodings, and of each part
//! no more said than what it is called.

use crate::form;

/// Most parts.
const MAX_PARTS: usize = 1000;
/// Longest head of a part. Bytes.
const MAX_HEAD: usize = 4 << 10;

/// One part.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// Its name.
    pub(crate) key: String,
    /// What it is.
    pub(crate) value: Value,
}

/// What a part is.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Value {
    /// A text.
    Text(String),
    /// A file by its name. Its content is content.
    File(String),
}

/// The parts in their order.
pub(crate) fn read(body: &[u8], boundary: &str) -> Result<Vec<Part>, &'static str> {
    // Readers that take a parameter as it is written look for its quotes, too.
    if find(body, format!("--\"{boundary}").as_bytes()).is_some() {
        return Err("a boundary in quotes between parts");
    }
    let line = format!("--{boundary}");
    let line = line.as_bytes();
    let mut rest = match body.split_at_checked(line.len()) {
        Some((first, rest)) if first == line => rest,
        _ => return Err("a body that does not begin with its boundary"),
    };
    let mut parts = Vec::new();
    loop {
        match rest {
            b"--" | b"--\r\n" => return Ok(parts),
            _ if rest.starts_with(b"--") => return Err("something behind the last part"),
            _ => {}
        }
        let after = rest.strip_prefix(b"\r\n");
        let after = after.ok_or("a boundary that is not by itself in its line")?;
        // Whatever comes next and looks like the boundary has to be it.
        let end = find(after, line).ok_or("a body without its last boundary")?;
        let (part, behind) = after.split_at(end);
        let part = part.strip_suffix(b"\r\n");
        let part = part.ok_or("a boundary that is not at the beginning of a line")?;
        let (same, behind) = behind.split_at(line.len());
        if same != line {
            return Err("a boundary in other letters");
        }
        parts.push(self::part(part)?);
        if parts.len() > MAX_PARTS {
            return Err("too many parts");
        }
        rest = behind;
    }
}

/// Where a text that begins with two dashes stands, in any case.
fn find(body: &[u8], text: &[u8]) -> Option<usize> {
    let is = |own: &[u8]| own.starts_with(b"--") && own.eq_ignore_ascii_case(text);
    body.windows(text.len()).position(is)
}

fn part(part: &[u8]) -> Result<Part, &'static str> {
    let mut rest = part;
    let mut taken = 0_usize;
    let (mut name, mut kind, mut length) = (None, None, None);
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let end = end.ok_or("a part without a head")?;
        let (line, after) = rest.split_at(end);
        rest = after
            .strip_prefix(b"\r\n")
            .ok_or("a line in the head of a part that ends otherwise")?;
        if line.is_empty() {
            break;
        }
        taken = taken.saturating_add(end);
        if taken > MAX_HEAD {
            return Err("a head of a part that is too long");
        }
        let line = std::str::from_utf8(line).map_err(|_| "a head of a part that is not UTF-8")?;
        let (field, value) = line.split_once(':').ok_or("a field of a part")?;
        if value.chars().any(char::is_control) {
            return Err("a field of a part with control characters");
        }
        let value = value.trim_matches(' ');
        match field.to_ascii_lowercase().as_str() {
            "content-disposition" if name.is_none() => name = Some(disposition(value)?),
            "content-type" if kind.is_none() => kind = Some(value),
            // Some readers stop there.
            "content-length" if length.is_none() => length = Some(value.to_owned()),
            "content-transfer-encoding" => return Err("an encoding of a part"),
            _ => return Err("a field of a part that is not known, or stands twice"),
        }
    }
    if length.is_some_and(|length| length != rest.len().to_string()) {
        return Err("a part of another length");
    }
    let (key, file) = name.ok_or("a part without a name")?;
    form::plain(&key)?;
    // Some take a part with an empty file name for a file, and others for a text.
    let file = file.filter(|file| !file.is_empty());
    if let Some(kind) = kind {
        is_plain(kind, file.is_none())?;
    }
    let value = match file {
        Some(file) => Value::File(file),
        None => match std::str::from_utf8(rest) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => return Err("a part that is not UTF-8"),
        },
    };
    Ok(Part { key, value })
}

/// Reads `form-data; name="to"; filename="a.txt"`, in this order (RFC 7578 section 4.2). Escapes are
/// read in several ways, and so are the names with an asterisk (RFC 5987).
fn disposition(value: &str) -> Result<(String, Option<String>), &'static str> {
    const NONE: &str = "a disposition of a part";
    let (kind, rest) = value.split_once(';').ok_or(NONE)?;
    if !kind.trim_end_matches(' ').eq_ignore_ascii_case("form-data") {
        return Err(NONE);
    }
    let (name, rest) = parameter(rest, "name").ok_or("a name of a part")?;
    if rest.is_empty() {
        return Ok((name, None));
    }
    let rest = rest.strip_prefix(';').ok_or(NONE)?;
    match parameter(rest, "filename").ok_or("a file name of a part")? {
        (file, "") => Ok((name, Some(file))),
        _ => Err(NONE),
    }
}

/// The value of a parameter, and what is behind it.
fn parameter<'a>(text: &'a str, name: &str) -> Option<(String, &'a str)> {
    let (own, rest) = text.trim_start_matches(' ').split_once('=')?;
    if !own.eq_ignore_ascii_case(name) {
        return None;
    }
    let (value, rest) = match rest.strip_prefix('"') {
        Some(rest) => rest.split_once('"')?,
        None => rest.split_at(rest.find([';', ' ']).unwrap_or(rest.len())),
    };
    let escaped = value.split('%').skip(1).any(|after| {
        let mut digits = after.bytes();
        let mut digit = || digits.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        digit() && digit()
    });
    // `;` ends a parameter for those who do not know quotes; escapes and encoded words are read by
    // some.
    let odd = value.contains(['\\', ';']) || value.contains("=?");
    let odd = odd || (name == "name" && escaped);
    (!odd).then(|| (value.to_owned(), rest.trim_start_matches(' ')))
}

/// Whether a type of a part makes nothing else of it: neither parts of its own, nor a text in another
/// charset.
fn is_plain(kind: &str, is_text: bool) -> Result<(), &'static str> {
    let mut parts = kind.split(';').map(|part| part.trim_matches(' '));
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-/".contains(&byte);
    if kind.bytes().filter(|byte| *byte == b'/').count() != 1 || !kind.bytes().all(token) {
        return Err("a content type of a part that is none");
    }
    if kind.starts_with("multipart/") || (is_text && kind.starts_with("message/")) {
        return Err("parts within a part");
    }
    let utf8 = |part: &str| {
        let part = part.to_ascii_lowercase();
        matches!(part.as_str(), "charset=utf-8" | "charset=\"utf-8\"")
    };
    if is_text && !parts.all(utf8) {
        return Err("a parameter of the content type of a part");
    }
    Ok(())
}
