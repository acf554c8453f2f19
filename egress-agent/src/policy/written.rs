//! The YAML of `inspect:` as it is written, like the rest of a policy in [`super::schema`].

use std::{borrow::Cow, collections::BTreeMap};

use egress_envelope::secret::Secret;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::{
    schema::{Loose, Unknown},
    services,
};

/// How requests to a host are judged.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Inspect {
    /// A service whose operations are known here, for example `postmark`.
    pub service: Option<Loose<ServiceName>>,
    /// Operations written here, besides those of the service: one at least where there is no
    /// service.
    pub operations: Option<Loose<Vec<Loose<Operation>>>>,
    /// Fields, headers or query keys that hold what authenticates, besides those of the service:
    /// they must be the operator's own.
    pub credentials: Option<Loose<Vec<Loose<String>>>>,
    /// Who may be a recipient. from-call (the default): who was named in a tool call of this
    /// session, by the operator, or is listed. listed: who is listed. any: everybody.
    pub recipients: Option<Loose<Recipients>>,
    /// Recipients that are always right: mail addresses, `*@domain`, and other recipients as they
    /// are, such as phone numbers or the ids of channels.
    pub listed: Option<Loose<Vec<Loose<String>>>>,
    /// What happens to an operation that is not in the table. refuse is the default; report: it
    /// passes and is reported.
    pub unlisted: Option<Loose<Unlisted>>,
    /// enforce (the default): refuse and report. report: everything passes, and what would have
    /// been refused is reported.
    pub mode: Option<Loose<InspectMode>>,
    /// Whether what is new in a request matters: keys, header fields and paths that its operation
    /// has never shown. off is the default; report: they are kept and reported. enforce: what is new
    /// is refused, and nothing is learned.
    pub shape: Option<Loose<Shape>>,
    /// How much, and how often.
    pub limits: Option<Loose<InspectLimits>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// An operation of a service: one kind of request.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Operation {
    /// Its name in events: 1 to 64 of a-z 0-9 - _ . and a letter or digit first.
    #[schemars(required)]
    pub id: Option<Loose<String>>,
    /// The request's method, in capitals.
    #[schemars(required)]
    pub method: Option<Loose<String>>,
    /// The path, where `{name}` stands for one segment and `{name...}` for all that follow:
    /// `/v1/{account}/mails`.
    #[schemars(required)]
    pub path: Option<Loose<String>>,
    /// What the body is; none if missing.
    pub body: Option<Loose<Body>>,
    /// For `body: json-rpc`, the method of the call.
    pub rpc: Option<Loose<String>>,
    /// Where the request says who gets something: by kind (mail, phone, url, id, ids, channel, address)
    /// the places, `/to`, `/copies/*/address`, `path NAME`, `query NAME` or `header NAME`.
    pub recipients: Option<Loose<BTreeMap<String, Loose<Places>>>>,
    /// Likewise, where it says where else something goes: reply addresses, webhooks, accounts.
    pub destinations: Option<Loose<BTreeMap<String, Loose<Places>>>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Places in a request.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Places {
    /// One.
    One(String),
    /// Several.
    Many(#[schemars(length(min = 1))] Vec<Loose<String>>),
}

/// What the body of a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// There is none.
    None,
    /// JSON.
    Json,
    /// A form, application/x-www-form-urlencoded.
    Form,
    /// A form, multipart/form-data.
    Multipart,
    /// A mail, message/rfc822.
    Mime,
    /// Anything: it is not read.
    Any,
    /// JSON-RPC 2.0.
    JsonRpc,
}

/// How much a request may be, and all of them together.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct InspectLimits {
    /// Bytes of a body that is judged, `512KiB` or `4MiB`; a larger one is refused. 1MiB if
    /// missing, at most 16MiB.
    pub body: Option<Loose<String>>,
    /// Requests that pass in any second, minute, hour or day: `60/m`. Each call of a batch is one.
    pub requests: Option<Loose<String>>,
    /// Recipients of these requests, likewise: `100/h`. Who is named twice counts twice.
    pub recipients: Option<Loose<String>>,
    /// Bytes of the bodies of these requests, likewise: `10MiB/h`.
    pub bytes: Option<Loose<String>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Name of a service with a table of operations.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(transparent)]
pub struct ServiceName(pub String);

impl JsonSchema for ServiceName {
    fn schema_name() -> Cow<'static, str> {
        "Service".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = services::names().collect();
        json_schema!({
            "description": "A service whose operations are known here.",
            "type": "string",
            "enum": names,
        })
    }
}

/// Who may be a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Recipients {
    /// Who was named in a tool call, by the operator, or is listed.
    FromCall,
    /// Who is listed.
    Listed,
    /// Everybody.
    Any,
}

/// What happens to an operation that is not in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// It is refused.
    Refuse,
    /// It passes and is reported.
    Report,
}

/// Whether what is new in a request matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// It does not.
    Off,
    /// It is kept and reported.
    Report,
    /// It is refused.
    Enforce,
}

/// Whether refusals of requests are carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InspectMode {
    /// They are.
    Enforce,
    /// Everything passes; they are reported.
    Report,
}

/// What may not be in a request.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Content {
    /// Kinds of secrets that are looked for in every request.
    #[schemars(required, length(min = 1))]
    pub refuse: Option<Loose<Vec<Loose<SecretName>>>>,
    /// Variables of the connector's environment, each with the hosts where its value belongs. Of
    /// others it belongs where a service's table has what authenticates.
    pub belongs: Option<Loose<BTreeMap<String, Loose<Hosts>>>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Names of hosts.
pub type Hosts = Vec<Loose<String>>;

/// Name of a kind of secrets.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(transparent)]
pub struct SecretName(pub String);

impl JsonSchema for SecretName {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Secret::ALL.iter().map(|secret| secret.name()).collect();
        json_schema!({
            "description": "A kind of secrets.",
            "type": "string",
            "enum": names,
        })
    }
}

/// What becomes of a connector that tries what it must not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnViolation {
    /// The request is refused.
    Refuse,
    /// And the connector stands still until somebody thaws it.
    Freeze,
    /// And it is ended.
    Kill,
}
