//! The MCP wire, read as it passes: which tools the client called, with which values.
//!
//! Both directions are given to [`Wire`] as they come, in pieces of any size, and nothing is
//! changed or held back. Messages are JSON-RPC 2.0, each on a line of its own (MCP, transports,
//! stdio), or behind a `Content-Length` header as in the Language Server Protocol; which of the two
//! is seen from the first byte of each message. Batches (MCP 2025-03-26) are read as well.
//!
//! **Who says a value decides whether it counts.** What the client writes names values: arguments
//! of `tools/call` and of `prompts/get`. What the connector writes never does, whatever it looks
//! like. In between stand the client's answers to the connector:
//!
//! - `elicitation/create` asks the person. A value counts where the person wrote it freely: not
//!   where the connector offered it, as a default, a choice, or anywhere in the text of its
//!   question.
//! - `sampling/createMessage` asks the model with a prompt that the connector wrote. Its answer
//!   never counts.
//! - `roots/list` and all others are about other things, and do not count.

use std::collections::{BTreeSet, HashSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    keys,
    leaves::{self, Leaf},
    messages::{Messages, Unread},
};

/// Calls whose end is waited for; of more, the oldest counts as over.
pub const MAX_OPEN: usize = 1024;
/// Questions to the person whose answer is waited for; of more, the oldest answer does not count.
const MAX_ASKED: usize = 16;
/// Ids of questions that are remembered, since each counts once; after more, no answer counts.
const MAX_USED: usize = 4096;
/// Bytes of a question's texts; of a longer one, no answer counts.
const MAX_QUESTION: usize = 64 << 10;

/// The id of a JSON-RPC request. The number 1 and the text "1" are two ids.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Id {
    /// A number, as it was written.
    Number(String),
    /// A text.
    Text(String),
    /// Of a question that the connector asked: its ids are not the client's.
    Asked(String),
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(id) | Self::Text(id) | Self::Asked(id) => f.write_str(id),
        }
    }
}

/// Values that the client named.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Call {
    /// Of the request; `None`: a notification, which has no answer.
    pub id: Option<Id>,
    /// The tool; for a prompt its name behind `prompts/get `, for an answer of the person
    /// `elicitation/create`.
    pub tool: String,
    /// Texts and whole numbers of the arguments that can be values, each with its place.
    pub named: Vec<Leaf>,
    /// Further ones for which there was no room.
    pub left_out: usize,
}

/// What was heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The client named values.
    Called(Call),
    /// A call is over: it was answered by the connector, or withdrawn by the client.
    Ended(Id),
    /// A message of the client's passed that cannot be read: what it names is not known.
    Unread(Unread),
}

/// Both directions of one session.
#[derive(Debug, Default)]
pub struct Wire {
    client: Messages,
    server: Messages,
    talk: Talk,
}

impl Wire {
    /// A session of which nothing was heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads what the client wrote. To be called **before** the bytes are passed on: then a call
    /// is known before anything that it causes.
    pub fn client(&mut self, bytes: &[u8], heard: &mut impl FnMut(Heard)) {
        let talk = &mut self.talk;
        // What stands in there is a message of its own for a client that reads lines.
        talk.hidden = self.server.in_body();
        self.client.feed(bytes, &mut |message| match message {
            Ok(message) => talk.client(message, heard),
            Err(unread) => heard(Heard::Unread(unread)),
        });
    }

    /// Reads what the connector wrote. May be called after the bytes were passed on, but before
    /// the client's next bytes are given to [`Self::client`].
    pub fn server(&mut self, bytes: &[u8], heard: &mut impl FnMut(Heard)) {
        let talk = &mut self.talk;
        self.server.feed(bytes, &mut |message| {
            // A connector may write what it likes; only what the client takes for an answer or a
            // question is one.
            match message {
                Ok(message) => talk.server(message, heard),
                Err(unread) => talk.unsure |= unread == Unread::TooLong,
            }
        });
    }
}

/// One JSON-RPC message. A member that stands twice makes it unreadable.
#[derive(Deserialize)]
struct Frame<'a> {
    method: Option<String>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

/// Parameters of `tools/call` and `prompts/get`.
#[derive(Deserialize)]
struct Named<'a> {
    name: String,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// Parameters of `notifications/cancelled`.
#[derive(Deserialize)]
struct Cancelled<'a> {
    #[serde(rename = "requestId", borrow)]
    request: &'a RawValue,
}

/// Result of `elicitation/create`.
#[derive(Deserialize)]
struct Answered<'a> {
    action: String,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// A question of the connector's to the person.
#[derive(Debug)]
struct Question {
    id: Id,
    /// Properties that the person fills in freely.
    free: BTreeSet<String>,
    /// All its texts, squeezed; `None`: too much to be remembered.
    says: Option<String>,
}

/// What is under way.
#[derive(Debug, Default)]
struct Talk {
    open: VecDeque<Id>,
    asked: VecDeque<Question>,
    /// Ids of all questions so far. An answer says no more than an id, so each id is one question's.
    used: HashSet<Id>,
    /// The connector wrote something that a lenient client could take for a question, and that was
    /// not read: which question is answered cannot be told any more.
    unsure: bool,
    /// The connector is in the middle of a message whose length it said.
    hidden: bool,
}

impl Talk {
    fn client(&mut self, message: &[u8], heard: &mut impl FnMut(Heard)) {
        match frames(message) {
            None => heard(Heard::Unread(Unread::NoMessage)),
            Some(frames) => {
                for frame in frames {
                    if self.said(&frame, heard).is_none() {
                        heard(Heard::Unread(Unread::NoMessage));
                    }
                }
            }
        }
    }

    /// One message of the client's; `None` where it cannot be read.
    fn said(&mut self, frame: &Frame<'_>, heard: &mut impl FnMut(Heard)) -> Option<()> {
        let prefix = match frame.method.as_deref() {
            Some("tools/call") => "",
            Some("prompts/get") => "prompts/get ",
            Some("notifications/cancelled") => {
                let cancelled: Cancelled<'_> = serde_json::from_str(frame.params?.get()).ok()?;
                self.end(&id(cancelled.request)?, heard);
                return Some(());
            }
            Some(_) => return Some(()),
            None => return self.answered(frame, heard),
        };
        let named: Named<'_> = serde_json::from_str(frame.params?.get()).ok()?;
        let id = match frame.id {
            Some(raw) => Some(id(raw)?),
            None => None,
        };
        let arguments = named.arguments.map_or("{}", RawValue::get);
        let leaves = leaves::of(arguments).ok()?;
        if let Some(id) = id.clone() {
            if self.open.len() == MAX_OPEN {
                self.open
                    .pop_front()
                    .into_iter()
                    .for_each(|oldest| heard(Heard::Ended(oldest)));
            }
            self.open.push_back(id);
        }
        heard(Heard::Called(Call {
            id,
            tool: format!("{prefix}{}", named.name),
            named: leaves.kept,
            left_out: leaves.left_out,
        }));
        Some(())
    }

    /// An answer of the client's: to a question, or to something that does not count.
    fn answered(&mut self, frame: &Frame<'_>, heard: &mut impl FnMut(Heard)) -> Option<()> {
        let (Some(raw), Some(result)) = (frame.id, frame.result) else {
            // An error, or an answer to nothing.
            return Some(());
        };
        let id = id(raw)?;
        let Some(place) = self.asked.iter().position(|question| question.id == id) else {
            return Some(());
        };
        let question = self.asked.remove(place)?;
        if self.unsure || self.hidden {
            return Some(());
        }
        let answer: Answered<'_> = match serde_json::from_str(result.get()) {
            Ok(answer) => answer,
            // Of another kind than what was asked for.
            Err(_) => return Some(()),
        };
        let Some(content) = answer.content.filter(|_| answer.action == "accept") else {
            return Some(());
        };
        let mut leaves = leaves::of(content.get()).ok()?;
        leaves.kept.retain(|leaf| question.left_to_the_person(leaf));
        let id = Id::Asked(id.to_string());
        heard(Heard::Called(Call {
            id: Some(id.clone()),
            tool: ELICITATION.to_owned(),
            named: leaves.kept,
            left_out: leaves.left_out,
        }));
        heard(Heard::Ended(id));
        Some(())
    }

    fn server(&mut self, message: &[u8], heard: &mut impl FnMut(Heard)) {
        // Its lines are messages for clients that read those.
        self.unsure |= message.contains(&b'\n');
        let Some(frames) = frames(message) else {
            // Lines of a log are no message for any client.
            let start = message.strip_prefix(b"[").unwrap_or(message);
            self.unsure |= start.trim_ascii_start().starts_with(b"{");
            return;
        };
        for frame in frames {
            let Some(id) = frame.id.and_then(id) else {
                continue;
            };
            match frame.method.as_deref() {
                None => self.end(&id, heard),
                Some(method) => self.asks(id, method, &frame),
            }
        }
    }

    /// A request of the connector's. An id that it uses for two of them is no question's any more:
    /// nobody could say which of them was answered.
    fn asks(&mut self, id: Id, method: &str, frame: &Frame<'_>) {
        let before = self.asked.len();
        self.asked.retain(|question| question.id != id);
        if method != ELICITATION {
            return;
        }
        if self.used.len() == MAX_USED {
            self.unsure = true;
        } else if !self.used.insert(id.clone()) || self.asked.len() < before {
            return;
        }
        let Some(params) = frame.params else { return };
        if self.asked.len() == MAX_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back(Question::of(id, params.get()));
    }

    fn end(&mut self, id: &Id, heard: &mut impl FnMut(Heard)) {
        if let Some(place) = self.open.iter().position(|open| open == id) {
            self.open.remove(place);
            heard(Heard::Ended(id.clone()));
        }
    }
}

const ELICITATION: &str = "elicitation/create";

impl Question {
    fn of(id: Id, params: &str) -> Self {
        /// Only the names and whole definitions of what is asked for.
        #[derive(Deserialize)]
        struct Asks {
            #[serde(rename = "requestedSchema")]
            schema: Option<Properties>,
        }
        #[derive(Deserialize)]
        struct Properties {
            #[serde(default)]
            properties: serde_json::Map<String, serde_json::Value>,
        }
        let asks: Option<Asks> = serde_json::from_str(params).ok();
        let properties = asks
            .and_then(|asks| asks.schema)
            .map(|schema| schema.properties);
        let free = properties
            .into_iter()
            .flatten()
            .filter(|(_, definition)| is_free(definition));
        Self {
            id,
            free: free.map(|(name, _)| name).collect(),
            says: leaves::texts(params, MAX_QUESTION)
                .ok()
                .map(|texts| squeezed(&texts)),
        }
    }

    /// Whether the person wrote a value of the answer without having it offered.
    fn left_to_the_person(&self, leaf: &Leaf) -> bool {
        let property = leaf.place.strip_prefix('/').unwrap_or_default();
        let property = property.split('/').next().unwrap_or_default();
        let property = property.replace("~1", "/").replace("~0", "~");
        let value = squeezed(&leaf.text);
        // An address in two parts, each where the other is not, is offered as well.
        let offered = |says: &String| match value.split_once('@') {
            Some((local, domain)) => says.contains(local) && says.contains(domain),
            None => says.contains(&value),
        };
        self.free.contains(&property) && self.says.as_ref().is_some_and(|says| !offered(says))
    }
}

/// Whether a property of a question is a field to write in: a text or number of which the schema
/// says what it is like, and not what it is.
fn is_free(definition: &serde_json::Value) -> bool {
    const ABOUT: [&str; 9] = [
        "type",
        "title",
        "description",
        "format",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
    ];
    let Some(definition) = definition.as_object() else {
        return false;
    };
    let kind = definition.get("type").and_then(|kind| kind.as_str());
    matches!(kind, Some("string" | "integer" | "number"))
        && definition.keys().all(|key| ABOUT.contains(&key.as_str()))
}

/// A text without what people do not see or tell apart: blanks, controls, case, width.
fn squeezed(text: &str) -> String {
    let seen = |c: &char| !c.is_whitespace() && !c.is_control();
    let seen: String = text.chars().filter(seen).collect();
    keys::folded(&seen)
}

/// The messages of a line: one, or those of a batch.
fn frames(message: &[u8]) -> Option<Vec<Frame<'_>>> {
    if message.first() == Some(&b'[') {
        serde_json::from_slice(message).ok()
    } else {
        serde_json::from_slice(message)
            .ok()
            .map(|frame| vec![frame])
    }
}

/// The id of a request: a number or a text. Numbers as clients read them, which write `1.0` as `1`.
fn id(raw: &RawValue) -> Option<Id> {
    let text = raw.get();
    if text.starts_with('"') {
        return serde_json::from_str(text).ok().map(Id::Text);
    }
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let number = text.parse().ok().filter(|it: &f64| it.is_finite());
    // `+ 0.0`: no `-0`.
    let read = number.map_or_else(|| text.to_owned(), |it| (it + 0.0).to_string());
    is_number.then_some(Id::Number(read))
}

#[cfg(test)]
#[path = "mcp_tests.rs"]
mod tests;
