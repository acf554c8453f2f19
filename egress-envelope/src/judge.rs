//! What a rule's `inspect:` means.

use serde::{Deserialize, Serialize};

use crate::{mcp::Id, service::Service};

/// How the requests to one host are judged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Inspect {
    /// The operations that are known, those of the service and of the policy together.
    pub service: Service,
    /// Who may be a recipient.
    pub recipients: Recipients,
    /// Who always may.
    pub listed: Vec<Pattern>,
    /// What becomes of an operation that is not known.
    pub unlisted: Unlisted,
    /// Whether refusals are carried out.
    pub mode: Mode,
    /// How much a request may be.
    pub limits: Limits,
}

/// Who may be a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipients {
    /// Who was named in a call, by the operator, or is listed.
    #[default]
    FromCall,
    /// Who is listed.
    Listed,
    /// Everybody.
    Any,
}

/// What becomes of an operation that is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlisted {
    /// It is refused.
    #[default]
    Refuse,
    /// It passes and is told.
    Report,
}

/// Whether refusals are carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// They are.
    #[default]
    Enforce,
    /// They are told, and everything passes.
    Report,
}

/// How much a request may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a body that is judged.
    pub body: u64,
}

/// A recipient that is always right, in its canonical form: a mail address, `*@domain`, or another
/// value as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pattern(pub String);

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The client named it in a call.
    Call {
        /// The tool.
        tool: String,
        /// The request's id, where it had one.
        id: Option<Id>,
        /// Where in the arguments, as a JSON pointer.
        place: String,
    },
    /// It stands in the connector's environment or arguments.
    Operator,
    /// The service itself answered with it.
    Service,
    /// The policy lists it.
    Listed,
    /// Nobody named it.
    Nowhere,
}
