//! Rules into the text of a policy, with its comments and order kept. Pure.
//!
//! The new text is read, and has to be the policy from before with the new rules at the end of
//! `allow`; otherwise there is none.

use std::path::Path;

use super::render::Entry;
use crate::{
    policy::{self, Policy},
    scan::{
        form::{self, Form, MARK},
        node::{Kind, Node, Shape},
    },
    wrap::edit::{Edit, apply, hyphen, indent, line_end},
};

/// Why rules cannot be written into a text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unfit {
    /// The policy from before cannot be used.
    #[error("the policy has faults: {0}")]
    Faulty(String),
    /// It is written in a way that was not foreseen.
    #[error(
        "`allow` is written in a way in which nothing can be added; put it in lines of its own"
    )]
    Form,
}

/// The text with entries at the end of `allow`, and remarks as comments behind them.
pub fn insert(text: &str, entries: &[Entry], remarks: &[String]) -> Result<String, Unfit> {
    let before = read(text)?;
    let (mark, body) = match text.strip_prefix(MARK) {
        Some(body) => (&text[..MARK.len_utf8()], body),
        None => ("", text),
    };
    let tree = form::read(Form::Yaml, body).map_err(|_| Unfit::Form)?;
    let edits = plan(body, &tree, entries, remarks)?;
    let made = apply(body, edits).map_err(|_| Unfit::Form)?;
    let made = format!("{mark}{made}");
    let after = read(&made).map_err(|_| Unfit::Form)?;
    if is_more(&before, &after, entries) {
        return Ok(made);
    }
    Err(Unfit::Form)
}

fn read(text: &str) -> Result<Policy, Unfit> {
    policy::parse(Path::new("policy"), text).map_err(|faults| Unfit::Faulty(faults.to_string()))
}

/// Whether the one is the other with more rules, and nothing else.
fn is_more(before: &Policy, after: &Policy, entries: &[Entry]) -> bool {
    let [old, new] = [before, after].map(|policy| policy.written().count());
    let mut same = after.clone();
    same.allow.truncate(before.allow.len());
    new == old + entries.len() && same == *before
}

fn plan(
    text: &str,
    tree: &Node,
    entries: &[Entry],
    remarks: &[String],
) -> Result<Vec<Edit>, Unfit> {
    let allow = tree.entries().iter().find(|entry| entry.key == "allow");
    let Some(allow) = allow else {
        let end = line_end(text, text.len());
        let begin = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            end
        };
        let lines = block("  ", end, entries, remarks);
        return Ok(vec![Edit::insert(
            text.len(),
            format!("{begin}allow:{end}{lines}"),
        )]);
    };
    let list = &allow.value;
    let end = line_end(text, allow.at);
    match (&list.kind, list.place.shape) {
        (Kind::List(items), Shape::Block) => {
            let first = items.first().ok_or(Unfit::Form)?;
            let hyphen = hyphen(text, first.place.start).ok_or(Unfit::Form)?;
            let before = indent(text, hyphen).ok_or(Unfit::Form)?;
            let at = after_line(text, last(list));
            let begin = if text.get(..at).is_some_and(|text| text.ends_with('\n')) {
                ""
            } else {
                end
            };
            let lines = block(before, end, entries, remarks);
            Ok(vec![Edit::insert(at, format!("{begin}{lines}"))])
        }
        (Kind::List(items), Shape::Flow) if items.is_empty() => {
            let at = after_line(text, list.place.end);
            let begin = if text.get(..at).is_some_and(|text| text.ends_with('\n')) {
                ""
            } else {
                end
            };
            let lines = block("  ", end, entries, remarks);
            let blank = text.get(..list.place.start).map_or(0, |before| {
                before.len() - before.trim_end_matches(' ').len()
            });
            Ok(vec![
                Edit::remove(list.place.start - blank..list.place.end),
                Edit::insert(at, format!("{begin}{lines}")),
            ])
        }
        (Kind::List(items), Shape::Flow) => {
            let item = items.last().ok_or(Unfit::Form)?;
            let close = list.place.end.saturating_sub(1);
            let between = text.get(item.place.end..close).ok_or(Unfit::Form)?;
            // A comment could hold the comma.
            if between.contains('#') {
                return Err(Unfit::Form);
            }
            let comma = if between.contains(',') { "" } else { "," };
            Ok(vec![
                Edit::insert(item.place.end, comma.to_owned()),
                Edit::insert(close, format!("{end}{}", flow(end, entries, remarks))),
            ])
        }
        (Kind::Null, _) => {
            let at = after_line(text, allow.at + 1);
            let begin = if text.get(..at).is_some_and(|text| text.ends_with('\n')) {
                ""
            } else {
                end
            };
            let lines = block("  ", end, entries, remarks);
            Ok(vec![Edit::insert(at, format!("{begin}{lines}"))])
        }
        _ => Err(Unfit::Form),
    }
}

/// Offset behind the line of a place.
fn after_line(text: &str, at: usize) -> usize {
    if at > 0 && text.get(..at).is_some_and(|text| text.ends_with('\n')) {
        return at;
    }
    let next = text.get(at..).and_then(|rest| rest.find('\n'));
    next.map_or(text.len(), |next| at + next + 1)
}

/// Offset behind the last token of a value.
fn last(node: &Node) -> usize {
    match (&node.kind, node.place.shape) {
        (Kind::List(items), Shape::Block) => items.iter().map(last).max().unwrap_or(0),
        (Kind::Map(entries), Shape::Block) => {
            let ends = entries.iter().map(|entry| last(&entry.value).max(entry.at));
            ends.max().unwrap_or(0)
        }
        _ => node.place.end,
    }
}

fn block(before: &str, end: &str, entries: &[Entry], remarks: &[String]) -> String {
    let mut lines = Vec::new();
    for entry in entries {
        lines.extend(entry.comment.iter().map(|line| format!("# {line}")));
        let fields = entry.fields.iter().enumerate();
        lines.extend(
            fields.map(|(at, field)| format!("{} {field}", if at == 0 { "-" } else { " " })),
        );
    }
    lines.extend(remarks.iter().map(|line| format!("# {line}")));
    let lines = lines.into_iter().map(|line| format!("{before}{line}{end}"));
    lines.collect()
}

fn flow(end: &str, entries: &[Entry], remarks: &[String]) -> String {
    let mut lines = Vec::new();
    for entry in entries {
        lines.extend(entry.comment.iter().map(|line| format!("# {line}")));
        lines.push(format!("{{ {} }},", entry.fields.join(", ")));
    }
    lines.extend(remarks.iter().map(|line| format!("# {line}")));
    let lines = lines.into_iter().map(|line| format!("  {line}{end}"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use super::*;

    fn entries() -> Vec<Entry> {
        vec![Entry {
            comment: vec!["seen".to_owned()],
            fields: vec!["host: new.example".to_owned(), "ports: [443]".to_owned()],
        }]
    }

    #[test]
    fn comments_and_order_stay() {
        let remarks = ["why:".to_owned()];
        for (text, expected) in [
            (
                "version: 1 # v\nconnector: a\nallow: # all\n- a.example:443 # a\n# b\n- host: b.example\n  ports: [1]\n  why: |\n    x\n\n# mode\nmode: audit\n",
                "version: 1 # v\nconnector: a\nallow: # all\n- a.example:443 # a\n# b\n- host: b.example\n  ports: [1]\n  why: |\n    x\n# seen\n- host: new.example\n  ports: [443]\n# why:\n\n# mode\nmode: audit\n",
            ),
            (
                "version: 1\r\nconnector: a\r\nallow:\r\n    - a.example:443",
                "version: 1\r\nconnector: a\r\nallow:\r\n    - a.example:443\r\n    # seen\r\n    - host: new.example\r\n      ports: [443]\r\n    # why:\r\n",
            ),
            (
                "version: 1\nconnector: a\nallow: [] # none\nmode: audit\n",
                "version: 1\nconnector: a\nallow: # none\n  # seen\n  - host: new.example\n    ports: [443]\n  # why:\nmode: audit\n",
            ),
            (
                "version: 1\nallow:\nconnector: a\n",
                "version: 1\nallow:\n  # seen\n  - host: new.example\n    ports: [443]\n  # why:\nconnector: a\n",
            ),
            (
                "connector: a\nversion: 1",
                "connector: a\nversion: 1\nallow:\n  # seen\n  - host: new.example\n    ports: [443]\n  # why:\n",
            ),
            (
                "version: 1\nconnector: a\nallow: [a.example:443, b.example:1]\n",
                "version: 1\nconnector: a\nallow: [a.example:443, b.example:1,\n  # seen\n  { host: new.example, ports: [443] },\n  # why:\n]\n",
            ),
        ] {
            assert_eq!(insert(text, &entries(), &remarks).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_such_policy_is_left_alone() {
        for text in [
            "{version: 1, connector: a, allow: [a.example:443], deny: [b.example]} # x",
            "version: 1\nconnector: a\nallow: [a.example:443 # ,\n]\n",
        ] {
            let made = insert(text, &entries(), &[]);
            if let Ok(made) = made {
                assert_eq!(read(&made).unwrap().allow.len(), 2, "{made}");
            }
        }
        assert!(matches!(
            insert("version: 2\n", &entries(), &[]),
            Err(Unfit::Faulty(_))
        ));
        let odd = "version: 1\nconnector: a\nallow: [a.example:443 # ,\n]\n";
        assert_eq!(insert(odd, &entries(), &[]), Err(Unfit::Form));
    }
}
