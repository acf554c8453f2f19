//! Which server of a tree is meant, and what it starts there. Pure.

use super::refused::Refused;
use crate::scan::{
    client::Client,
    node::{Kind, Node},
    server::{Server, Spot, servers, spot},
};

/// A server's place in a tree, which stays the same while only its words change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Which {
    /// Where servers stand: see [`Client::keys`].
    pub keys: &'static str,
    /// Which of the maps or lists that these keys lead to.
    pub map: usize,
    /// Which value of it.
    pub index: usize,
}

/// Every server of a configuration.
pub fn all(tree: &Node, client: &Client) -> Vec<(Which, Server)> {
    let mut found = Vec::new();
    for &keys in client.keys {
        for (map, node) in tree.at(keys).into_iter().enumerate() {
            found.extend(servers(node).into_iter().map(|server| {
                let index = server.index;
                (Which { keys, map, index }, server)
            }));
        }
    }
    found
}

impl Which {
    /// The server's entry.
    pub fn entry<'a>(&self, tree: &'a Node) -> Result<&'a Node, Refused> {
        let map = tree.at(self.keys).into_iter().nth(self.map);
        let entry = map.and_then(|map| match &map.kind {
            Kind::Map(entries) => entries.get(self.index).map(|entry| &entry.value),
            Kind::List(items) => items.get(self.index),
            _ => None,
        });
        entry.ok_or(Refused::Changed)
    }

    /// The map of the server's command and arguments, to be changed.
    pub fn holder_mut<'a>(&self, tree: &'a mut Node, spot: &Spot) -> Option<&'a mut Node> {
        let map = tree.at_mut(self.keys).into_iter().nth(self.map)?;
        let mut holder = map.values_mut().nth(self.index)?;
        for step in &spot.steps {
            holder = holder.get_mut(step)?;
        }
        Some(holder)
    }
}

/// A server's command and arguments where they stand.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// The map that holds them.
    pub holder: &'a Node,
    /// The command.
    pub command: &'a Node,
    /// Offset of its key.
    pub key: usize,
    /// Its arguments' key and value.
    pub args: Option<(usize, &'a Node)>,
}

/// Finds them.
pub fn words(entry: &Node) -> Result<(Spot, Words<'_>), Refused> {
    let spot = spot(entry).ok_or(Refused::Nothing)?;
    let mut holder = entry;
    for step in &spot.steps {
        holder = once(holder, step)?.1;
    }
    let (key, command) = once(holder, spot.command)?;
    let args = spot.args.map(|args| once(holder, args)).transpose()?;
    let words = Words {
        holder,
        command,
        key,
        args,
    };
    Ok((spot, words))
}

/// A key that stands twice means one thing to one reader and another to the next.
fn once<'a>(map: &'a Node, key: &str) -> Result<(usize, &'a Node), Refused> {
    let mut found = map.entries().iter().filter(|entry| entry.key == key);
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok((entry.at, &entry.value)),
        (None, _) => Err(Refused::Nothing),
        (Some(_), Some(_)) => Err(Refused::Twice),
    }
}
