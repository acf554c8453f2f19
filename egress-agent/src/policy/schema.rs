//! The YAML of a policy as it is written: its keys and the kinds of their values.
//!
//! Reading never fails on a single value: what is not of its kind stays as it is
//! ([`Loose::Bad`]) and unknown keys are kept, so that [`super::lower`] can report every
//! fault of a file at once. The JSON Schema for editors is generated from these types.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_yaml::Value;

use super::written::{Content, Inspect, OnViolation};
use crate::host::layers::Layer;

/// A value of its kind, or whatever else was written.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(untagged)]
pub enum Loose<T> {
    /// As it should be.
    Good(T),
    /// Something else.
    Bad(Value),
}

impl<T: JsonSchema> JsonSchema for Loose<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Keys that no field took.
pub type Unknown = BTreeMap<String, Value>;

/// Which destinations one connector may reach; everything else is refused.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(title = "egress-agent policy", extend("additionalProperties" = false))]
pub struct Document {
    /// Version of this format: 1.
    #[schemars(required, range(min = 1, max = 1))]
    pub version: Option<Loose<u64>>,
    /// The connector's name: 1 to 64 of a-z 0-9 - _ . and a letter or digit first.
    #[schemars(required, regex(pattern = r"^[a-z0-9][a-z0-9._-]{0,63}$"))]
    pub connector: Option<Loose<String>>,
    /// enforce (the default): refuse and report. audit: let everything pass and report what
    /// would have been refused.
    pub mode: Option<Loose<Mode>>,
    /// What the connector may reach. Empty or missing: nothing.
    pub allow: Option<Loose<Vec<Loose<Entry>>>>,
    /// What it may not reach whatever `allow` says.
    pub deny: Option<Loose<Vec<Loose<Entry>>>>,
    /// Who may call in, besides loopback. Empty or missing: nobody.
    pub listen: Option<Loose<Vec<Loose<Caller>>>>,
    /// How names become addresses.
    pub dns: Option<Loose<Dns>>,
    /// A company's HTTP proxy, through which connections to names go. Missing: that of the
    /// caller's HTTPS_PROXY, if there is one.
    pub proxy: Option<Loose<Proxy>>,
    /// What may not be in a request that is judged (`inspect`), wherever it goes.
    pub content: Option<Loose<Content>>,
    /// What becomes of a connector that tries what it must not in a request that is judged. refuse
    /// (the default): the request is refused. freeze: and the connector stands still until somebody
    /// thaws it. kill: and it is ended.
    #[serde(rename = "on-violation")]
    pub on_violation: Option<Loose<OnViolation>>,
    /// How the connector is started.
    pub run: Option<Loose<Run>>,
    /// Who may start the connector through the daemon, besides root: names or numbers.
    pub users: Option<Loose<Vec<Loose<String>>>>,
    /// Whose members may. Where neither is there: the group egress-agent.
    pub groups: Option<Loose<Vec<Loose<String>>>>,
    /// What is executed: paths of programs, files and folders, each with the hash that
    /// `egress-agent pin` shows. Where one differs, or could be changed, nothing is started.
    pub pin: Option<Loose<BTreeMap<String, Loose<Hash>>>>,
    /// Layers of the boundary without which the connector is not started.
    pub require: Option<Loose<Vec<Loose<LayerName>>>>,
    /// lenient (the default): a permitted name that has no address now does not keep the
    /// connector from starting. strict: it does.
    pub start: Option<Loose<Start>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A hash, `sha256:` and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Hash(#[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))] pub String);

/// Name of a layer of the boundary.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(transparent)]
pub struct LayerName(pub String);

impl JsonSchema for LayerName {
    fn schema_name() -> Cow<'static, str> {
        "Layer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Layer::ALL.iter().map(|layer| layer.name()).collect();
        json_schema!({
            "description": "A layer of the boundary; `egress-agent doctor` explains each.",
            "type": "string",
            "enum": names,
        })
    }
}

/// What happens to a flow that no rule permits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is refused and reported.
    Enforce,
    /// It passes and is reported.
    Audit,
}

/// Whether a permitted name without an address keeps the connector from starting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// It starts; the name is asked for again until it has an address.
    Lenient,
    /// It does not start.
    Strict,
}

/// A rule: a short form such as `api.example.org:443`, or a mapping.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Entry {
    /// `host:port`, `*.domain:port`, `10.0.0.1:443` or `[2001:db8::1]:443`, with `/udp` or
    /// `/any` behind it for other protocols than TCP.
    Short(String),
    /// Destination, ports and reason.
    Long(Box<Long>),
}

/// A rule as a mapping: exactly one of `host`, `cidr`, `internet` and `unix`.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Long {
    /// Name of the rule in events and counters; derived from the destination if missing.
    pub id: Option<Loose<String>>,
    /// A host name, or `*.domain` for every name below one (not the domain itself).
    pub host: Option<Loose<String>>,
    /// An address or address prefix.
    pub cidr: Option<Loose<String>>,
    /// Ports of the whole public Internet: every public name, at addresses that are public alone.
    /// Such a rule needs a `why`; the policy then limits no more where data can go.
    #[schemars(length(min = 1))]
    pub internet: Option<Loose<Vec<Loose<Port>>>>,
    /// Path of a unix socket, `@name` of an abstract one, or, in `allow`, what the caller's session
    /// names: `$SSH_AUTH_SOCK`, `$DBUS_SESSION_BUS_ADDRESS`, `$XDG_RUNTIME_DIR/…` or `$HOME/…`.
    pub unix: Option<Loose<String>>,
    /// Ports and ranges of ports, for example `[443, "6432-6440"]`. Missing in a `deny` rule:
    /// all ports.
    #[schemars(length(min = 1))]
    pub ports: Option<Loose<Vec<Loose<Port>>>>,
    /// tcp (the default in `allow`), udp, or any (both; the default in `deny`).
    pub protocol: Option<Loose<Protocol>>,
    /// Why the connector needs it; shown by `explain`.
    pub why: Option<Loose<String>>,
    /// Host rules only: accept answers that point inside (private, loopback, link-local).
    pub private: Option<Loose<bool>>,
    /// Rules for `*.domain` only: how many names below it may be looked up each minute; twice as
    /// many at once. 30 if missing, and 64 at once.
    #[serde(rename = "lookups-per-minute")]
    #[schemars(range(min = 1, max = 6000))]
    pub lookups_per_minute: Option<Loose<u32>>,
    /// Host rules over TCP only. require: a connection has to begin with a TLS ClientHello that
    /// names a permitted host. off: it need not. Missing: required on port 443 alone.
    pub tls: Option<Loose<Tls>>,
    /// Where names are checked: whether the ClientHello may carry an encrypted one, whose name
    /// nobody can read. refuse is the default.
    pub ech: Option<Loose<Ech>>,
    /// Rules for one host name over TLS only: requests to it are read and judged before they are
    /// sent on.
    pub inspect: Option<Loose<Inspect>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Who may call in: a short form such as `8080 from 10.0.0.0/8`, or a mapping.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Caller {
    /// A port, or `first-last`, then `from` and an address or address prefix.
    Short(String),
    /// Ports, callers and reason.
    Long(Box<LongCaller>),
}

/// A rule about callers as a mapping.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct LongCaller {
    /// Name of the rule in events and counters; derived from what it says if missing.
    pub id: Option<Loose<String>>,
    /// The connector's own ports that may be called.
    #[schemars(required, length(min = 1))]
    pub ports: Option<Loose<Vec<Loose<Port>>>>,
    /// Addresses or address prefixes of the callers, one or a list.
    #[schemars(required)]
    pub from: Option<Loose<Sources>>,
    /// tcp, the default. There is no other.
    pub protocol: Option<Loose<CallerProtocol>>,
    /// What calls in, and why; shown by `explain`.
    pub why: Option<Loose<String>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Addresses or address prefixes.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Sources {
    /// One.
    One(String),
    /// Several.
    Many(#[schemars(length(min = 1))] Vec<Loose<String>>),
}

/// Transport protocols that callers can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallerProtocol {
    /// TCP.
    Tcp,
}

/// Whether the name in TLS is checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// On every port of the rule.
    Require,
    /// On none.
    Off,
}

/// What happens to an encrypted ClientHello inside the readable one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ech {
    /// It passes.
    Allow,
    /// The connection is refused.
    Refuse,
}

/// A port or a range of ports.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Port {
    /// One port, 1 to 65535.
    Number(#[schemars(range(min = 1, max = 65535))] u64),
    /// First and last port, for example `"6432-6440"`.
    Range(#[schemars(regex(pattern = r"^[0-9]{1,5}(-[0-9]{1,5})?$"))] String),
}

/// Transport protocols.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Both.
    Any,
}

/// Addresses of name servers.
pub type ServerList = Vec<Loose<String>>;

/// How names become addresses.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Dns {
    /// Upstream servers in their order, `ip`, `ip:port` or, on one link, `fe80::1%eth0`; missing:
    /// those of the host.
    pub servers: Option<Loose<ServerList>>,
    /// Servers for a domain and every name below it, for example
    /// `corp.example: [10.0.0.53]`. Of several, the longest domain counts.
    pub domains: Option<Loose<BTreeMap<String, Loose<ServerList>>>>,
    /// How long an address stays permitted.
    pub ttl: Option<Loose<Ttl>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// How long an address that came from DNS stays permitted. Times are `30s`, `5m` or `1h`.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Ttl {
    /// At least this long, whatever the answer's TTL; default 30s, at most 1h.
    pub floor: Option<Loose<String>>,
    /// At most this long; default 1h, at most 24h.
    pub ceiling: Option<Loose<String>>,
    /// Added on top, for programs that keep an answer past its TTL; default 30s, at most 1h.
    pub grace: Option<Loose<String>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// A company's proxy: its URL, or `off` for none.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Proxy {
    /// `http://HOST:PORT`, with `USER:PASSWORD@` before the host where it asks for them; or `off`:
    /// none, whatever the caller's environment says.
    Short(String),
    /// URL, and what does not go through it.
    Long(Box<LongProxy>),
}

/// A company's proxy as a mapping.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct LongProxy {
    /// `http://HOST:PORT`, with `USER:PASSWORD@` before the host where it asks for them.
    #[schemars(required)]
    pub url: Option<Loose<String>>,
    /// Names that do not go through it: a name, with those below it, or `*.domain`.
    pub direct: Option<Loose<Vec<Loose<String>>>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// How the connector is started.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Run {
    /// Program and arguments, as a list; no shell is involved.
    #[schemars(length(min = 1))]
    pub command: Option<Loose<Vec<Loose<String>>>>,
    /// User name or number; missing: the calling user.
    pub user: Option<Loose<User>>,
    /// The whole environment; missing: the caller's, as it is.
    pub env: Option<Loose<Env>>,
    /// own (the default): the connector sees, signals and limits its own processes alone. host:
    /// those of the host, as far as its user may; they can then be made to act for it.
    pub processes: Option<Loose<Processes>>,
    /// Devices below /dev, and folders of them, besides the harmless ones that every connector
    /// has. A device may be a way out.
    pub devices: Option<Loose<Vec<Loose<String>>>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// Which processes a connector sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Processes {
    /// Its own alone.
    Own,
    /// Those of the host.
    Host,
}

/// A user.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum User {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

/// The whole environment of the connector.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[schemars(extend("additionalProperties" = false))]
pub struct Env {
    /// Variables taken from the caller.
    pub pass: Option<Loose<Vec<Loose<String>>>>,
    /// Variables set here.
    pub set: Option<Loose<BTreeMap<String, Loose<String>>>>,
    /// Not part of the format.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: Unknown,
}

/// The keys a mapping of this type may have.
pub fn keys<T: JsonSchema>() -> Vec<String> {
    // A file with a thousand faults asks as often, and the schema of a rule is large.
    static KNOWN: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let keys = known.entry(T::schema_id().into_owned());
    keys.or_insert_with(|| {
        let schema = SchemaGenerator::default().into_root_schema_for::<T>();
        let properties = schema
            .get("properties")
            .and_then(|properties| properties.as_object());
        properties
            .map(|properties| properties.keys().cloned().collect())
            .unwrap_or_default()
    })
    .clone()
}

/// The JSON Schema of a policy, ended by a line break: what `policies/schema.json` holds.
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(Document);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
