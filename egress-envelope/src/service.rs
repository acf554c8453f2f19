//! Tables of operations: which requests a service takes, and where they say who they go to.
//!
//! A table is data (YAML or JSON), so that people can write their own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::value::Kind;

/// The operations of one service.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, such as `postmark`.
    pub service: String,
    /// The host names that it is served at.
    pub hosts: Vec<String>,
    /// What it does.
    pub operations: Vec<OperationRule>,
    /// Where requests hold what authenticates: `header NAME`, `query NAME`, or a field of the body
    /// as for recipients.
    #[serde(default)]
    pub credentials: Vec<String>,
}

/// One kind of request.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationRule {
    /// Its name in events.
    pub id: String,
    /// The method, in capitals.
    pub method: String,
    /// The path; `{name}` stands for one segment.
    pub path: String,
    /// What the body is.
    #[serde(default)]
    pub body: Body,
    /// Who gets something: places by kind. A place is a field of the body (a JSON pointer in which
    /// `*` stands for every entry), `path NAME`, `query NAME` or `header NAME`.
    #[serde(default)]
    pub recipients: BTreeMap<Kind, Vec<String>>,
    /// Where else something goes: reply addresses, webhooks, accounts.
    #[serde(default)]
    pub destinations: BTreeMap<Kind, Vec<String>>,
}

/// What the body of a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// There is none.
    #[default]
    None,
    /// JSON.
    Json,
    /// application/x-www-form-urlencoded.
    Form,
    /// multipart/form-data.
    Multipart,
    /// message/rfc822.
    Mime,
    /// Anything: it is not read.
    Any,
    /// JSON-RPC 2.0.
    JsonRpc,
}

impl Service {
    /// Whether the service is served at a host.
    pub fn is_at(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own == host)
    }
}
