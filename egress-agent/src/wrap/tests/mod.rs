//! Tests of the room: there and back, for handed and for generated texts.

#![expect(clippy::panic, reason = "a test stops at its first fault")]

mod generated;
mod handed;

use crate::{
    scan::{
        client::ANY,
        form::{self, Form},
        server::Server,
    },
    wrap::{
        back::take,
        front::{Front, put},
        place::{Which, all},
        refused::Refused,
    },
};

pub(super) fn servers(form: Form, text: &str) -> Vec<(Which, Server)> {
    let tree = form::read(form, text).unwrap_or_else(|unread| panic!("{unread:?}: {text}"));
    let mut found = all(&tree, &ANY);
    found.sort_by_key(|(which, _)| (which.keys, which.map, which.index));
    found
}

fn words(server: &Server) -> Vec<&str> {
    server.words.iter().map(|word| word.text.as_str()).collect()
}

/// Puts the agent in front of every server that starts something, one after the other, and takes it
/// away again. Answers the text in between.
pub(super) fn there_and_back(form: Form, text: &str) -> Result<String, Refused> {
    let before = servers(form, text);
    let mut there = text.to_owned();
    let mut steps = Vec::new();
    for (which, server) in &before {
        if server.words.is_empty() {
            continue;
        }
        let front = Front {
            agent: "egress-agent",
            connector: "a.name-1",
        };
        there = put(form, &there, *which, front)?;
        steps.push(*which);
    }
    for ((which, server), (_, then)) in servers(form, &there).iter().zip(&before) {
        let mut expected = words(then);
        if !expected.is_empty() {
            expected.splice(0..0, ["egress-agent", "exec", "a.name-1", "--"]);
        }
        assert_eq!(words(server), expected, "{which:?} in\n{there}");
        assert_eq!(server.values.len(), then.values.len(), "{there}");
    }
    // Another reader than the one that places come from. YAML's key `<<` is not merged there.
    if form == Form::Yaml {
        let read = serde_yaml::from_str::<serde_yaml::Value>(&there);
        assert!(read.is_ok(), "{read:?}: {there}");
    }
    let mut back = there.clone();
    for which in steps.into_iter().rev() {
        let taken = take(form, &back, which)
            .unwrap_or_else(|refused| panic!("{refused}: of\n{text}\nwas made\n{there}"));
        assert!(taken.exact, "not exact: of\n{text}\nwas made\n{there}");
        assert_eq!(taken.connector, "a.name-1");
        back = taken.text;
    }
    assert_eq!(back, text, "over\n{there}");
    Ok(there)
}
