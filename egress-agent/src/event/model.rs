//! What a line of the stream says: schema `egress-agent/event/v1`. Pure.
//!
//! Field order here is key order in the JSON. Keys are never renamed or removed within a
//! version; new ones are added at the end of their object. `docs/events.md` describes each.

use std::{collections::BTreeMap, net::IpAddr};

use egress_common::verdict::{Layer, Reason};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::codes;

/// The name of the schema, first in every line.
pub const SCHEMA: &str = "egress-agent/event/v1";

/// One line of the stream.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Always [`SCHEMA`].
    #[serde(with = "codes::schema")]
    pub schema: (),
    /// When it happened; RFC 3339, UTC, always nine digits of a second.
    #[serde(with = "codes::time")]
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

impl Record {
    /// A record of something that happened at `time`.
    pub fn new(time: Timestamp, body: Body) -> Self {
        Self {
            schema: (),
            time,
            body,
        }
    }
}

/// What happened; `kind` in the JSON.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Body {
    /// Something was refused.
    Denied(Denial),
    /// Something would have been refused, but the connector is only audited.
    WouldDeny(Denial),
    /// Which layers of the boundary hold for a connector.
    Layers(LayersFound),
    /// A request was judged.
    Operation(Operation),
    /// A connector was started.
    Started(Started),
    /// A connector ended; the whole account.
    Stopped(Stopped),
    /// How much the stream has not shown.
    Lost(Lost),
    /// A policy took effect or was replaced.
    Policy(PolicyChange),
    /// A permitted name has no address now.
    NameUnresolved(NameUnresolved),
    /// Something the operator should know about.
    Warning(Warning),
}

impl Body {
    /// The name of the connector; `None` where it concerns none.
    pub fn connector(&self) -> Option<&str> {
        match self {
            Self::Denied(body) | Self::WouldDeny(body) => body.connector.as_deref(),
            Self::Layers(body) => Some(&body.connector),
            Self::Operation(body) => Some(&body.connector),
            Self::Started(body) => Some(&body.connector),
            Self::Stopped(body) => Some(&body.connector),
            Self::Lost(body) => body.connector.as_deref(),
            Self::Policy(body) => Some(&body.connector),
            Self::NameUnresolved(body) => Some(&body.connector),
            Self::Warning(body) => body.connector.as_deref(),
        }
    }
}

/// A refusal, or one that would have been.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Denial {
    /// Name; `None`: a process below the instance's cgroup that belongs to no connector.
    pub connector: Option<String>,
    /// The hook that decided.
    #[serde(with = "codes::layer")]
    pub layer: Layer,
    /// `tcp`, `udp`, …; `ip-proto-N` where the number has no common name.
    pub protocol: String,
    /// Where to.
    pub destination: Destination,
    /// Why.
    #[serde(with = "codes::reason")]
    pub reason: Reason,
    /// Id of the rule concerned.
    pub rule: Option<String>,
    /// Who; `None`: the hook could not know.
    pub process: Option<ProcessFacts>,
    /// This one and its repeats that were not shown since the last line about the same.
    pub count: u64,
    /// Denials of this connector that found no room in the ring, since the last line that
    /// reported some.
    pub lost: u64,
    /// Address family of the socket: `inet`, `inet6`, …; `None`: not known.
    #[serde(default)]
    pub family: Option<String>,
    /// Instance of the data plane.
    #[serde(default)]
    pub instance: String,
    /// Name of the refused system call; only at layer `seccomp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// What is refused in particular, and what to do; only at layer `dns`, and for `interface`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Where something should have gone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Destination {
    /// Address; `None` for a name that was not resolved, or where there is none.
    pub ip: Option<IpAddr>,
    /// Port; `None` where there is none.
    pub port: Option<u16>,
    /// Name that was asked for, or under which the address was last granted.
    pub name: Option<String>,
    /// DNS record type that was asked for; only at layer `dns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Path of a unix socket, or `@` and its abstract name; only at layer `unix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// What is known about a process. What could not be read in time is `None` or empty.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Process id.
    pub pid: u32,
    /// Real user id.
    pub uid: Option<u32>,
    /// Name of the thread that called.
    pub comm: String,
    /// Path of the program.
    pub exe: Option<String>,
    /// Arguments, bounded.
    pub cmdline: Vec<String>,
    /// Parents, nearest first, bounded.
    pub parents: Vec<Parent>,
}

/// A parent process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parent {
    /// Process id.
    pub pid: u32,
    /// Name of its main thread.
    pub comm: String,
}

/// Which layers of the boundary hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LayersFound {
    /// Name of the connector.
    pub connector: String,
    /// Instance of the data plane.
    pub instance: String,
    /// Names of those that hold.
    pub active: Vec<String>,
    /// Those that do not.
    pub missing: Vec<MissingLayer>,
}

/// A layer that does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MissingLayer {
    /// Its name.
    pub layer: String,
    /// Why it does not hold.
    pub why: String,
    /// What stays open without it.
    pub open: String,
}

/// A request to a host whose rule has `inspect`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Operation {
    /// Name of the connector.
    pub connector: String,
    /// Instance of the data plane.
    pub instance: String,
    /// [`Operation::PASSED`], [`Operation::REFUSED`] or [`Operation::WOULD_REFUSE`].
    pub verdict: String,
    /// Name of the host.
    pub name: String,
    /// Port.
    pub port: u16,
    /// Name of the operation in its table; `None`: the table does not know it.
    pub operation: Option<String>,
    /// Method.
    pub method: String,
    /// Path, without the query; the table's where it knows the operation.
    pub path: String,
    /// The tool whose call was under way, the latest where there were several.
    pub tool: Option<String>,
    /// The id of that call.
    pub call: Option<String>,
    /// Who gets something.
    pub recipients: Vec<Recipient>,
    /// Why it was refused, or would have been.
    pub refusals: Vec<OperationRefusal>,
    /// Names of its header fields.
    pub headers: Vec<String>,
    /// Bytes of its body, as far as it was read to be judged.
    pub body: u64,
    /// Status of the answer; `None`: there was none.
    pub status: Option<u16>,
    /// What was new in it, each in a sentence; only where its rule looks at shapes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<String>,
}

impl Operation {
    /// It went to the server.
    pub const PASSED: &str = "passed";
    /// It did not.
    pub const REFUSED: &str = "refused";
    /// It went to the server, because the rule only reports.
    pub const WOULD_REFUSE: &str = "would-refuse";
}

/// Who gets something, and where that came from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recipient {
    /// `mail`, `phone`, `url`, …
    pub kind: String,
    /// In its canonical form.
    pub value: String,
    /// Where it stood in the request.
    pub place: String,
    /// `call`, `operator`, `service`, `listed` or `nowhere`.
    pub origin: String,
    /// For `call`, the tool and the place among its arguments.
    pub named: Option<String>,
}

/// Why an operation was refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperationRefusal {
    /// A short name.
    pub reason: String,
    /// Where in the request.
    pub place: Option<String>,
    /// The value concerned.
    pub value: Option<String>,
    /// The same in a sentence.
    pub message: String,
}

/// A connector was started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Started {
    /// Name.
    pub connector: String,
    /// Instance of the data plane.
    pub instance: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// File of the policy.
    pub policy: Option<String>,
    /// Number of its rules.
    pub rules: u64,
    /// First process.
    pub pid: Option<u32>,
    /// User id it runs as.
    pub uid: u32,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The proxy that connections to names go through, without credentials, and who named it;
    /// only where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// A connector ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stopped {
    /// Name.
    pub connector: String,
    /// Instance of the data plane.
    pub instance: String,
    /// How it ended.
    pub exit: Exit,
    /// How long it ran, milliseconds.
    pub duration_ms: u64,
    /// What passed, rule by rule.
    pub allowed: Vec<RuleTotal>,
    /// Denials by reason, exact.
    pub denied: BTreeMap<String, u64>,
    /// Denials that no line has shown, by reason.
    pub not_shown: BTreeMap<String, u64>,
    /// Of these, denials that found no room in the ring.
    pub lost: u64,
    /// Lines that could not be written.
    pub unwritten: u64,
    /// Questions about permitted names that no DNS server answered.
    #[serde(default)]
    pub unanswered: u64,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code that the caller got.
    pub code: Option<i32>,
    /// Signal that ended the connector, if one did; the code is then 128 and its number.
    pub signal: Option<i32>,
}

/// What passed under a rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleTotal {
    /// Id of the rule.
    pub rule: String,
    /// Connections approved.
    pub connections: u64,
    /// Packets sent.
    pub packets: u64,
    /// Bytes sent, IP headers included.
    pub bytes: u64,
}

/// How much the stream has not shown. Totals since the instance began, not differences, so
/// that the last of these lines is the whole truth; only `lost` is a difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// Name.
    pub connector: Option<String>,
    /// Instance of the data plane.
    pub instance: String,
    /// Denials that found no room in the ring, since the last line that reported some.
    pub lost: u64,
    /// All denials so far, exact.
    pub denied: u64,
    /// Those that lines have shown, `count` added up.
    pub shown: u64,
    /// Those that no line has shown, by reason.
    pub not_shown: BTreeMap<String, u64>,
    /// Lines that could not be written.
    pub unwritten: u64,
    /// Records of the kernel that could not be read.
    pub malformed: u64,
}

/// A policy took effect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyChange {
    /// Name.
    pub connector: String,
    /// Instance of the data plane.
    pub instance: String,
    /// File of the policy.
    pub policy: Option<String>,
    /// `enforce` or `audit`.
    pub mode: String,
    /// Ids of rules that are new.
    pub added: Vec<String>,
    /// Ids of rules that are gone; their live flows end.
    pub removed: Vec<String>,
}

/// A permitted name has no address now.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NameUnresolved {
    /// Name of the connector.
    pub connector: String,
    /// Instance of the data plane.
    pub instance: String,
    /// Name that was looked up.
    pub name: String,
    /// Id of the rule.
    pub rule: Option<String>,
    /// What happened and what to do.
    pub message: String,
}

/// Something the operator should know about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Warning {
    /// Name of the connector; `None`: it concerns the whole instance.
    pub connector: Option<String>,
    /// Instance of the data plane.
    pub instance: String,
    /// A short name for programs, for example `foreign-program`.
    pub topic: String,
    /// What happened and what to do.
    pub message: String,
}

#[cfg(test)]
#[path = "model_tests.rs"]
pub(crate) mod tests;
