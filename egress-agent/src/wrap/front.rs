//! Puts the agent in front of a server's command, in the text of a configuration. Pure.
//!
//! Where the command is a text beside its arguments, its token becomes the agent's and moves
//! among the arguments; everything else is insertion. The result is read again, and has to be the
//! tree from before with the new words in it: whatever is written in an unforeseen way is left
//! as it is.

use super::{
    edit::{Edit, apply, hyphen, indent, line_end, line_start},
    place::{Which, Words, words},
    refused::Refused,
};
use crate::scan::{
    form::{self, Form, MARK},
    node::{Entry, Kind, Node, Place, Shape},
    server::{Spot, is_line},
};

/// What is put in front.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Front<'a> {
    /// The agent: its name or its absolute path, without anything that would need quotes.
    pub agent: &'a str,
    /// Name of the connector.
    pub connector: &'a str,
}

/// What the words become.
enum Become {
    /// The command is a list; four words come first.
    List,
    /// The command is a whole line.
    Line,
    /// The command moves among the arguments.
    Args,
}

/// The text with the agent in front of one server.
pub fn put(form: Form, text: &str, which: Which, front: Front<'_>) -> Result<String, Refused> {
    let (mark, body) = match text.strip_prefix(MARK) {
        Some(body) => (&text[..MARK.len_utf8()], body),
        None => ("", text),
    };
    let mut tree = form::read(form, body).map_err(|_| Refused::Unread)?;
    let (spot, words) = words(which.entry(&tree)?)?;
    let (edits, becomes) = plan(form, body, &words, front)?;
    let made = apply(body, edits)?;
    let spelled = words.args.is_none();
    expect(&mut tree, which, &spot, &becomes, front, spelled).ok_or(Refused::Shared)?;
    match form::read(form, &made) {
        Ok(read) if read.says(&tree) => Ok(format!("{mark}{made}")),
        _ => Err(Refused::Shared),
    }
}

fn plan(
    form: Form,
    text: &str,
    words: &Words<'_>,
    front: Front<'_>,
) -> Result<(Vec<Edit>, Become), Refused> {
    let command = words.command;
    let place = command.place;
    if let Kind::List(items) = &command.kind {
        let tokens = [
            plain(form, front.agent),
            plain(form, "exec"),
            quoted(front.connector),
            quoted("--"),
        ];
        if items.is_empty() {
            return Err(Refused::Nothing);
        }
        return Ok((vec![into_list(text, command, &tokens)?], Become::List));
    }
    let token = text.get(place.start..place.end).unwrap_or_default();
    let said = match &command.kind {
        Kind::Text(said) if !said.is_empty() => said,
        _ => return Err(Refused::Nothing),
    };
    if form != Form::Yaml && !token.starts_with(['"', '\'']) {
        return Err(Refused::Nothing);
    }
    if place.shape == Shape::Block || token.contains('\n') {
        return Err(Refused::Lines);
    }
    let none = words.args.is_none_or(|(_, args)| args.items().is_empty());
    if none && is_line(said) {
        let quote = usize::from(token.starts_with(['"', '\'']));
        let words = format!("{} exec {} -- ", front.agent, front.connector);
        return Ok((vec![Edit::insert(place.start + quote, words)], Become::Line));
    }
    let agent = match token.starts_with(['"', '\'']) {
        true => quoted(front.agent),
        false => plain(form, front.agent),
    };
    let tokens = [
        plain(form, "exec"),
        quoted(front.connector),
        quoted("--"),
        token.to_owned(),
    ];
    let arguments = match words.args {
        Some((_, args)) => into_list(text, args, &tokens)?,
        None => new_list(form, text, words, &tokens),
    };
    let command = Edit {
        range: place.start..place.end,
        text: agent,
    };
    Ok((vec![command, arguments], Become::Args))
}

/// Tokens before the first value of a list.
fn into_list(text: &str, list: &Node, tokens: &[String]) -> Result<Edit, Refused> {
    let Kind::List(items) = &list.kind else {
        return Err(Refused::NoList);
    };
    let Place { start, shape, .. } = list.place;
    let begins = text.as_bytes().get(start);
    match (shape, begins, items.first()) {
        // Without blanks, so that it can be told from a list that was not there.
        (Shape::Flow, Some(b'['), None) => Ok(Edit::insert(
            start + 1,
            tokens
                .iter()
                .map(|token| match token.starts_with(['"', '\'']) {
                    true => token.clone(),
                    false => quoted_plain(token),
                })
                .collect::<Vec<_>>()
                .join(","),
        )),
        (Shape::Flow, Some(b'['), Some(first)) => {
            let first = first.place.start;
            let between = text.get(start + 1..first).unwrap_or("?");
            let (at, rest) = match between.trim().is_empty() {
                true if between.contains('\n') => (first, format!(",{between}")),
                true => (first, ", ".to_owned()),
                // A comment stands there, or an anchor.
                false => (start + 1, ", ".to_owned()),
            };
            Ok(Edit::insert(at, tokens.join(&rest) + &rest))
        }
        (Shape::Block, _, Some(first)) => {
            let start = hyphen(text, first.place.start).ok_or(Refused::Shared)?;
            let before = indent(text, start).ok_or(Refused::Shared)?;
            let rest = format!("{}{before}", line_end(text, start));
            let lines = tokens.iter().map(|token| format!("- {token}{rest}"));
            Ok(Edit::insert(start, lines.collect()))
        }
        _ => Err(Refused::Shared),
    }
}

/// Arguments where there were none.
fn new_list(form: Form, text: &str, words: &Words<'_>, tokens: &[String]) -> Edit {
    let key = words.key;
    let name = match (form, text.as_bytes().get(key)) {
        (Form::Json, _) | (Form::Yaml, Some(b'"')) => "\"args\": ",
        (Form::Yaml, _) => "args: ",
        (Form::Toml, _) => "args = ",
    };
    let list = format!("{name}[{}]", tokens.join(", "));
    let end = line_end(text, key);
    match (words.holder.place.shape, form) {
        (Shape::Block, Form::Toml) => {
            // `server.command = …` has its keys before it.
            let start = line_start(text, key);
            let before = text.get(start..key).unwrap_or_default();
            Edit::insert(start, format!("{before}{list}{end}"))
        }
        (Shape::Block, _) => {
            let before = text.get(line_start(text, key)..key).unwrap_or_default();
            let blanks = " ".repeat(before.chars().count());
            Edit::insert(key, format!("{list}{end}{blanks}"))
        }
        _ => {
            let rest = match indent(text, key) {
                Some(before) if form != Form::Toml => format!(",{end}{before}"),
                _ => ", ".to_owned(),
            };
            Edit::insert(words.command.place.end, format!("{rest}{list}"))
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// Words that need no quotes in YAML.
fn plain(form: Form, text: &str) -> String {
    match form {
        Form::Yaml => text.to_owned(),
        _ => quoted(text),
    }
}

/// A plain word of YAML stays what it is: its quotes would be another token.
fn quoted_plain(token: &str) -> String {
    match token {
        "exec" => quoted(token),
        _ => token.to_owned(),
    }
}

/// The tree as it has to be afterwards.
fn expect(
    tree: &mut Node,
    which: Which,
    spot: &Spot,
    becomes: &Become,
    front: Front<'_>,
    new: bool,
) -> Option<()> {
    let holder = which.holder_mut(tree, spot)?;
    let block = holder.place.shape == Shape::Block;
    let said = |text: &str| Node {
        line: 0,
        kind: Kind::Text(text.to_owned()),
        place: Place::default(),
    };
    let command = holder.get_mut(spot.command)?;
    match (becomes, &mut command.kind) {
        (Become::List, Kind::List(items)) => {
            let words = [front.agent, "exec", front.connector, "--"];
            items.splice(0..0, words.map(said));
        }
        (Become::Line, Kind::Text(line)) => {
            *line = format!("{} exec {} -- {line}", front.agent, front.connector);
        }
        (Become::Args, Kind::Text(_)) => {
            let moved = std::mem::replace(command, said(front.agent));
            let words = [said("exec"), said(front.connector), said("--"), moved];
            let Kind::Map(entries) = &mut holder.kind else {
                return None;
            };
            if new {
                let at = entries.iter().position(|entry| entry.key == spot.command)?;
                let args = Entry {
                    key: "args".to_owned(),
                    line: 0,
                    at: 0,
                    value: Node {
                        kind: Kind::List(words.into()),
                        ..said("")
                    },
                };
                entries.insert(if block { at } else { at + 1 }, args);
            } else {
                let Kind::List(items) = &mut holder.get_mut(spot.args?)?.kind else {
                    return None;
                };
                items.splice(0..0, words);
            }
        }
        _ => return None,
    }
    Some(())
}
