//! What a rule's `inspect:` means.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ledger::CallRef,
    limit::{Cost, Rate},
    mcp::Id,
    secret::Content,
    service::{Place, Service},
    shape::{Noted, Shape, Things},
    value::Kind,
};

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
    /// How much a request may be, and all of them together.
    pub limits: Limits,
    /// What may not be in a request, wherever it goes.
    #[serde(default)]
    pub content: Option<Content>,
    /// What becomes of a connector that tries what it must not.
    #[serde(default)]
    pub on_violation: OnViolation,
    /// Whether what is new in a request matters.
    #[serde(default)]
    pub shape: Shape,
}

/// What becomes of a connector that tries what it must not: a request is refused for a reason that
/// is no mistake ([`Reason::is_violation`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnViolation {
    /// Nothing more.
    #[default]
    Refuse,
    /// It stands still until somebody thaws it.
    Freeze,
    /// It is ended.
    Kill,
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

/// How much a request may be, and all of them together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of a body that is judged.
    pub body: u64,
    /// Requests that pass.
    #[serde(default)]
    pub requests: Option<Rate>,
    /// Recipients of those.
    #[serde(default)]
    pub recipients: Option<Rate>,
    /// Bytes of their bodies.
    #[serde(default)]
    pub bytes: Option<Rate>,
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

/// What happens after a head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// It is refused.
    Refuse(Refusal),
    /// There is nothing to judge in the body: it is streamed.
    Pass,
    /// The body is judged.
    Body {
        /// The longest that it may be. Bytes.
        most: usize,
    },
}

/// A request that was judged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Judged {
    /// What it is.
    pub operation: Operation,
    /// Why it is refused; empty: it passes.
    pub refusals: Vec<Refusal>,
    /// What it takes of its rule's limits.
    pub cost: Cost,
    /// Seconds after which a request that was over a limit can pass.
    pub again: Option<u64>,
    /// What authenticates it, with its place: the operator's own, and told to nobody.
    pub(crate) own: Vec<(Place, String)>,
    /// What it is made of, where that matters.
    pub shape: Option<Things>,
}

/// One request, as it is told: everything but its content.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Operation {
    /// Of the table; `None`: it is not listed.
    pub id: Option<String>,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// Who gets something.
    pub recipients: Vec<Recipient>,
    /// The names of its header fields.
    pub headers: Vec<String>,
    /// Bytes of the body, where that was read.
    pub body: u64,
    /// The call under way, the latest of several.
    pub call: Option<CallRef>,
    /// What was new in it, where it passed and that matters.
    #[serde(default)]
    pub shape: Option<Box<Noted>>,
}

/// Somebody who gets something, or a place where something goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recipient {
    /// What kind of value it is.
    pub kind: Kind,
    /// The value, in its canonical form.
    pub value: String,
    /// Where it stands, as tables write it.
    pub place: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Why a request is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// Where in the request, or what there.
    pub place: Option<String>,
    /// The value.
    pub value: Option<String>,
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A recipient was named by nobody.
    RecipientNotInCall,
    /// A recipient is not listed.
    RecipientNotListed,
    /// An address stands where the table has no recipient, and was named by nobody.
    AddressElsewhere,
    /// What authenticates is not known from the operator.
    CredentialNotOwn,
    /// A recipient is written in a way that is not read.
    UnreadableRecipient,
    /// The table has no such operation.
    UnlistedOperation,
    /// The request is for another host than its connection.
    AuthorityMismatch,
    /// Two servers could read the request in two ways.
    TwoReadings,
    /// The body is of a kind that is not read, or no proper one.
    UnreadableBody,
    /// The body is longer than what is judged.
    BodyTooLarge,
    /// The connection would change to another protocol.
    Upgrade,
    /// A secret stands where it does not belong.
    SecretInRequest,
    /// It has something that its operation never had.
    NewShape,
    /// More requests than the rule permits in a time.
    OverRequestLimit,
    /// More recipients.
    OverRecipientLimit,
    /// More bytes of bodies.
    OverByteLimit,
}

impl Reason {
    /// Every one of them.
    pub const ALL: [Self; 16] = [
        Self::RecipientNotInCall,
        Self::RecipientNotListed,
        Self::AddressElsewhere,
        Self::CredentialNotOwn,
        Self::UnreadableRecipient,
        Self::UnlistedOperation,
        Self::AuthorityMismatch,
        Self::TwoReadings,
        Self::UnreadableBody,
        Self::BodyTooLarge,
        Self::Upgrade,
        Self::SecretInRequest,
        Self::NewShape,
        Self::OverRequestLimit,
        Self::OverRecipientLimit,
        Self::OverByteLimit,
    ];

    /// Whether no mistake of a policy or a program explains it: somebody was written to who was not
    /// named, by somebody else's account, with a secret, or under another host's name.
    pub fn is_violation(self) -> bool {
        matches!(
            self,
            Self::RecipientNotInCall
                | Self::CredentialNotOwn
                | Self::SecretInRequest
                | Self::AuthorityMismatch
        )
    }

    /// Whether the same request can pass later.
    pub fn is_limit(self) -> bool {
        matches!(
            self,
            Self::OverRequestLimit | Self::OverRecipientLimit | Self::OverByteLimit
        )
    }

    /// Why a recipient is refused.
    pub(crate) fn of(recipients: Recipients) -> Self {
        match recipients {
            Recipients::Listed => Self::RecipientNotListed,
            Recipients::FromCall | Recipients::Any => Self::RecipientNotInCall,
        }
    }
}

impl Refusal {
    /// A body that is longer than so many bytes.
    pub fn too_large(most: usize) -> Self {
        Self {
            reason: Reason::BodyTooLarge,
            place: None,
            value: Some(most.to_string()),
        }
    }
}

impl Judged {
    /// A request that could not even be read.
    pub fn unread(refusal: Refusal) -> Self {
        Self {
            refusals: vec![refusal],
            ..Self::default()
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.as_deref().unwrap_or("the request");
        let value = self.value.as_deref().unwrap_or_default();
        match self.reason {
            Reason::RecipientNotInCall => {
                write!(
                    f,
                    "{value} in {place} was named in no tool call and not by the operator"
                )
            }
            Reason::RecipientNotListed => write!(f, "{value} in {place} is not listed"),
            Reason::AddressElsewhere => write!(
                f,
                "{value} in {place} is no recipient that the table knows, and was named in no tool call"
            ),
            Reason::CredentialNotOwn => {
                write!(
                    f,
                    "what authenticates it, in {place}, is not the operator's own"
                )
            }
            Reason::UnreadableRecipient => {
                write!(f, "{place} is not a value that is read: {value}")
            }
            Reason::UnlistedOperation => f.write_str("no table lists this operation"),
            Reason::AuthorityMismatch => {
                write!(f, "the request is for {value}, and its connection is not")
            }
            Reason::TwoReadings => write!(f, "it can be read in two ways: {place}"),
            Reason::UnreadableBody => write!(f, "its body is not read: {place}"),
            Reason::BodyTooLarge => write!(f, "its body has more than {value} bytes"),
            Reason::SecretInRequest => write!(
                f,
                "a secret ({value}) is in it where it does not belong: {place}"
            ),
            Reason::NewShape => f.write_str(value),
            Reason::OverRequestLimit => write!(f, "it is over the limit of {value} requests"),
            Reason::OverRecipientLimit => write!(f, "it is over the limit of {value} recipients"),
            Reason::OverByteLimit => write!(f, "it is over the limit of {value} bytes of bodies"),
            Reason::Upgrade => write!(f, "it changes the connection to {value}, which is not read"),
        }
    }
}
