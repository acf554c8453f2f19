//! Changes to a text, as places and what is put there. Pure.

use std::ops::Range;

use super::refused::Refused;

/// What stands at a place, instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edit {
    /// Offsets of the bytes that go; empty: nothing does.
    pub range: Range<usize>,
    /// What comes there.
    pub text: String,
}

impl Edit {
    /// Puts a text in.
    pub fn insert(at: usize, text: String) -> Self {
        Self {
            range: at..at,
            text,
        }
    }

    /// Takes bytes out.
    pub fn remove(range: Range<usize>) -> Self {
        Self {
            range,
            text: String::new(),
        }
    }
}

/// The text with all edits made, which may not overlap.
pub fn apply(text: &str, mut edits: Vec<Edit>) -> Result<String, Refused> {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut made = String::with_capacity(text.len() + 128);
    let mut done = 0;
    for edit in edits {
        let kept = text.get(done..edit.range.start);
        made.push_str(kept.ok_or(Refused::Shared)?);
        made.push_str(&edit.text);
        done = edit.range.end;
    }
    made.push_str(text.get(done..).ok_or(Refused::Shared)?);
    Ok(made)
}

/// Offset of the first byte of a place's line.
pub fn line_start(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.rfind('\n').map_or(0, |end| end + 1)
}

/// What stands before a place in its line, where that is blank.
pub fn indent(text: &str, at: usize) -> Option<&str> {
    let before = text.get(line_start(text, at)..at)?;
    before
        .bytes()
        .all(|byte| matches!(byte, b' ' | b'\t'))
        .then_some(before)
}

/// How lines end around a place.
pub fn line_end(text: &str, at: usize) -> &'static str {
    let next = text.get(at..).and_then(|rest| rest.find('\n'));
    let end = match next {
        Some(next) => Some(at + next),
        None => text.rfind('\n'),
    };
    let before = end.and_then(|end| text.get(..end)).unwrap_or_default();
    if before.ends_with('\r') { "\r\n" } else { "\n" }
}

/// The hyphen of a list's item in blocks (YAML), where only blanks stand before it.
pub fn hyphen(text: &str, item: usize) -> Option<usize> {
    let before = text.get(..item)?;
    let mut hyphens = before.rmatch_indices('-').map(|(at, _)| at);
    hyphens.find(|&at| indent(text, at).is_some())
}
