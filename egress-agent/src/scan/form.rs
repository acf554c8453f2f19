//! Text of a configuration file → its tree, in the forms that clients read: JSON with comments
//! and trailing commas, TOML, YAML. Pure.

use std::collections::{HashMap, HashSet};

use jsonc_parser::{
    CollectOptions, ParseOptions,
    ast::Value,
    common::{Range, Ranged as _},
    parse_to_ast,
};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use toml_edit::{Document, Item, Table, Value as Toml};

use super::node::{Entry, Kind, Node, Place, Shape};

/// Values of a YAML text at most, those behind aliases counted each time.
const MAX_NODES: usize = 200_000;
/// Nesting of a YAML text at most.
const MAX_DEPTH: usize = 64;

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// JSON, with comments and trailing commas.
    Json,
    /// TOML 1.1.
    Toml,
    /// YAML 1.2.
    Yaml,
}

/// Why a text is no tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unread {
    /// Line, from 1.
    pub line: usize,
    /// Reason; never with text of the file in it, which could be a secret.
    pub why: &'static str,
}

impl Form {
    /// The form that a file's name says.
    pub fn of(name: &str) -> Self {
        match name.rsplit('.').next() {
            Some("toml") => Self::Toml,
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Json,
        }
    }
}

/// The mark of the byte order, which some editors put before a text.
pub const MARK: char = '\u{feff}';

/// Reads a text. A mark of the byte order at its start is no part of it, and places count from
/// behind it; an empty text is an empty map, as it is for the clients.
pub fn read(form: Form, text: &str) -> Result<Node, Unread> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let lines = Lines::of(text);
    let node = match form {
        Form::Json => json(text, &lines)?,
        Form::Toml => toml(text, &lines)?,
        Form::Yaml => yaml(text)?,
    };
    Ok(match node.kind {
        Kind::Null => Node {
            kind: Kind::Map(Vec::new()),
            ..NOTHING
        },
        _ => node,
    })
}

/// What an empty text is.
const NOTHING: Node = Node {
    line: 1,
    kind: Kind::Null,
    place: Place {
        start: 0,
        end: 0,
        shape: Shape::Flow,
    },
};

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|&end| end < offset) + 1
    }
}

fn json(text: &str, lines: &Lines) -> Result<Node, Unread> {
    // What JSON with comments is to VS Code, Zed and the others; nothing of JSON5.
    let options = ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let parsed =
        parse_to_ast(text, &CollectOptions::default(), &options).map_err(|error| Unread {
            line: lines.at(error.range().start),
            why: "it is not JSON, with or without comments",
        })?;
    Ok(parsed.value.map_or(NOTHING, |value| of_json(value, lines)))
}

/// The parser bounds the nesting.
fn of_json(value: Value<'_>, lines: &Lines) -> Node {
    let line = |range: Range| lines.at(range.start);
    let range = value.range();
    let kind = match value {
        Value::StringLit(text) => Kind::Text(text.value.into_owned()),
        Value::NumberLit(number) => Kind::Text(number.value.to_owned()),
        Value::BooleanLit(truth) => Kind::Bool(truth.value),
        Value::NullKeyword(_) => Kind::Null,
        Value::Array(list) => {
            let items = list.elements.into_iter();
            Kind::List(items.map(|item| of_json(item, lines)).collect())
        }
        Value::Object(map) => {
            let entries = map.properties.into_iter().map(|entry| Entry {
                line: line(entry.name.range()),
                at: entry.name.range().start,
                key: entry.name.into_string(),
                value: of_json(entry.value, lines),
            });
            Kind::Map(entries.collect())
        }
    };
    let place = Place {
        start: range.start,
        end: range.end,
        shape: Shape::Flow,
    };
    let line = line(range);
    Node { line, kind, place }
}

fn toml(text: &str, lines: &Lines) -> Result<Node, Unread> {
    let document = Document::parse(text).map_err(|error| Unread {
        line: error.span().map_or(1, |span| lines.at(span.start)),
        why: "it is not TOML",
    })?;
    Ok(of_table(document.as_table(), 1, lines))
}

fn of_table(table: &Table, above: usize, lines: &Lines) -> Node {
    let own = table.span().map_or(above, |span| lines.at(span.start));
    let entries = table.iter().filter_map(|(key, item)| {
        let (key, _) = table.get_key_value(key)?;
        let line = key.span().map_or(own, |span| lines.at(span.start));
        Some(Entry {
            key: key.get().to_owned(),
            line,
            at: place(key.span(), Shape::Flow).start,
            value: of_item(item, line, lines)?,
        })
    });
    Node {
        line: own,
        kind: Kind::Map(entries.collect()),
        place: place(table.span(), Shape::Block),
    }
}

fn place(span: Option<std::ops::Range<usize>>, shape: Shape) -> Place {
    let std::ops::Range { start, end } = span.unwrap_or_default();
    Place { start, end, shape }
}

fn of_item(item: &Item, above: usize, lines: &Lines) -> Option<Node> {
    match item {
        Item::None => None,
        Item::Value(value) => Some(of_toml(value, above, lines)),
        Item::Table(table) => Some(of_table(table, above, lines)),
        Item::ArrayOfTables(tables) => Some(Node {
            line: above,
            kind: Kind::List(tables.iter().map(|it| of_table(it, above, lines)).collect()),
            place: place(tables.span(), Shape::Block),
        }),
    }
}

fn of_toml(value: &Toml, above: usize, lines: &Lines) -> Node {
    let line = value.span().map_or(above, |span| lines.at(span.start));
    let kind = match value {
        Toml::String(text) => Kind::Text(text.value().clone()),
        Toml::Integer(number) => Kind::Text(number.value().to_string()),
        Toml::Float(number) => Kind::Text(number.value().to_string()),
        Toml::Datetime(time) => Kind::Text(time.value().to_string()),
        Toml::Boolean(truth) => Kind::Bool(*truth.value()),
        Toml::Array(list) => {
            Kind::List(list.iter().map(|item| of_toml(item, line, lines)).collect())
        }
        Toml::InlineTable(table) => {
            let entries = table.iter().filter_map(|(key, value)| {
                let (key, _) = table.get_key_value(key)?;
                let line = key.span().map_or(line, |span| lines.at(span.start));
                Some(Entry {
                    key: key.get().to_owned(),
                    line,
                    at: place(key.span(), Shape::Flow).start,
                    value: of_toml(value, line, lines),
                })
            });
            Kind::Map(entries.collect())
        }
    };
    // A table by dotted keys has no brackets.
    let shape = match value {
        Toml::InlineTable(table) if table.is_dotted() => Shape::Block,
        _ => Shape::Flow,
    };
    let place = place(value.span(), shape);
    Node { line, kind, place }
}

fn yaml(text: &str) -> Result<Node, Unread> {
    let mut parser = Parser::new_from_str(text);
    let mut build = Build::of(text);
    loop {
        match parser.next_event() {
            Some(Ok((Event::StreamEnd | Event::DocumentEnd, _))) | None => break,
            Some(Ok((event, span))) => build.step(event, span)?,
            Some(Err(error)) => {
                return Err(Unread {
                    line: error.marker().line().max(1),
                    why: "it is not YAML",
                });
            }
        }
    }
    Ok(build.root.unwrap_or(NOTHING))
}

/// A collection whose end has not come.
struct Open {
    anchor: usize,
    line: usize,
    start: usize,
    parts: Parts,
}

enum Parts {
    List(Vec<Node>),
    /// And a key whose value has not come, with its line and offset.
    Map(Vec<Entry>, Option<(String, usize, usize)>),
}

/// Events of a YAML text → its tree.
struct Build<'a> {
    text: &'a str,
    /// Offsets of characters, where they are not those of bytes.
    chars: Option<Vec<usize>>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    root: Option<Node>,
    nodes: usize,
}

impl<'a> Build<'a> {
    fn of(text: &'a str) -> Self {
        let chars = || text.char_indices().map(|(at, _)| at).collect();
        Self {
            text,
            chars: (!text.is_ascii()).then(chars),
            open: Vec::new(),
            anchors: HashMap::new(),
            root: None,
            nodes: 0,
        }
    }

    /// The parser counts characters.
    fn offset(&self, chars: usize) -> usize {
        match &self.chars {
            None => chars.min(self.text.len()),
            Some(offsets) => offsets.get(chars).copied().unwrap_or(self.text.len()),
        }
    }

    fn place(&self, span: Span, shape: Shape) -> Place {
        Place {
            start: self.offset(span.start.index()),
            end: self.offset(span.end.index()),
            shape,
        }
    }

    fn step(&mut self, event: Event<'_>, span: Span) -> Result<(), Unread> {
        let line = span.start.line().max(1);
        let start = self.offset(span.start.index());
        let start = behind_properties(self.text, start);
        let begin = |build: &mut Self, anchor, parts| {
            if build.open.len() >= MAX_DEPTH {
                return Err(too_large(line));
            }
            build.open.push(Open {
                anchor,
                line,
                start,
                parts,
            });
            Ok(())
        };
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let kind = scalar(&text, style);
                let shape = match style {
                    ScalarStyle::Literal | ScalarStyle::Folded => Shape::Block,
                    _ => Shape::Flow,
                };
                let mut place = self.place(span, shape);
                place.end = token_end(self.text, start, place.end);
                self.put(Node { line, kind, place }, anchor, 1)
            }
            Event::Alias(anchor) => {
                let found = self.anchors.get(&anchor).cloned();
                let (node, size) = found.unwrap_or((Node { line, ..NOTHING }, 1));
                let place = self.place(span, Shape::Alias);
                self.put(Node { place, ..node }, 0, size)
            }
            Event::SequenceStart(anchor, _) => begin(self, anchor, Parts::List(Vec::new())),
            Event::MappingStart(anchor, _) => begin(self, anchor, Parts::Map(Vec::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            _ => Ok(()),
        }
    }

    fn end(&mut self, span: Span) -> Result<(), Unread> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let (kind, bracket) = match open.parts {
            Parts::List(items) => (Kind::List(items), b'['),
            Parts::Map(entries, _) => (Kind::Map(merged(entries)), b'{'),
        };
        let shape = match self.text.as_bytes().get(open.start) == Some(&bracket) {
            true => Shape::Flow,
            false => Shape::Block,
        };
        let place = Place {
            start: open.start,
            end: self.offset(span.start.index()) + usize::from(shape == Shape::Flow),
            shape,
        };
        let node = Node {
            line: open.line,
            kind,
            place,
        };
        self.put(node, open.anchor, 1)
    }

    /// Puts a value where the next one belongs. `size` counts what it adds.
    fn put(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Unread> {
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > MAX_NODES {
            return Err(too_large(node.line));
        }
        if anchor > 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
            self.nodes = self.nodes.saturating_add(size);
        }
        match self.open.last_mut().map(|open| &mut open.parts) {
            None => self.root = Some(node),
            Some(Parts::List(items)) => items.push(node),
            Some(Parts::Map(entries, key)) => match key.take() {
                None => {
                    let text = node.as_text().unwrap_or_default().to_owned();
                    *key = Some((text, node.line, node.place.start));
                }
                Some((key, line, at)) => entries.push(Entry {
                    key,
                    line,
                    at,
                    value: node,
                }),
            },
        }
        Ok(())
    }
}

/// An anchor and a tag stand before the value that they belong to.
fn behind_properties(text: &str, mut at: usize) -> usize {
    while let Some(rest) = text.get(at..)
        && rest.starts_with(['&', '!'])
    {
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let blanks = rest
            .get(word..)
            .map_or(0, |after| after.len() - after.trim_start().len());
        at += word + blanks;
    }
    at
}

/// The parser counts blanks and a comment behind a token to it.
fn token_end(text: &str, start: usize, end: usize) -> usize {
    let token = text.get(start..end).unwrap_or_default();
    let quote = token.chars().next();
    let inner = token.get(1..).unwrap_or_default();
    let closed = match quote {
        Some('"') => {
            let mut escaped = false;
            inner.find(|char| {
                let closes = char == '"' && !escaped;
                escaped = char == '\\' && !escaped;
                closes
            })
        }
        Some('\'') => {
            // Two of them are one in the text.
            let mut pairs = inner.match_indices('\'').map(|(at, _)| at).peekable();
            loop {
                match pairs.next() {
                    Some(at) if pairs.peek() == Some(&(at + 1)) => pairs.next(),
                    found => break found,
                };
            }
        }
        _ => return start + token.trim_end().len(),
    };
    closed.map_or(end, |closed| start + closed + 2)
}

fn too_large(line: usize) -> Unread {
    Unread {
        line,
        why: "it nests or repeats too much",
    }
}

fn count(node: &Node) -> usize {
    let below: usize = match &node.kind {
        Kind::Map(entries) => entries.iter().map(|entry| count(&entry.value)).sum(),
        Kind::List(items) => items.iter().map(count).sum(),
        _ => 0,
    };
    below.saturating_add(1)
}

/// Plain words of YAML's core schema.
fn scalar(text: &str, style: ScalarStyle) -> Kind {
    match text {
        _ if style != ScalarStyle::Plain => Kind::Text(text.to_owned()),
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        _ => Kind::Text(text.to_owned()),
    }
}

/// Entries with what `<<` leads in put before them, so that their own keys count.
fn merged(entries: Vec<Entry>) -> Vec<Entry> {
    let mut first = Vec::new();
    let mut own = Vec::new();
    for entry in entries {
        match entry.value.kind {
            Kind::Map(more) if entry.key == "<<" => first.extend(more),
            _ => own.push(entry),
        }
    }
    // A key that is written here and comes by `<<` is not there twice.
    let here: HashSet<&str> = own.iter().map(|entry| entry.key.as_str()).collect();
    first.retain(|entry| !here.contains(entry.key.as_str()));
    first.extend(own);
    first
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use super::*;

    #[test]
    fn lines_are_those_of_the_file() {
        let json = "\u{feff}{\r\n  // c\r\n  \"a\": [1, /* x */ \"b\",],\r\n}\r\n";
        let node = read(Form::Json, json).unwrap();
        assert_eq!(node.entries().first().unwrap().line, 3);
        let toml = "# c\r\n[a.\"b c\"]\r\nd = 'x'\r\ne = { f = [\r\n 'y'] }\r\n";
        let node = read(Form::Toml, toml).unwrap();
        let e = node.at("a/b c/e/f");
        assert_eq!(e.first().unwrap().items().first().unwrap().line, 5);
        assert_eq!(node.at("a/b c/d").first().unwrap().line, 3);
        let yaml = "\u{feff}# c\nx: &x\n  k: v\ny:\n  <<: *x\n  l: |\n    t\n";
        let node = read(Form::Yaml, yaml).unwrap();
        assert_eq!(node.at("y/k").first().unwrap().as_text(), Some("v"));
        assert_eq!(node.at("y/k").first().unwrap().line, 3);
        assert_eq!(node.at("y").first().unwrap().get("l").unwrap().line, 7);
    }

    #[test]
    fn tokens_begin_and_end_where_they_do() {
        for (form, text, path, expected) in [
            (Form::Yaml, "a: 'x''#' # '", "a", "'x''#'"),
            (Form::Yaml, "ü: 1\na: \"x\\\"#\" # \"", "a", "\"x\\\"#\""),
            (Form::Yaml, "a: x y  # c", "a", "x y"),
            (Form::Yaml, "{a: [x] , b: ü}", "a", "[x]"),
            (Form::Yaml, "a: &b-c !!str x", "a", "&b-c !!str x"),
            (Form::Yaml, "{a: &b x , c: *b}", "a", "&b x"),
            (Form::Yaml, "a: &b !!seq [ x ]\n", "a", "[ x ]"),
            (Form::Yaml, "b: &b x\na: *b\n", "a", "*b"),
            (Form::Toml, "a = ['ü', 'x'] # c\n", "a", "['ü', 'x']"),
            (
                Form::Json,
                "{\"ü\": 1, \"a\" : \"\\u0041\" }",
                "a",
                "\"\\u0041\"",
            ),
        ] {
            let tree = read(form, text).unwrap();
            let place = tree.at(path).first().unwrap().place;
            assert_eq!(text.get(place.start..place.end), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_tree_says_where_and_nothing_of_the_text() {
        for (form, text, line) in [
            (Form::Json, "{\n\"a\": sk-secret }", 2),
            (Form::Json, "{'a': 1}", 1),
            (Form::Toml, "a = 1\nb = sk-secret\n", 2),
            (Form::Yaml, "a: 1\nb: [sk-secret\n", 3),
        ] {
            let unread = read(form, text).unwrap_err();
            assert_eq!(unread.line, line, "{text}");
            assert!(!unread.why.contains("secret"));
        }
    }

    #[test]
    fn deep_and_repeated_texts_end() {
        let deep = "[".repeat(100_000);
        for form in [Form::Json, Form::Toml, Form::Yaml] {
            let text = if form == Form::Toml {
                format!("a = {deep}")
            } else {
                deep.clone()
            };
            assert!(read(form, &text).is_err(), "{form:?}");
        }
        let mut laughs = "a0: &a0 [x]\n".to_owned();
        for at in 1..40 {
            let one = format!("*a{}", at - 1);
            laughs += &format!("a{at}: &a{at} [{one}, {one}, {one}, {one}]\n");
        }
        assert_eq!(read(Form::Yaml, &laughs).unwrap_err().why, too_large(1).why);
    }
}
