//! `inspect:` of a rule: which requests to its host are read, and what they may say.

use egress_envelope::{
    judge::{self, Pattern},
    service::Service,
    shape::Shape,
};

use super::{
    document::{Placed, spoken},
    limits, operation, value,
};
use crate::policy::{
    fault::{Complaint, Findings, quote},
    model::{PortSpan, Rule, Target},
    name::HostPattern,
    proxy::Choice,
    schema::Long,
    services,
    written::{self, Inspect},
};

const SHAPE: &str = "write “shape: off”, “report” or “enforce”";
/// Entries of `listed`.
const MAX_LISTED: usize = 1_000;

/// What a rule's `inspect:` means; `plain`: ports of the rule on which no name in TLS is checked.
pub(super) fn lower(
    long: &Long,
    rule: &Rule,
    plain: &[PortSpan],
    deny: bool,
    findings: &mut Findings,
) -> Option<Box<judge::Inspect>> {
    const HELP: &str = "write a mapping, such as “inspect: { service: postmark }”";
    let inspect = value::field("inspect", &long.inspect, HELP, findings)?;
    if let Some(complaint) = misplaced(rule, plain, deny) {
        findings.note_key("inspect", 0, complaint.message, complaint.help);
    }
    if rule.ech {
        let help = "remove it: here the envelope proxy takes the connection, and it has no ECH";
        findings.note_key("ech", 0, "“ech” has no meaning beside “inspect”", help);
    }
    let host = match &rule.target {
        Target::Host(HostPattern::Exact(name)) => Some(name.as_str()),
        _ => None,
    };
    Some(findings.within("inspect", |findings| {
        Box::new(read(inspect, host, findings))
    }))
}

/// Why nothing can be read under a rule.
fn misplaced(rule: &Rule, plain: &[PortSpan], deny: bool) -> Option<Complaint> {
    const HOSTS: &str = "name the hosts, each in a rule of its own";
    let (message, help) = match &rule.target {
        _ if deny => (
            "“inspect” belongs to “host” rules of “allow” only",
            "remove it",
        ),
        Target::Host(HostPattern::Below(_)) => (
            "“inspect” needs one host name, and this is a wildcard",
            HOSTS,
        ),
        Target::Host(HostPattern::Public) => (
            "“inspect” needs one host name, and this rule is for the whole Internet",
            "remove it: a rule that permits every host cannot say who may be written to",
        ),
        Target::Cidr(_) => (
            "“inspect” needs a host name: an address does not say whose certificate to expect",
            HOSTS,
        ),
        Target::Unix(_) | Target::Session(_) => (
            "“inspect” belongs to “host” rules of “allow” only: no TLS is spoken here",
            "remove it",
        ),
        Target::Host(HostPattern::Exact(_)) if rule.protocols.udp => (
            "“inspect” belongs to rules for TCP only: QUIC is not looked into",
            "remove “protocol”: programs go on over TCP where UDP does not answer",
        ),
        Target::Host(HostPattern::Exact(_)) => {
            let port = plain.first()?;
            let what = if port.first == port.last {
                "port"
            } else {
                "ports"
            };
            return Some(Complaint::new(
                format!(
                    "“inspect” needs TLS on every port of the rule, and {what} {port} may go without"
                ),
                "leave it out, or write “tls: require” where the server speaks TLS on it",
            ));
        }
    };
    Some(Complaint::new(message, help))
}

fn read(inspect: &Inspect, host: Option<&str>, findings: &mut Findings) -> judge::Inspect {
    value::unknown::<Inspect>("“inspect”", &inspect.unknown, findings);
    let mut table = service(inspect, host, findings);
    operation::add(&mut table, inspect, findings);
    operation::add_credentials(&mut table, inspect, findings);
    let recipients = value::field(
        "recipients",
        &inspect.recipients,
        "write “from-call”, “listed” or “any”",
        findings,
    );
    let unlisted = value::field(
        "unlisted",
        &inspect.unlisted,
        "write “unlisted: refuse” or “unlisted: report”",
        findings,
    );
    let mode = value::field(
        "mode",
        &inspect.mode,
        "write “mode: enforce” or “mode: report”",
        findings,
    );
    let reports = unlisted == Some(&written::Unlisted::Report);
    if table.operations.is_empty() && inspect.service.is_none() && !reports {
        findings.note(
            "no operation is known here, so no request would pass",
            "name a “service:”, or write “operations:”",
        );
    }
    let listed = listed(inspect, findings);
    match recipients {
        Some(written::Recipients::Any) if inspect.listed.is_some() => findings.note_key(
            "listed",
            0,
            "“listed” says nothing where everybody may be a recipient",
            "remove it, or write “recipients: from-call”",
        ),
        Some(written::Recipients::Listed) if inspect.listed.is_none() => findings.note_key(
            "recipients",
            0,
            "nobody is listed, so nobody could be a recipient",
            "add “listed:”, for example “listed: [\"*@example.com\"]”",
        ),
        _ => {}
    }
    judge::Inspect {
        service: table,
        recipients: match recipients {
            None | Some(written::Recipients::FromCall) => judge::Recipients::FromCall,
            Some(written::Recipients::Listed) => judge::Recipients::Listed,
            Some(written::Recipients::Any) => judge::Recipients::Any,
        },
        listed,
        unlisted: if reports {
            judge::Unlisted::Report
        } else {
            judge::Unlisted::Refuse
        },
        mode: match mode {
            Some(written::InspectMode::Report) => judge::Mode::Report,
            None | Some(written::InspectMode::Enforce) => judge::Mode::Enforce,
        },
        limits: limits::read(inspect, findings),
        shape: match value::field("shape", &inspect.shape, SHAPE, findings) {
            None | Some(written::Shape::Off) => Shape::Off,
            Some(written::Shape::Report) => Shape::Report,
            Some(written::Shape::Enforce) => Shape::Enforce,
        },
        // Said for all rules together.
        content: None,
        on_violation: judge::OnViolation::Refuse,
    }
}

/// The table of the service that is named, or an empty one.
fn service(inspect: &Inspect, host: Option<&str>, findings: &mut Findings) -> Service {
    const HELP: &str = "write the name of a service, such as “service: postmark”";
    let Some(written::ServiceName(name)) =
        value::field("service", &inspect.service, HELP, findings)
    else {
        return Service::default();
    };
    findings.within("service", |findings| {
        let Some(table) = services::find(name) else {
            findings.complain(no_service(name));
            return Service::default();
        };
        if let Some(host) = host.filter(|host| !table.is_at(host)) {
            findings.note(
                format!("the service {name} is at {}, and this rule is for {host}", table.hosts.join(", ")),
                "name its host; where the same operations are served elsewhere, write them under “operations:”",
            );
        }
        table.clone()
    })
}

fn no_service(name: &str) -> Complaint {
    let known: Vec<String> = services::names().map(str::to_owned).collect();
    let help = match value::nearest(name, &known) {
        Some(meant) => format!("did you mean “{meant}”?"),
        None => format!("known here: {}; or write “operations:”", known.join(", ")),
    };
    Complaint::new(
        format!("{} is no service with a table here", quote(name)),
        help,
    )
}

fn listed(inspect: &Inspect, findings: &mut Findings) -> Vec<Pattern> {
    const HELP: &str = "write a list, such as “listed: [bob@example.com, \"*@example.org\"]”";
    let Some(list) = value::field("listed", &inspect.listed, HELP, findings) else {
        return Vec::new();
    };
    findings.within("listed", |findings| {
        if list.is_empty() || list.len() > MAX_LISTED {
            let message = format!("“listed” has {} entries; 1 to {MAX_LISTED} fit", list.len());
            findings.note(message, HELP);
        }
        let mut patterns = Vec::new();
        for (index, text) in list.iter().enumerate() {
            findings.within(index, |findings| {
                let Some(text) = value::entry("a recipient", text, HELP, findings) else {
                    return;
                };
                match pattern(text) {
                    Err(complaint) => findings.complain(complaint),
                    Ok(pattern) if patterns.contains(&pattern) => {
                        findings.note(format!("{} stands here twice", quote(text)), "remove one");
                    }
                    Ok(pattern) => patterns.push(pattern),
                }
            });
        }
        patterns
    })
}

/// A recipient that is always right, or why this is none.
fn pattern(text: &str) -> Result<Pattern, Complaint> {
    const DOMAIN: &str = "write a domain of yours, such as “*@example.com”";
    let wide = |what: &str| {
        Complaint::new(
            format!("{} lists {what}", quote(text)),
            format!("{DOMAIN}, or “recipients: any” where everybody may be written to"),
        )
    };
    if text.is_empty()
        || text.len() > 320
        || text.chars().any(|c| c.is_control() || c.is_whitespace())
    {
        let help = "write the address alone, without a name and blanks, such as “bob@example.com”";
        return Err(Complaint::new(
            format!("{} is no recipient", quote(text)),
            help,
        ));
    }
    let Some((local, domain)) = text.rsplit_once('@') else {
        if text.contains('*') {
            return Err(wide(
                "more than one recipient by a “*”, which stands before an “@” only",
            ));
        }
        return Ok(Pattern(text.to_owned()));
    };
    if domain == "*"
        || domain.starts_with("*.") && !domain[2..].contains('.')
        || local == "*" && !domain.contains('.')
    {
        return Err(wide("everybody"));
    }
    if local.is_empty() || domain.contains('*') || local != "*" && local.contains('*') {
        return Err(Complaint::new(
            format!("{} is no usable pattern", quote(text)),
            DOMAIN,
        ));
    }
    Ok(Pattern(text.to_lowercase()))
}

/// Notes what would lead round the judging: other rules for the same name, and a company's proxy.
pub(super) fn not_passed_by(choice: &Choice, allow: &[Placed], findings: &mut Findings) {
    for (path, written) in allow {
        let Target::Host(HostPattern::Exact(name)) = &written.rule.target else {
            continue;
        };
        if written.rule.inspect.is_none() {
            continue;
        }
        for (other, also) in allow.iter().filter(|(other, _)| other != path) {
            let covers = matches!(&also.rule.target, Target::Host(pattern) if pattern.covers(name));
            if covers {
                findings.note_at(
                    other.clone(),
                    format!(
                        "this rule leads to {name}, too, round “inspect” of {}",
                        spoken(path)
                    ),
                    help_apart(&also.rule),
                );
            }
        }
        if let Choice::Through(proxy) = choice {
            let mut path = path.clone();
            path.push("inspect".into());
            let message = if proxy.takes(name) {
                format!(
                    "connections to {name} go through the proxy {proxy}, where nothing is judged"
                )
            } else {
                format!(
                    "the proxy {proxy} and requests that are judged do not go together in one policy"
                )
            };
            let help =
                "write “proxy: off” where the host is reached without it, or remove “inspect”";
            findings.note_at(path, message, help);
        }
    }
}

fn help_apart(rule: &Rule) -> &'static str {
    match &rule.target {
        Target::Host(HostPattern::Exact(_)) => "write one rule for the host, with all its ports",
        Target::Host(HostPattern::Below(_)) => {
            "name the hosts that are meant instead of the wildcard"
        }
        _ => "remove one of the two",
    }
}
