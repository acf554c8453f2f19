//! `content:` and `on-violation:`: what holds for every request that is judged.

use std::collections::BTreeMap;

use egress_envelope::{
    judge::OnViolation,
    secret::{Content, Secret},
};

use super::{document::Placed, tls::Written, value};
use crate::policy::{
    fault::{Findings, quote},
    model::{Rule, Target},
    name::{HostPattern, Name},
    schema::{Document, Loose},
    written,
};

/// Variables that may be named.
const MAX_BELONGS: usize = 256;
/// Hosts where one may belong.
const MAX_HOSTS: usize = 64;
const INSPECT: &str = "add “inspect” to the rules whose requests are meant, or remove it";

/// What may not be in a request.
pub(super) fn content(
    document: &Document,
    allow: &[Placed],
    findings: &mut Findings,
) -> Option<Content> {
    const HELP: &str = "write a mapping, such as “content: { refuse: [private-key, own-secrets] }”";
    let content = value::field("content", &document.content, HELP, findings)?;
    if !judges(allow) {
        let message = "“content” is about requests that are judged, and no rule has “inspect”";
        findings.note_key("content", 0, message, INSPECT);
    }
    Some(findings.within("content", |findings| {
        value::unknown::<written::Content>("“content”", &content.unknown, findings);
        Content {
            refuse: kinds(content, findings),
            belongs: belongs(content, allow, findings),
        }
    }))
}

/// What becomes of a connector that tries what it must not.
pub(super) fn on_violation(
    document: &Document,
    allow: &[Placed],
    findings: &mut Findings,
) -> OnViolation {
    const HELP: &str = "write “on-violation: refuse”, “freeze” or “kill”";
    let written = value::field("on-violation", &document.on_violation, HELP, findings);
    if written.is_some() && !judges(allow) {
        let message = "“on-violation” is about requests that are judged, and no rule has “inspect”";
        findings.note_key("on-violation", 0, message, INSPECT);
    }
    match written {
        None | Some(written::OnViolation::Refuse) => OnViolation::Refuse,
        Some(written::OnViolation::Freeze) => OnViolation::Freeze,
        Some(written::OnViolation::Kill) => OnViolation::Kill,
    }
}

fn inspected(allow: &[Placed]) -> impl Iterator<Item = &Rule> {
    let rules = allow.iter().map(|(_, Written { rule, .. })| rule);
    rules.filter(|rule| rule.inspect.is_some())
}

fn judges(allow: &[Placed]) -> bool {
    inspected(allow).next().is_some()
}

fn kinds(content: &written::Content, findings: &mut Findings) -> Vec<Secret> {
    let known: Vec<String> = Secret::ALL.iter().map(|it| it.name().to_owned()).collect();
    let help = format!("write a list of: {}", known.join(", "));
    let mut kinds = Vec::new();
    let Some(list) = value::field("refuse", &content.refuse, &help, findings) else {
        if content.refuse.is_none() {
            findings.note("“refuse” is missing, so nothing is looked for", help);
        }
        return kinds;
    };
    findings.within("refuse", |findings| {
        if list.is_empty() {
            findings.note("an empty list says nothing", help.clone());
        }
        for (index, name) in list.iter().enumerate() {
            findings.within(index, |findings| {
                let Some(written::SecretName(name)) = value::entry("a kind", name, &help, findings)
                else {
                    return;
                };
                let kind = Secret::ALL.into_iter().find(|kind| kind.name() == name);
                match kind {
                    None => {
                        let help = match value::nearest(name, &known) {
                            Some(meant) => format!("did you mean “{meant}”?"),
                            None => help.clone(),
                        };
                        findings.note(format!("{} is no kind of secret", quote(name)), help);
                    }
                    Some(kind) if kinds.contains(&kind) => {
                        findings.note(format!("{} stands here twice", quote(name)), "remove one");
                    }
                    Some(kind) => kinds.push(kind),
                }
            });
        }
    });
    kinds
}

fn belongs(
    content: &written::Content,
    allow: &[Placed],
    findings: &mut Findings,
) -> BTreeMap<String, Vec<String>> {
    const HELP: &str =
        "write variables with hosts, such as “belongs: { MAIL_TOKEN: [api.mail.example] }”";
    const HOSTS: &str = "write a list of host names, such as “[api.mail.example]”";
    let mut belongs = BTreeMap::new();
    let Some(map) = value::field("belongs", &content.belongs, HELP, findings) else {
        return belongs;
    };
    findings.within("belongs", |findings| {
        if map.len() > MAX_BELONGS {
            findings.note(
                format!("{} variables; at most {MAX_BELONGS} fit", map.len()),
                HELP,
            );
        }
        for (variable, hosts) in map {
            let hosts = findings.within(variable.as_str(), |findings| {
                let list = value::entry("the list of hosts", hosts, HOSTS, findings)?;
                Some(self::hosts(list, allow, findings))
            });
            belongs.insert(variable.clone(), hosts.unwrap_or_default());
        }
    });
    belongs
}

fn hosts(list: &[Loose<String>], allow: &[Placed], findings: &mut Findings) -> Vec<String> {
    const HOST: &str = "write a host name whose rule has “inspect”";
    let mut hosts = Vec::new();
    if list.len() > MAX_HOSTS {
        findings.note(
            format!("{} hosts; at most {MAX_HOSTS} fit", list.len()),
            HOST,
        );
    }
    for (index, text) in list.iter().enumerate() {
        findings.within(index, |findings| {
            let Some(text) = value::entry("a host", text, HOST, findings) else {
                return;
            };
            let name = match Name::parse(text) {
                Ok(name) => name,
                Err(error) => {
                    return findings.note(format!("the host {} {error}", quote(text)), HOST);
                }
            };
            let is = |rule: &Rule| matches!(&rule.target, Target::Host(HostPattern::Exact(own)) if *own == name);
            if !inspected(allow).any(is) {
                let message = format!("requests to {name} are not judged, so it says nothing here");
                findings.note(message, HOST);
            }
            hosts.push(name.as_str().to_owned());
        });
    }
    hosts
}
