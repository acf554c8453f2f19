//! A record, or a report, as one line of JSON. Pure.

use serde::Serialize;

use crate::event::escape::SafeJson;

/// Appends the record and a line end. Characters that could affect a terminal or hide
/// something stand as `\uXXXX`.
pub fn push_line(record: &impl Serialize, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let start = out.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, SafeJson);
    if let Err(error) = record.serialize(&mut serializer) {
        out.truncate(start);
        return Err(error);
    }
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use super::*;
    use crate::event::model::{
        Body, Denial, Record,
        tests::{denial, every_kind, record},
    };

    #[test]
    fn one_line_whatever_the_names_are() {
        let mut hostile = Denial {
            connector: Some("a\nb".into()),
            ..denial()
        };
        hostile.destination.name = Some("x\u{202e}\x1b]0;\x07\u{9b}".into());
        let record = record(Body::Denied(hostile));
        let mut out = Vec::new();
        push_line(&record, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert!(
            text.trim_end()
                .bytes()
                .all(|byte| (0x20..0x7f).contains(&byte))
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn the_same_as_plain_json_where_nothing_is_hostile() {
        for record in every_kind() {
            let mut out = Vec::new();
            push_line(&record, &mut out).unwrap();
            let plain = serde_json::to_string(&record).unwrap() + "\n";
            assert_eq!(String::from_utf8(out).unwrap(), plain);
        }
    }
}
