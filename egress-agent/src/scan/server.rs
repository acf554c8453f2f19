//! Entries of a configuration → servers, in each form that clients know. Pure.

use std::collections::BTreeSet;

use super::node::{Kind, Node};

/// One server of one configuration.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Server {
    /// Its name there.
    pub name: String,
    /// Line of its name, from 1.
    pub line: usize,
    /// Where it is switched off.
    pub off: bool,
    /// Command and arguments, each with its line; none where nothing is started.
    pub words: Vec<Word>,
    /// Address of a server that is not started.
    pub url: Option<Word>,
    /// Values that go to it beside its words: environment, headers.
    pub values: Vec<Value>,
    /// The name stands in the same map before.
    pub again: bool,
    /// Which value of its map or list it is.
    pub index: usize,
}

/// A word and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// Text.
    pub text: String,
    /// Line, from 1.
    pub line: usize,
}

/// A named value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// `env`, `headers` …
    pub group: &'static str,
    /// Name.
    pub key: String,
    /// Text.
    pub text: String,
    /// Line, from 1.
    pub line: usize,
}

const URLS: [&str; 6] = ["url", "httpUrl", "serverUrl", "uri", "endpoint", "baseUrl"];
const VALUES: [&str; 7] = [
    "env",
    "envs",
    "environment",
    "headers",
    "http_headers",
    "requestInit",
    "auth",
];
/// Single values that are secrets by what they are.
const SINGLE: [&str; 5] = [
    "apiKey",
    "bearer_token",
    "token",
    "authorization",
    "clientSecret",
];

/// The servers at a place of a tree: a map by name, or a list of entries with `name`.
pub fn servers(node: &Node) -> Vec<Server> {
    let mut found: Vec<Server> = Vec::new();
    let mut names = BTreeSet::new();
    for (index, entry) in node.entries().iter().enumerate() {
        if let Some(server) = server(&entry.key, entry.line, &entry.value) {
            let again = !names.insert(entry.key.as_str());
            found.push(Server {
                again,
                index,
                ..server
            });
        }
    }
    for (index, item) in node.items().iter().enumerate() {
        let named = item.get("name").or(item.get("id"));
        let name = named.and_then(Node::as_text);
        let line = named.map_or(item.line, |name| name.line);
        if let Some(server) = server(name.unwrap_or("unnamed"), line, item) {
            let again = name.is_some_and(|name| !names.insert(name));
            found.push(Server {
                again,
                index,
                ..server
            });
        }
    }
    found
}

/// Where an entry says what it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spot {
    /// Keys from the entry to the map that holds the two below.
    pub steps: Vec<&'static str>,
    /// Key of the command.
    pub command: &'static str,
    /// Key of the arguments; `None`: there are none.
    pub args: Option<&'static str>,
}

/// `None`: it starts nothing.
pub fn spot(entry: &Node) -> Option<Spot> {
    let mut steps = Vec::new();
    let mut holder = entry;
    // `transport: {…}` holds what others have beside the name.
    if let Some(inner) = transport(entry) {
        steps.push("transport");
        holder = inner;
    }
    let first = |node: &Node, keys: [&'static str; 2]| {
        let mut keys = keys.into_iter();
        keys.find(|key| node.get(key).is_some())
    };
    let mut command = first(holder, ["command", "cmd"])?;
    let inner = holder.get(command)?;
    if let Kind::Map(_) = inner.kind {
        steps.push(command);
        holder = inner;
        command = first(holder, ["path", "command"])?;
    }
    Some(Spot {
        steps,
        command,
        args: first(holder, ["args", "arguments"]),
    })
}

fn transport(entry: &Node) -> Option<&Node> {
    let inner = entry.get("transport");
    inner.filter(|it| !it.entries().is_empty())
}

/// Some clients take a whole line as the command. Whether this text, without arguments, is one.
pub fn is_line(command: &str) -> bool {
    command.contains(' ') && !command.starts_with(['/', '"', '\'']) && !command.contains('\\')
}

/// `None`: the entry starts nothing and leads nowhere (a part of the client itself).
fn server(name: &str, line: usize, entry: &Node) -> Option<Server> {
    let inner = transport(entry).unwrap_or(entry);
    let mut server = Server {
        name: name.to_owned(),
        line,
        off: entry.truth("disabled") == Some(true)
            || entry.truth("enabled") == Some(false)
            || entry.truth("isActive") == Some(false),
        ..Server::default()
    };
    if let Some(spot) = spot(entry) {
        let mut holder = entry;
        for step in &spot.steps {
            holder = holder.get(step)?;
        }
        let command = holder.get(spot.command);
        match command.map(|command| &command.kind) {
            Some(Kind::List(_)) => list(&mut server.words, command),
            _ => push(&mut server.words, command),
        }
        list(
            &mut server.words,
            spot.args.and_then(|args| holder.get(args)),
        );
        if !std::ptr::eq(holder, inner) {
            values(&mut server.values, holder);
        }
        if let [only] = server.words.as_slice()
            && command.is_some_and(|command| command.as_text().is_some())
            && is_line(&only.text)
        {
            let line = only.line;
            let words = only.text.split_whitespace();
            server.words = words
                .map(|word| Word {
                    text: word.to_owned(),
                    line,
                })
                .collect();
        }
    }
    if server.words.is_empty() {
        server.url = URLS.iter().find_map(|&key| {
            let node = inner.get(key)?;
            Some(Word {
                text: node.as_text()?.to_owned(),
                line: node.line,
            })
        });
    }
    if server.words.is_empty() && server.url.is_none() {
        return None;
    }
    values(&mut server.values, inner);
    if !std::ptr::eq(inner, entry) {
        values(&mut server.values, entry);
    }
    Some(server)
}

fn push(words: &mut Vec<Word>, node: Option<&Node>) {
    if let Some(node) = node
        && let Some(text) = node.as_text()
        && !text.is_empty()
    {
        words.push(Word {
            text: text.to_owned(),
            line: node.line,
        });
    }
}

fn list(words: &mut Vec<Word>, node: Option<&Node>) {
    for item in node.map(Node::items).unwrap_or_default() {
        words.extend(item.as_text().map(|text| Word {
            text: text.to_owned(),
            line: item.line,
        }));
    }
}

fn values(found: &mut Vec<Value>, node: &Node) {
    for group in VALUES {
        if let Some(map) = node.get(group) {
            named(found, group, map);
        }
    }
    for key in SINGLE {
        if let Some(value) = node.get(key)
            && let Some(text) = value.as_text()
        {
            found.push(Value {
                group: "entry",
                key: key.to_owned(),
                text: text.to_owned(),
                line: value.line,
            });
        }
    }
}

fn named(found: &mut Vec<Value>, group: &'static str, map: &Node) {
    for entry in map.entries() {
        match &entry.value.kind {
            Kind::Text(text) => found.push(Value {
                group,
                key: entry.key.clone(),
                text: text.clone(),
                line: entry.value.line,
            }),
            // `requestInit: {headers: {…}}`
            Kind::Map(_) => named(found, group, &entry.value),
            _ => {}
        }
    }
    // `env: [{name: …, value: …}]`
    for item in map.items() {
        if let (Some(key), Some(value)) =
            (item.text("name").or(item.text("key")), item.get("value"))
            && let Some(text) = value.as_text()
        {
            found.push(Value {
                group,
                key: key.to_owned(),
                text: text.to_owned(),
                line: value.line,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{
        super::node::{Entry, Place},
        *,
    };

    /// A file of others could otherwise hold root up for hours.
    #[test]
    fn many_servers_take_no_time_of_their_square() {
        let text = |text: &str| Node {
            line: 1,
            kind: Kind::Text(text.to_owned()),
            place: Place::default(),
        };
        let entry = |key: &str, value| Entry {
            key: key.to_owned(),
            line: 1,
            at: 0,
            value,
        };
        let server = || Node {
            line: 1,
            kind: Kind::Map(vec![entry("command", text("a"))]),
            place: Place::default(),
        };
        let many = (0..100_000).map(|at| entry(&format!("a-name-of-one-length-{at:06}"), server()));
        let node = Node {
            line: 1,
            kind: Kind::Map(many.collect()),
            place: Place::default(),
        };
        let begun = Instant::now();
        assert_eq!(servers(&node).len(), 100_000);
        assert!(begun.elapsed() < Duration::from_secs(15));
    }
}
