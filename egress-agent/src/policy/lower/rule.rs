//! One entry of `allow:` or `deny:`.

use super::{inspect, ports, target, tls::Written, value};
use crate::policy::{
    fault::{Complaint, Findings, quote},
    model::{LOOKUPS_PER_MINUTE, PortSpan, Protocols, Rule, Target},
    name::HostPattern,
    schema::{self, Entry, Long, Loose},
    session::Place,
};

/// The key of a wildcard's budget, and the most that it may say.
const LOOKUPS: &str = "lookups-per-minute";
const MAX_LOOKUPS: u32 = 6000;
/// Of a rule for the public Internet: pages load from hundreds of hosts. It spares the server that
/// is asked; who may connect to anybody needs no name to tell them something.
const LOOKUPS_OF_THE_INTERNET: u32 = 600;
/// Ports of one host rule: each becomes an exact grant for each address.
const MAX_HOST_PORTS: usize = 256;

/// What an entry means; `None` where it means nothing.
pub(super) fn lower(entry: &Loose<Entry>, deny: bool, findings: &mut Findings) -> Option<Written> {
    const HELP: &str =
        "write “host:port”, or a mapping with “host:”, “cidr:” or “unix:” and “ports:”";
    let mut written = match value::entry("a rule", entry, HELP, findings)? {
        Entry::Short(text) => Written::silent(short(text, deny, findings)?, deny),
        Entry::Long(long) => {
            let rule = self::long(long, deny, findings)?;
            let mut written = Written::said(rule, long, deny, findings);
            let plain = written.unchecked();
            written.rule.inspect = inspect::lower(long, &written.rule, &plain, deny, findings);
            written
        }
    };
    if written.rule.id.is_empty() {
        written.rule.id = derived_id(&written.rule, deny);
    }
    Some(written)
}

/// The id of a rule that has none of its own; the same for every spelling of one meaning.
pub(super) fn derived_id(rule: &Rule, deny: bool) -> String {
    let deny = if deny { "deny:" } else { "" };
    let target = match &rule.target {
        Target::Unix(_) | Target::Session(_) => return format!("{deny}unix:{}", rule.target),
        Target::Host(pattern) => pattern.to_string(),
        Target::Cidr(net) => {
            let whole = net.prefix_len() == net.max_prefix_len();
            let text = if whole {
                net.addr().to_string()
            } else {
                net.to_string()
            };
            if net.addr().is_ipv6() {
                format!("[{text}]")
            } else {
                text
            }
        }
    };
    let ports: Vec<String> = rule.ports.iter().map(PortSpan::to_string).collect();
    let ports = ports.join(",");
    format!("{deny}{target}:{ports}/{}", rule.protocols)
}

fn short(text: &str, deny: bool, findings: &mut Findings) -> Option<Rule> {
    match target::short(text) {
        Ok(short) => {
            if let Some(complaint) = dns_port(&[short.port], deny) {
                findings.complain(complaint);
            }
            Some(Rule {
                id: String::new(),
                target: short.target,
                ports: vec![short.port],
                protocols: short.protocols.unwrap_or(default_protocols(deny)),
                why: None,
                private: false,
                lookups_per_minute: LOOKUPS_PER_MINUTE,
                tls: false,
                ech: false,
                inspect: None,
            })
        }
        Err(complaint) => {
            findings.complain(complaint);
            None
        }
    }
}

fn long(long: &Long, deny: bool, findings: &mut Findings) -> Option<Rule> {
    value::unknown::<Long>("a rule", &long.unknown, findings);
    let id = id(&long.id, findings);
    let why = why(&long.why, findings);
    let protocols = protocols(long, deny, findings);
    let private = value::field("private", &long.private, "write true or false", findings);
    let lookups = value::field(
        LOOKUPS,
        &long.lookups_per_minute,
        "write a whole number, such as 120",
        findings,
    );
    let target = destination(long, deny, findings);
    let ports = if long.internet.is_some() {
        internet(long, deny, findings)
    } else {
        ports(long, deny, target.as_ref(), findings)
    };
    let target = target?;
    match &target {
        Target::Host(HostPattern::Public) => host(&ports, true, deny, None, findings),
        Target::Host(_) => host(&ports, long.ports.is_some(), deny, private, findings),
        Target::Cidr(_) => only_host("private", private.is_some(), findings),
        Target::Unix(_) | Target::Session(_) => {
            only_host("private", private.is_some(), findings);
            not_unix("ports", long.ports.is_some(), findings);
            not_unix("protocol", long.protocol.is_some(), findings);
        }
    }
    let lookups = lookups_per_minute(lookups.copied(), deny, &target, findings);
    let unix = matches!(target, Target::Unix(_) | Target::Session(_));
    Some(Rule {
        id,
        target,
        ports,
        protocols: if unix { Protocols::NONE } else { protocols },
        why,
        private: private == Some(&true),
        lookups_per_minute: lookups,
        tls: false,
        ech: false,
        inspect: None,
    })
}

fn destination(long: &Long, deny: bool, findings: &mut Findings) -> Option<Target> {
    const HELP: &str = "write exactly one of “host:”, “cidr:”, “internet:” and “unix:”";
    let named = [
        long.host.is_some(),
        long.cidr.is_some(),
        long.internet.is_some(),
        long.unix.is_some(),
    ];
    match named.into_iter().filter(|&is_there| is_there).count() {
        0 => {
            findings.note("the rule has no destination", HELP);
            return None;
        }
        1 => {}
        _ => findings.note("the rule has more than one destination", HELP),
    }
    if long.internet.is_some() {
        return Some(Target::Host(HostPattern::Public));
    }
    let host = read("host", &long.host, target::host, findings);
    let cidr = read(
        "cidr",
        &long.cidr,
        |text| target::cidr(text).map(Target::Cidr),
        findings,
    );
    let unix = read("unix", &long.unix, |text| socket(text, deny), findings);
    host.or(cidr).or(unix)
}

/// A unix socket by its name, or by a variable of the session.
fn socket(text: &str, deny: bool) -> Result<Target, Complaint> {
    if !text.starts_with('$') {
        return target::unix(text).map(Target::Unix);
    }
    if deny {
        return Err(Complaint::new(
            "a denial takes no variable",
            "write the path: the caller's environment must not decide what is denied",
        ));
    }
    Place::parse(text).map(Target::Session)
}

fn read(
    key: &str,
    value: &Option<Loose<String>>,
    parse: impl FnOnce(&str) -> Result<Target, Complaint>,
    findings: &mut Findings,
) -> Option<Target> {
    let text = value::field(key, value, "write a text, in quotes if need be", findings)?;
    parse(text)
        .map_err(|complaint| findings.within(key, |findings| findings.complain(complaint)))
        .ok()
}

/// The ports of a rule for the public Internet, and what does not go with it.
fn internet(long: &Long, deny: bool, findings: &mut Findings) -> Vec<PortSpan> {
    const HELP: &str = "write a list of ports, such as “internet: [443]”";
    if deny {
        let help = "leave it out: what “allow” does not permit is refused";
        findings.note_key("internet", 0, "“internet” belongs to “allow” only", help);
    }
    let odd = [
        (
            "ports",
            long.ports.is_some(),
            "write the ports behind “internet:” itself",
        ),
        (
            "private",
            long.private.is_some(),
            "remove it: the public Internet has no private addresses; give those hosts a rule of their own",
        ),
    ];
    for (key, is_there, help) in odd {
        if is_there {
            let message = format!("an “internet” rule has no “{key}”");
            findings.note_key(key, 0, message, help);
        }
    }
    let protocol = value::field("protocol", &long.protocol, "write “tcp”", findings);
    if protocol.is_some_and(|protocol| *protocol != schema::Protocol::Tcp) {
        let message = "an “internet” rule is about TCP alone";
        let help = "remove “protocol”: names in QUIC cannot be read, and browsers go on over TCP";
        findings.note_key("protocol", 0, message, help);
    }
    if long.why.is_none() {
        findings.note(
            "an “internet” rule says why the connector needs all of it",
            "add “why:” with a sentence, or name the hosts that it needs",
        );
    }
    let Some(list) = value::field("internet", &long.internet, HELP, findings) else {
        return Vec::new();
    };
    findings.within("internet", |findings| {
        let spans = ports::lower(list, findings);
        if let Some(complaint) = dns_port(&spans, deny) {
            findings.complain(complaint);
        }
        spans
    })
}

fn ports(
    long: &Long,
    deny: bool,
    target: Option<&Target>,
    findings: &mut Findings,
) -> Vec<PortSpan> {
    const HELP: &str = "write a list, such as “ports: [443]”";
    if matches!(target, Some(Target::Unix(_) | Target::Session(_))) {
        return Vec::new();
    }
    if long.ports.is_none() {
        if !deny && target.is_some() {
            findings.note("the rule has no “ports”", HELP);
        }
        return vec![ports::ALL];
    }
    let Some(list) = value::field("ports", &long.ports, HELP, findings) else {
        return Vec::new();
    };
    findings.within("ports", |findings| {
        let spans = ports::lower(list, findings);
        if let Some(complaint) = dns_port(&spans, deny) {
            findings.complain(complaint);
        }
        spans
    })
}

/// A rule cannot lead to port 53. A denial may cover it in passing, not name it.
fn dns_port(spans: &[PortSpan], deny: bool) -> Option<Complaint> {
    spans
        .iter()
        .filter(|span| !deny || span.first == span.last)
        .find_map(ports::dns_port)
}

fn host(
    ports: &[PortSpan],
    named: bool,
    deny: bool,
    private: Option<&bool>,
    findings: &mut Findings,
) {
    let count = ports::count(ports);
    if !deny && named && count > MAX_HOST_PORTS {
        findings.within("ports", |findings| {
            findings.note(
                format!("a host rule with {count} ports; at most {MAX_HOST_PORTS} fit"),
                "name the ports that are needed (each becomes a grant of its own for every \
                 address of the host), or write the addresses under “cidr:”",
            );
        });
    }
    if deny {
        only_host("private", private.is_some(), findings);
    }
}

/// How many names below a wildcard may be looked up each minute.
fn lookups_per_minute(
    written: Option<u32>,
    deny: bool,
    target: &Target,
    findings: &mut Findings,
) -> u32 {
    let Some(number) = written else {
        return match target {
            Target::Host(HostPattern::Public) => LOOKUPS_OF_THE_INTERNET,
            _ => LOOKUPS_PER_MINUTE,
        };
    };
    if deny || !matches!(target, Target::Host(HostPattern::Below(_))) {
        let message = format!("“{LOOKUPS}” belongs to rules of “allow” for “*.domain” only");
        findings.note_key(LOOKUPS, 0, message, "remove it");
    } else if !(1..=MAX_LOOKUPS).contains(&number) {
        findings.within(LOOKUPS, |findings| {
            findings.note(
                format!("{number} look-ups a minute"),
                format!("write a number from 1 to {MAX_LOOKUPS}"),
            );
        });
    }
    number
}

fn only_host(key: &str, present: bool, findings: &mut Findings) {
    if present {
        let message = format!("“{key}” belongs to “host” rules of “allow” only");
        findings.note_key(key, 0, message, "remove it");
    }
}

fn not_unix(key: &str, present: bool, findings: &mut Findings) {
    if present {
        findings.note_key(key, 0, format!("a unix socket has no “{key}”"), "remove it");
    }
}

fn protocols(long: &Long, deny: bool, findings: &mut Findings) -> Protocols {
    let help = "write “tcp”, “udp” or “any”";
    match value::field("protocol", &long.protocol, help, findings) {
        Some(schema::Protocol::Tcp) => Protocols::TCP,
        Some(schema::Protocol::Udp) => Protocols::UDP,
        Some(schema::Protocol::Any) => Protocols::ANY,
        None => default_protocols(deny),
    }
}

/// What is not said is not permitted, and is denied.
fn default_protocols(deny: bool) -> Protocols {
    if deny { Protocols::ANY } else { Protocols::TCP }
}

/// The id that a rule gives itself; empty where it gives none.
pub(super) fn id(id: &Option<Loose<String>>, findings: &mut Findings) -> String {
    const HELP: &str = "write 1 to 64 letters, digits or any of . _ : / - and no blanks";
    let Some(id) = value::field("id", id, HELP, findings) else {
        return String::new();
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
        findings.within("id", |findings| {
            findings.note(format!("{} is no usable id", quote(id)), HELP);
        });
    }
    id.clone()
}

/// The reason that a rule gives.
pub(super) fn why(why: &Option<Loose<String>>, findings: &mut Findings) -> Option<String> {
    const HELP: &str = "write a sentence of at most 500 characters, on one line";
    let why = value::field("why", why, HELP, findings)?.trim();
    if why.is_empty() || why.chars().count() > 500 || why.chars().any(char::is_control) {
        findings.within("why", |findings| {
            findings.note(format!("{} is no usable reason", quote(why)), HELP);
        });
    }
    Some(why.to_owned())
}
