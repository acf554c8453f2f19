//! A configuration as a tree whose values know their line. Pure.

/// A value and the line it begins on, from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Line.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a value is, as far as a scan cares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Keys and values in the order of the file; a key may come twice.
    Map(Vec<Entry>),
    /// Values.
    List(Vec<Node>),
    /// A text, or a number as it is written.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// Nothing.
    Null,
}

/// A key and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Key.
    pub key: String,
    /// Line of the key, from 1.
    pub line: usize,
    /// Value.
    pub value: Node,
}

impl Node {
    /// The entries of a map; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The values of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::List(items) => items,
            _ => &[],
        }
    }

    /// The value of a key. Of a key that comes twice the last one counts, as for the clients.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let found = self.entries().iter().rev().find(|entry| entry.key == key);
        found.map(|entry| &entry.value)
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::as_text)
    }

    /// The truth value of a key.
    pub fn truth(&self, key: &str) -> Option<bool> {
        match self.get(key)?.kind {
            Kind::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    /// Its text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The values at a path of keys with `/` between them; `*` stands for each key.
    pub fn at(&self, path: &str) -> Vec<&Node> {
        let mut here = vec![self];
        for key in path.split('/') {
            here = here
                .into_iter()
                .flat_map(|node| match key {
                    "*" => node.entries().iter().map(|entry| &entry.value).collect(),
                    _ => node.get(key).into_iter().collect::<Vec<_>>(),
                })
                .collect();
        }
        here
    }
}
