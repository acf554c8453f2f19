//! Makes text that others chose safe to show. Pure.
//!
//! Names of processes, arguments and host names come from programs that may be hostile. On
//! a terminal or in a log they could move the cursor, change the title, hide text by
//! writing direction, or forge a second line. Nothing that is not visible ink passes.

use std::{fmt::Write as _, io};

/// Text for one field of a line: escaped as by [`inner`], and put into quotes where it has
/// a blank or a quote or nothing in it, so that no value can look like two fields.
pub fn field(text: &str) -> String {
    let shown = inner(text);
    if shown.is_empty() || shown.contains([' ', '"']) {
        return format!("\"{shown}\"");
    }
    shown
}

/// Text in which every character that a reader cannot see, and the backslash and the quote,
/// stand as `\n`, `\x1b` or `\u{202e}`; only blanks stay.
pub fn inner(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            '\\' => shown.push_str("\\\\"),
            '"' => shown.push_str("\\\""),
            char if char == ' ' || is_visible(char) => shown.push(char),
            char => push_code(&mut shown, char),
        }
    }
    shown
}

fn push_code(shown: &mut String, char: char) {
    let code = u32::from(char);
    // Writing to a String cannot fail.
    if code < 0x100 {
        write!(shown, "\\x{code:02x}").unwrap_or_default();
    } else {
        write!(shown, "\\u{{{code:x}}}").unwrap_or_default();
    }
}

/// Whether a character shows itself and changes nothing around it. Outside ASCII: letters
/// and digits of any script, plus a few signs the agent itself uses.
fn is_visible(char: char) -> bool {
    match char {
        '!'..='~' => true,
        '\u{fffd}' | '…' => true,
        char => !char.is_ascii() && char.is_alphanumeric() && !is_invisible_letter(char),
    }
}

/// Letters by their class that have no ink (Unicode 16, DerivedCoreProperties
/// `Default_Ignorable_Code_Point`): the Hangul fillers.
fn is_invisible_letter(char: char) -> bool {
    matches!(char, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}')
}

/// Writes JSON in which everything but visible characters stands as `\uXXXX`, so that a
/// file of it can be shown on a terminal as it is.
pub struct SafeJson;

impl serde_json::ser::Formatter for SafeJson {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut plain = 0;
        for (at, char) in fragment.char_indices() {
            if char == ' ' || is_visible(char) {
                continue;
            }
            writer.write_all(fragment.get(plain..at).unwrap_or_default().as_bytes())?;
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + char.len_utf8();
        }
        writer.write_all(fragment.get(plain..).unwrap_or_default().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    /// Cursor, title, C1 CSI, DEL, both directions, isolates, zero width, BOM, line and
    /// paragraph separators, fillers, a tag character, a combining mark, private use.
    const HOSTILE: &str = "\x1b[2J\x1b]0;t\x07\u{9b}31m\x7f\u{202e}\u{202a}\u{2066}\u{2069}\
        \u{200e}\u{200b}\u{200d}\u{feff}\u{2028}\u{2029}\u{3164}\u{e0041}\u{300}\u{e000}\u{ad}\r\n\t\0";

    fn json(text: &str) -> String {
        let mut bytes = Vec::new();
        text.serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, SafeJson,
        ))
        .unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn hostile_text_has_no_effect() {
        for shown in [field(HOSTILE), json(HOSTILE)] {
            assert!(
                shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                "{shown}"
            );
        }
        assert_eq!(
            serde_json::from_str::<String>(&json(HOSTILE)).unwrap(),
            HOSTILE
        );
    }

    #[test]
    fn plain_text_stays_plain() {
        assert_eq!(field("node"), "node");
        assert_eq!(field("käse-日本"), "käse-日本");
        assert_eq!(json("käse-日本"), "\"käse-日本\"");
        assert_eq!(field("MainThread x"), "\"MainThread x\"");
        assert_eq!(field("a\"b"), "\"a\\\"b\"");
        assert_eq!(field("\\x1b"), "\\\\x1b");
        assert_eq!(field(""), "\"\"");
        assert_eq!(field("\x1b[0m\u{202e}\n"), "\\x1b[0m\\u{202e}\\n");
    }

    proptest! {
        #[test]
        fn json_means_what_it_meant(text in any::<String>()) {
            let shown = json(&text);
            prop_assert!(shown.chars().all(|char| char == ' ' || is_visible(char)));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }

        #[test]
        fn a_field_is_one_field(text in any::<String>()) {
            let shown = field(&text);
            prop_assert!(shown.chars().all(|char| char == ' ' || is_visible(char)));
            prop_assert!(!shown.contains(' ') || shown.starts_with('"'));
        }
    }
}
