//! Takes the agent away from in front of a server again. Pure.
//!
//! What [`super::front`] does can be done in a few ways, by how the text was written. Each is
//! tried backwards, and the one counts that leads forwards to the text that is there: so the bytes
//! are those from before. Where a client has written its file anew since, none does; then the
//! first counts whose tree is the one from before.

use super::{
    edit::{Edit, apply, hyphen, line_start},
    front::{Front, put},
    place::{Which, Words, words},
    refused::Refused,
};
use crate::scan::{
    form::{self, Form, MARK},
    node::{Kind, Node, Shape},
};

/// A text without the agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Back {
    /// The text.
    pub text: String,
    /// Putting the agent in front again gives the text from before.
    pub exact: bool,
    /// The connector's name.
    pub connector: String,
}

/// The text without the agent in front of one server.
pub fn take(form: Form, text: &str, which: Which) -> Result<Back, Refused> {
    let (mark, body) = match text.strip_prefix(MARK) {
        Some(body) => (&text[..MARK.len_utf8()], body),
        None => ("", text),
    };
    let tree = form::read(form, body).map_err(|_| Refused::Unread)?;
    let (_, words) = words(which.entry(&tree)?)?;
    let own = own(&words).ok_or(Refused::OtherWay)?;
    let front = Front {
        agent: &own.agent,
        connector: &own.connector,
    };
    let mut fallback = None;
    for edits in ways(body, &words, &own) {
        let Ok(before) = apply(body, edits) else {
            continue;
        };
        match put(form, &before, which, front) {
            Ok(again) if again == body => return Ok(back(mark, &before, true, &own)),
            // The same words, in another layout.
            Ok(again) if fallback.is_none() => {
                let read = form::read(form, &again);
                if read.is_ok_and(|read| same(&read, &tree, which)) {
                    fallback = Some(before);
                }
            }
            _ => {}
        }
    }
    let before = fallback.ok_or(Refused::OtherWay)?;
    Ok(back(mark, &before, false, &own))
}

fn back(mark: &str, text: &str, exact: bool, own: &Own) -> Back {
    Back {
        text: format!("{mark}{text}"),
        exact,
        connector: own.connector.clone(),
    }
}

/// The same tree, but for the order of the server's own keys.
fn same(one: &Node, other: &Node, which: Which) -> bool {
    let sorted = |tree: &Node| {
        let mut tree = tree.clone();
        let entry = which.entry(&tree).ok()?;
        let (spot, _) = words(entry).ok()?;
        if let Kind::Map(entries) = &mut which.holder_mut(&mut tree, &spot)?.kind {
            entries.sort_by(|a, b| a.key.cmp(&b.key));
        }
        Some(tree)
    };
    match (sorted(one), sorted(other)) {
        (Some(one), Some(other)) => one.says(&other),
        _ => false,
    }
}

/// The agent's own words.
struct Own {
    agent: String,
    connector: String,
    /// How the command is written.
    how: How,
}

enum How {
    List,
    Line { bytes: usize },
    Args,
}

/// `None`: they are not those that [`put`] puts there.
fn own(words: &Words<'_>) -> Option<Own> {
    let made = |agent: &str, connector: &str, how| {
        is_word(agent).then(|| Own {
            agent: agent.to_owned(),
            connector: connector.to_owned(),
            how,
        })
    };
    let text = |node: Option<&Node>| Some(node?.as_text()?.to_owned());
    if let Kind::List(items) = &words.command.kind {
        let [agent, exec, connector, rest] = [0, 1, 2, 3].map(|at| text(items.get(at)));
        let ours = exec.as_deref() == Some("exec") && rest.as_deref() == Some("--");
        let more = items.len() > 4;
        return made(&agent?, &connector?, How::List).filter(|_| ours && more);
    }
    let command = words.command.as_text()?;
    if let Some((agent, rest)) = command.split_once(" exec ") {
        let (connector, line) = rest.split_once(" -- ")?;
        let bytes = command.len() - line.len();
        let one = !connector.contains(' ') && !line.is_empty();
        return made(agent, connector, How::Line { bytes }).filter(|_| one);
    }
    let items = words.args?.1.items();
    let [exec, connector, rest, program] = [0, 1, 2, 3].map(|at| text(items.get(at)));
    let ours = exec? == "exec" && rest? == "--" && program.is_some();
    made(command, &connector?, How::Args).filter(|_| ours)
}

/// The agent by its name or an absolute path, in letters that need no quotes.
pub fn is_word(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let named = word == "egress-agent" || word.starts_with('/') && word.ends_with("/egress-agent");
    named && word.bytes().all(plain)
}

/// Edits that may lead back, the likeliest first.
fn ways(text: &str, words: &Words<'_>, own: &Own) -> Vec<Vec<Edit>> {
    let command = words.command.place;
    match own.how {
        How::List => out_of_list(text, words.command)
            .into_iter()
            .map(|edit| vec![edit])
            .collect(),
        How::Line { bytes } => {
            let token = text.get(command.start..command.end).unwrap_or_default();
            let start = command.start + usize::from(token.starts_with(['"', '\'']));
            vec![vec![Edit::remove(start..start + bytes)]]
        }
        How::Args => {
            let Some((key, args)) = words.args else {
                return Vec::new();
            };
            let Some(program) = args.items().get(3) else {
                return Vec::new();
            };
            let place = program.place;
            let token = text.get(place.start..place.end).unwrap_or_default();
            let moved = || Edit {
                range: command.start..command.end,
                text: token.to_owned(),
            };
            let mut found = Vec::new();
            if args.items().len() == 4 {
                found.extend(whole_list(text, words, key, args));
            }
            found.extend(out_of_list(text, args));
            let pair = |edit| vec![moved(), edit];
            found.into_iter().map(pair).collect()
        }
    }
}

/// The first four values of a list.
fn out_of_list(text: &str, list: &Node) -> Vec<Edit> {
    let items = list.items();
    let start = list.place.start;
    let (Some(first), Some(fourth)) = (items.first(), items.get(3)) else {
        return Vec::new();
    };
    let first = first.place.start;
    let end = fourth.place.end;
    if list.place.shape == Shape::Block {
        // From one hyphen to the other.
        let fifth = items.get(4).map(|item| item.place.start);
        let begin = hyphen(text, first);
        let end = fifth.and_then(|fifth| hyphen(text, fifth));
        let lines = begin.zip(end).filter(|(begin, end)| begin < end);
        return lines
            .map(|(begin, end)| Edit::remove(begin..end))
            .into_iter()
            .collect();
    }
    match items.get(4) {
        Some(fifth) => vec![
            Edit::remove(first..fifth.place.start),
            Edit::remove(start + 1..end + 2),
        ],
        None => vec![Edit::remove(first..end)],
    }
}

/// The key with its list, which is then gone.
fn whole_list(text: &str, words: &Words<'_>, key: usize, args: &Node) -> Vec<Edit> {
    let command = words.command.place;
    let lines = line_start(text, key)..line_start(text, words.key);
    let ranges = [command.end..args.place.end, key..words.key, lines];
    let whole = |range: &std::ops::Range<usize>| range.start < range.end;
    ranges.into_iter().filter(whole).map(Edit::remove).collect()
}
