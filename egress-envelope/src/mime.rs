//! The fields of a whole mail (RFC 5322 section 2.2), read in one way only: what one server takes for
//! a field and another for the middle of one, or for the body, is no mail.

use crate::mail;

/// Longest head. Bytes.
const MAX_HEAD: usize = 48 << 10;
/// Longest line of the head (RFC 5322 section 2.1.1); some servers break longer ones.
const MAX_LINE: usize = 998;
/// Most fields.
const MAX_FIELDS: usize = 500;

/// Fields whose addresses get the mail.
const RECIPIENTS: [&str; 7] = [
    "to",
    "cc",
    "bcc",
    "resent-to",
    "resent-cc",
    "resent-bcc",
    "apparently-to",
];
/// Fields that stand once (RFC 5322 section 3.6, RFC 2045 section 3): of two, servers take one or the
/// other.
const ONCE: [&str; 14] = [
    "bcc",
    "cc",
    "content-transfer-encoding",
    "content-type",
    "date",
    "from",
    "in-reply-to",
    "message-id",
    "mime-version",
    "references",
    "reply-to",
    "sender",
    "subject",
    "to",
];
/// Fields that name mails.
const MAILS: [&str; 5] = [
    "content-id",
    "in-reply-to",
    "message-id",
    "references",
    "resent-message-id",
];

/// A field of a mail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    /// Its name, as it is written.
    pub(crate) name: String,
    /// What it says, in one line.
    pub(crate) value: String,
}

impl Field {
    fn is(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| self.name.eq_ignore_ascii_case(name))
    }

    /// Whether it says who gets the mail.
    pub(crate) fn is_recipients(&self) -> bool {
        self.is(&RECIPIENTS)
    }

    /// Whether what it says is for those who get the mail, or names other mails: those names look like
    /// addresses.
    pub(crate) fn is_content(&self) -> bool {
        self.is(&["subject"]) || (self.is(&MAILS) && is_names(&self.value))
    }
}

/// A field that names other mails.
pub(crate) const REFERENCES: &str = "references";

/// Whether a field of that name says which mail it is, or which others it is about.
pub(crate) fn names_mails(name: &str) -> bool {
    MAILS.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Whether a text is nothing but names of mails, on one line.
pub(crate) fn is_names(text: &str) -> bool {
    let name = |word: &str| {
        let bare = word.strip_prefix('<').and_then(|it| it.strip_suffix('>'));
        !word.contains('@') || bare.is_some_and(|it| !it.contains(['<', '>', ',', ';']))
    };
    !text.contains(is_odd) && text.split_whitespace().all(name)
}

/// The fields of a mail in their order.
pub(crate) fn read(mail: &[u8]) -> Result<Vec<Field>, &'static str> {
    let first = mail.iter().position(|byte| *byte == b'\n');
    let first = first.ok_or("a mail without a head")?;
    // Programs that are not on the wire end lines by a line feed. One that holds both ends its head
    // in two places.
    let ends = first.checked_sub(1).and_then(|at| mail.get(at)) == Some(&b'\r');
    if !ends && mail.contains(&b'\r') {
        return Err("a mail whose lines end in two ways");
    }
    let mut fields: Vec<Field> = Vec::new();
    let mut taken = 0_usize;
    for line in mail.split(|byte| *byte == b'\n') {
        taken = taken.saturating_add(line.len()).saturating_add(1);
        if taken > mail.len().min(MAX_HEAD) {
            break;
        }
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            None if ends => return Err("a mail whose lines end in two ways"),
            None => line,
        };
        if line.is_empty() {
            once(&fields)?;
            return Ok(fields);
        }
        if line.len() > MAX_LINE {
            return Err("a line in the head of a mail that is too long");
        }
        let line = text(line)?;
        if line.starts_with([' ', '\t']) {
            let (Some(field), false) = (fields.last_mut(), line.trim().is_empty()) else {
                return Err("a folded line of a mail without a field or a text");
            };
            field.value.push_str(line);
            continue;
        }
        let (name, value) = line
            .split_once(':')
            .ok_or("a field of a mail without a colon")?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a name of a field of a mail");
        }
        if fields.len() >= MAX_FIELDS {
            break;
        }
        fields.push(Field {
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }
    Err("a mail without an end of its head, or with one that is too long")
}

/// A line of the head (RFC 6532): UTF-8, without what ends a line for some reader. U+0085 does in
/// Latin-1, where its byte is a part of letters: no field may begin behind one.
fn text(line: &[u8]) -> Result<&str, &'static str> {
    let after = |byte: &u8| *byte == 0x85;
    let next = line.iter().position(after).and_then(|at| line.get(at..));
    let text = std::str::from_utf8(line).map_err(|_| "a head of a mail that is not in UTF-8")?;
    let ends = |c: char| is_odd(c) || matches!(c, '\u{2028}' | '\u{2029}');
    if text.contains(ends) || next.is_some_and(|rest| rest.contains(&b':')) {
        return Err("a line in the head of a mail that is several for some");
    }
    Ok(text)
}

fn once(fields: &[Field]) -> Result<(), &'static str> {
    if fields.is_empty() {
        return Err("a mail without a head");
    }
    for name in ONCE {
        if fields.iter().filter(|field| field.is(&[name])).count() > 1 {
            return Err("a field of a mail that stands twice");
        }
    }
    for field in fields {
        // A table says what the service does; this would say it otherwise.
        if field.name.to_ascii_lowercase().starts_with("x-ses-") {
            return Err("a field of a mail that tells the service what to do");
        }
        // Some servers read the words and write the field anew.
        let words = field.value.contains("=?") && field.value.contains("?=");
        let read = if words {
            mail::words(&field.value)
        } else {
            None
        };
        if words && read.is_none_or(|text| text.contains(is_odd)) {
            return Err("an encoded word in a field of a mail");
        }
    }
    Ok(())
}

fn is_odd(c: char) -> bool {
    c.is_control() && c != '\t'
}
