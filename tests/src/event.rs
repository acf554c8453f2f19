//! The agent's JSON Lines, as a user of them would read them.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// The only schema these tests know.
pub const SCHEMA: &str = "egress-agent/event/v1";

/// One line. Keys that a kind of event does not have are empty.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// RFC 3339.
    pub time: String,
    /// `denied`, `would-deny`, or a lifecycle change.
    pub kind: String,
    /// The connector's name.
    #[serde(default)]
    pub connector: Option<String>,
    /// The hook that decided.
    #[serde(default)]
    pub layer: Option<String>,
    /// `tcp`, `udp` …
    #[serde(default)]
    pub protocol: Option<String>,
    /// Where to.
    #[serde(default)]
    pub destination: Option<Destination>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Who.
    #[serde(default)]
    pub process: Option<Process>,
    /// This denial and its unshown repeats.
    #[serde(default)]
    pub count: Option<u64>,
    /// Denials that could not be shown since the last line.
    #[serde(default)]
    pub lost: Option<u64>,
    /// Every other key of the line.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
    /// The line as it was.
    #[serde(skip)]
    pub line: String,
}

impl Event {
    /// One number of a table such as `denied` by reason; 0 where it is not there.
    pub fn number(&self, table: &str, key: &str) -> u64 {
        let table = self.rest.get(table);
        let value = table.and_then(|table| table.get(key));
        value.and_then(Value::as_u64).unwrap_or_default()
    }
}

/// Where a denied flow was going.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Destination {
    /// Address.
    #[serde(default)]
    pub ip: Option<IpAddr>,
    /// Port.
    #[serde(default)]
    pub port: Option<u16>,
    /// Name, where it is known.
    #[serde(default)]
    pub name: Option<String>,
}

/// Who was denied.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Process {
    /// Process id.
    #[serde(default)]
    pub pid: Option<u32>,
    /// User id.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Thread name.
    #[serde(default)]
    pub comm: Option<String>,
    /// Program.
    #[serde(default)]
    pub exe: Option<String>,
    /// Anything else the agent says about it.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

/// What a test expects of a denial; what is `None` may be anything.
#[derive(Clone, Debug, Default)]
pub struct Denial {
    /// One of these hooks decided; empty: any.
    pub layers: Vec<&'static str>,
    /// One of these reasons; empty: any.
    pub reasons: Vec<&'static str>,
    /// Address.
    pub ip: Option<IpAddr>,
    /// Port.
    pub port: Option<u16>,
    /// Name.
    pub name: Option<String>,
    /// Protocol.
    pub protocol: Option<&'static str>,
}

impl Denial {
    /// A denial of a name by the DNS door.
    pub fn of_name(name: &str) -> Self {
        Self {
            layers: vec!["dns"],
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }

    /// A denial of an address, by whatever layer.
    pub fn of_address(ip: impl Into<IpAddr>) -> Self {
        Self {
            ip: Some(ip.into()),
            ..Self::default()
        }
    }

    /// The same, and the port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The same, by one of these layers.
    pub fn by(mut self, layers: &[&'static str]) -> Self {
        self.layers = layers.to_vec();
        self
    }

    /// The same, for one of these reasons.
    pub fn because(mut self, reasons: &[&'static str]) -> Self {
        self.reasons = reasons.to_vec();
        self
    }

    /// Whether an event is this denial.
    pub fn fits(&self, event: &Event) -> bool {
        let one_of = |wanted: &[&str], got: &Option<String>| {
            wanted.is_empty() || got.as_deref().is_some_and(|got| wanted.contains(&got))
        };
        let place = event.destination.clone().unwrap_or_default();
        let name = |name: &String| {
            place
                .name
                .as_ref()
                .is_some_and(|n| n.eq_ignore_ascii_case(name))
        };
        event.kind == "denied"
            && one_of(&self.layers, &event.layer)
            && one_of(&self.reasons, &event.reason)
            && self
                .protocol
                .is_none_or(|p| event.protocol.as_deref() == Some(p))
            && self
                .ip
                .is_none_or(|ip| place.ip.map(|ip| ip.to_canonical()) == Some(ip))
            && self.port.is_none_or(|port| place.port == Some(port))
            && self.name.as_ref().is_none_or(name)
    }
}

/// Reads a file of events; a last line that is still being written is left out. A file that
/// does not exist has none. Errors: a line that breaks the schema.
pub fn read(path: &Path) -> Result<Vec<Event>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("events"),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(parse).collect()
}

fn parse(line: &str) -> Result<Event> {
    let mut event: Event = serde_json::from_str(line).with_context(|| format!("event {line}"))?;
    ensure!(event.schema == SCHEMA, "event of an unknown schema: {line}");
    event.line = line.to_owned();
    Ok(event)
}
