//! One entry of `listen:`.

use ipnet::IpNet;

use super::{ports, rule, target, value};
use crate::policy::{
    fault::{Complaint, Findings, quote},
    model::{Listen, PortSpan},
    schema::{Caller, LongCaller, Loose, Sources},
    special::Block,
};

/// Prefixes of one rule.
const MAX_SOURCES: usize = 256;
/// What a caller's address looks like.
const FROM: &str = "write an address or address prefix, such as “10.20.0.0/16”; “0.0.0.0/0” and \
                    “::/0” are everybody";

/// What an entry means; `None` where it means nothing.
pub(super) fn lower(entry: &Loose<Caller>, findings: &mut Findings) -> Option<Listen> {
    const HELP: &str = "write “8080 from 10.0.0.0/8”, or a mapping with “ports:” and “from:”";
    let mut rule = match value::entry("a rule", entry, HELP, findings)? {
        Caller::Short(text) => short(text)
            .map_err(|complaint| findings.complain(complaint))
            .ok()?,
        Caller::Long(long) => self::long(long, findings),
    };
    if rule.id.is_empty() {
        rule.id = derived_id(&rule);
    }
    Some(rule)
}

/// The id of a rule that has none of its own; the same for every spelling of one meaning.
pub(super) fn derived_id(rule: &Listen) -> String {
    let ports: Vec<String> = rule.ports.iter().map(PortSpan::to_string).collect();
    let mut from: Vec<String> = rule.from.iter().map(spoken).collect();
    from.sort_unstable();
    format!("listen:{}/tcp:{}", ports.join(","), from.join(","))
}

/// A prefix, or the address that it is.
fn spoken(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

fn short(text: &str) -> Result<Listen, Complaint> {
    let mut words = text.split_whitespace();
    let (Some(port), Some("from"), Some(net), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Complaint::new(
            format!("{} does not say who may call", quote(text)),
            "write a port and one address or prefix, such as “8080 from 10.0.0.0/8”; several go \
             into a mapping with “ports:” and “from:”",
        ));
    };
    if let Some((port, protocol)) = port.split_once('/') {
        return Err(Complaint::new(
            format!(
                "{} is not how a port is written here",
                quote(&format!("{port}/{protocol}"))
            ),
            format!("write the port alone, “{port} from {net}”; {ONLY_TCP}"),
        ));
    }
    Ok(Listen {
        id: String::new(),
        ports: vec![ports::text(port)?],
        from: vec![source(net)?],
        why: None,
    })
}

/// Why there are no rules about callers by UDP.
const ONLY_TCP: &str = "only TCP callers can be let in: UDP knows no connections, so that an \
                        answer is a message like any other; permit those under “allow”";

fn long(long: &LongCaller, findings: &mut Findings) -> Listen {
    value::unknown::<LongCaller>("a “listen” rule", &long.unknown, findings);
    let _only_tcp = value::field("protocol", &long.protocol, ONLY_TCP, findings);
    Listen {
        id: rule::id(&long.id, findings),
        ports: local_ports(long, findings),
        from: sources(long, findings),
        why: rule::why(&long.why, findings),
    }
}

fn local_ports(long: &LongCaller, findings: &mut Findings) -> Vec<PortSpan> {
    const HELP: &str = "write a list of the connector's own ports, such as “ports: [8080]”";
    if long.ports.is_none() {
        findings.note("the rule has no “ports”", HELP);
    }
    let Some(list) = value::field("ports", &long.ports, HELP, findings) else {
        return Vec::new();
    };
    findings.within("ports", |findings| ports::lower(list, findings))
}

fn sources(long: &LongCaller, findings: &mut Findings) -> Vec<IpNet> {
    if long.from.is_none() {
        findings.note("the rule does not say “from” where", FROM);
    }
    let Some(sources) = value::field("from", &long.from, FROM, findings) else {
        return Vec::new();
    };
    findings.within("from", |findings| match sources {
        Sources::One(text) => one(text, findings).into_iter().collect(),
        Sources::Many(list) => many(list, findings),
    })
}

fn many(list: &[Loose<String>], findings: &mut Findings) -> Vec<IpNet> {
    if list.is_empty() || list.len() > MAX_SOURCES {
        let count = list.len();
        findings.note(
            format!("“from” has {count} entries; it takes 1 to {MAX_SOURCES}"),
            FROM,
        );
    }
    let mut nets: Vec<IpNet> = Vec::new();
    for (index, text) in list.iter().take(MAX_SOURCES).enumerate() {
        findings.within(index, |findings| {
            let Some(text) = value::entry("an address", text, FROM, findings) else {
                return;
            };
            let Some(net) = one(text, findings) else {
                return;
            };
            match nets.iter().find(|other| overlap(other, &net)) {
                Some(other) => findings.note(
                    format!("{net} and {other} overlap"),
                    "name each address once",
                ),
                None => nets.push(net),
            }
        });
    }
    nets.sort_unstable();
    nets
}

fn one(text: &str, findings: &mut Findings) -> Option<IpNet> {
    source(text)
        .map_err(|complaint| findings.complain(complaint))
        .ok()
}

fn source(text: &str) -> Result<IpNet, Complaint> {
    let net = target::cidr(text)?;
    if net.network().is_loopback() && net.broadcast().is_loopback() {
        return Err(Complaint::new(
            format!("{} is loopback, from where everybody may call", quote(text)),
            "remove it",
        ));
    }
    Ok(net)
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    let (a, b) = (Block::of(a), Block::of(b));
    a.covers(&b) || b.covers(&a)
}
