//! A configuration as a tree whose values know their place. Pure.

/// A value, the line it begins on, from 1, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Line.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
    /// Where.
    pub place: Place,
}

/// Where a value stands in the bytes of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Offset of its first byte.
    pub start: usize,
    /// Offset behind its last byte; of a map or list in blocks it says nothing.
    pub end: usize,
    /// How it is written.
    pub shape: Shape,
}

/// How a value is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shape {
    /// One token; a map or list between brackets.
    #[default]
    Flow,
    /// Lines of their own: a table of TOML, a map or list of YAML without brackets.
    Block,
    /// Another value, by its name (YAML).
    Alias,
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
    /// Offset of the key's first byte; of a dotted key, of its last part.
    pub at: usize,
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
    /// The same, to be changed.
    pub fn at_mut(&mut self, path: &str) -> Vec<&mut Self> {
        let mut here = vec![self];
        for key in path.split('/') {
            here = here
                .into_iter()
                .flat_map(|node| match key {
                    "*" if matches!(node.kind, Kind::Map(_)) => node.values_mut().collect(),
                    "*" => Vec::new(),
                    _ => node.get_mut(key).into_iter().collect::<Vec<_>>(),
                })
                .collect();
        }
        here
    }

    /// The values of a map or list, to be changed.
    pub fn values_mut(&mut self) -> Box<dyn Iterator<Item = &mut Self> + '_> {
        match &mut self.kind {
            Kind::Map(entries) => Box::new(entries.iter_mut().map(|entry| &mut entry.value)),
            Kind::List(items) => Box::new(items.iter_mut()),
            _ => Box::new(std::iter::empty()),
        }
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        let Kind::Map(entries) = &mut self.kind else {
            return None;
        };
        let found = entries.iter_mut().rev().find(|entry| entry.key == key);
        found.map(|entry| &mut entry.value)
    }

    /// Whether two trees say the same, wherever it stands.
    pub fn says(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Map(own), Kind::Map(theirs)) => {
                own.len() == theirs.len()
                    && own
                        .iter()
                        .zip(theirs)
                        .all(|(own, their)| own.key == their.key && own.value.says(&their.value))
            }
            (Kind::List(own), Kind::List(theirs)) => {
                own.len() == theirs.len()
                    && own.iter().zip(theirs).all(|(own, their)| own.says(their))
            }
            (own, their) => own == their,
        }
    }
}
