//! The top level of a policy.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{
    inspect, judging, listen, pin, proxy, rule, run as start, settings, tls::Written, value,
};
use crate::host::layers::Layer;
use crate::policy::{
    fault::{Complaint, Findings, Step, quote},
    model::{DnsSettings, Listen, Mode, Policy, Rule, Start, Starters},
    schema::{self, Caller, Document, Entry, LayerName, Loose},
};

/// Rules one policy may have, those of all lists together.
const MAX_RULES: usize = 1_000;

/// What a document means. The result is a policy only if `findings` stays empty.
pub fn lower(source: &Path, document: &Document, findings: &mut Findings) -> Policy {
    value::unknown::<Document>("a policy", &document.unknown, findings);
    version(document, findings);
    let connector = connector(document, findings);
    let allow = rules("allow", &document.allow, findings);
    let deny = rules("deny", &document.deny, findings);
    let listen = callers(&document.listen, findings);
    let count = allow.len() + deny.len() + listen.len();
    if count > MAX_RULES {
        findings.note(
            format!("the policy has {count} rules; at most {MAX_RULES} fit"),
            "combine rules: a rule takes several ports, a prefix many addresses",
        );
    }
    repeats(&allow, &deny, &listen, findings);
    let mut require = require(document, findings);
    if allow.iter().any(|(_, rule)| rule.insists) && !require.contains(&Layer::Sni) {
        require.push(Layer::Sni);
    }
    let proxy = proxy::lower(&document.proxy, findings);
    proxy::not_passed(&proxy, &allow, findings);
    inspect::not_passed_by(&proxy, &allow, findings);
    let content = judging::content(document, &allow, findings);
    let on_violation = judging::on_violation(document, &allow, findings);
    let run = run(document, findings);
    let pin = pin::lower(document, run.as_ref(), findings);
    Policy {
        connector,
        mode: mode(document, findings),
        allow: parts(allow),
        deny: parts(deny),
        listen: listen.into_iter().map(|(_, rule)| rule).collect(),
        dns: dns(document, findings),
        proxy,
        content,
        on_violation,
        run,
        pin,
        starters: starters(document, findings),
        require,
        start: start(document, findings),
        source: PathBuf::from(source),
    }
}

fn version(document: &Document, findings: &mut Findings) {
    const HELP: &str = "write “version: 1”";
    if document.version.is_none() {
        findings.note("“version” is missing", HELP);
        return;
    }
    match value::field("version", &document.version, HELP, findings) {
        None | Some(1) => {}
        Some(other) => findings.within("version", |findings| {
            findings.note(format!("version {other} is not known here"), HELP);
        }),
    }
}

fn connector(document: &Document, findings: &mut Findings) -> String {
    const HELP: &str =
        "write a name of 1 to 64 of a-z 0-9 - _ . with a letter or digit first, such as “postmark”";
    if document.connector.is_none() {
        findings.note("“connector” is missing", HELP);
        return String::new();
    }
    let Some(name) = value::field("connector", &document.connector, HELP, findings) else {
        return String::new();
    };
    if !is_connector(name) {
        findings.within("connector", |findings| {
            findings.note(format!("{} is no connector name", quote(name)), HELP);
        });
    }
    name.clone()
}

/// Whether a text can name a connector.
pub fn is_connector(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 64
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || "-_.".contains(c))
}

fn mode(document: &Document, findings: &mut Findings) -> Mode {
    let help = "write “mode: enforce” or “mode: audit”";
    match value::field("mode", &document.mode, help, findings) {
        Some(schema::Mode::Audit) => Mode::Audit,
        Some(schema::Mode::Enforce) | None => Mode::Enforce,
    }
}

fn start(document: &Document, findings: &mut Findings) -> Start {
    let help = "write “start: lenient” or “start: strict”";
    match value::field("start", &document.start, help, findings) {
        Some(schema::Start::Strict) => Start::Strict,
        Some(schema::Start::Lenient) | None => Start::Lenient,
    }
}

fn starters(document: &Document, findings: &mut Findings) -> Starters {
    const HELP: &str = "write names or numbers, such as “users: [dana]” or “groups: [developers]”";
    let mut list = |key: &'static str, field: &Option<Loose<Vec<Loose<String>>>>| {
        let names = value::field(key, field, HELP, findings)?;
        let mut all = Vec::new();
        findings.within(key, |findings| {
            for (index, name) in names.iter().enumerate() {
                findings.within(index, |findings| {
                    let Some(name) = value::entry("a name", name, HELP, findings) else {
                        return;
                    };
                    if name.is_empty() || name.contains(|c: char| c.is_control() || c == ':') {
                        findings.note(format!("{} is no name", quote(name)), HELP);
                    }
                    all.push(name.clone());
                });
            }
        });
        Some(all)
    };
    match (
        list("users", &document.users),
        list("groups", &document.groups),
    ) {
        (None, None) => Starters::default(),
        (users, groups) => Starters {
            users: users.unwrap_or_default(),
            groups: groups.unwrap_or_default(),
        },
    }
}

pub(super) type Placed<T = Written> = (Vec<Step>, T);

fn rules(
    key: &str,
    list: &Option<Loose<Vec<Loose<Entry>>>>,
    findings: &mut Findings,
) -> Vec<Placed> {
    let deny = key == "deny";
    each(key, list, findings, |entry, findings| {
        rule::lower(entry, deny, findings)
    })
}

fn parts(rules: Vec<Placed>) -> Vec<Rule> {
    let written = rules.into_iter().map(|(_, rule)| rule);
    written.flat_map(Written::parts).collect()
}

fn callers(
    list: &Option<Loose<Vec<Loose<Caller>>>>,
    findings: &mut Findings,
) -> Vec<Placed<Listen>> {
    each("listen", list, findings, listen::lower)
}

/// What the entries of a list mean, each with its place.
fn each<E, T>(
    key: &str,
    list: &Option<Loose<Vec<E>>>,
    findings: &mut Findings,
    lower: impl Fn(&E, &mut Findings) -> Option<T>,
) -> Vec<Placed<T>> {
    let help = "write a list: each entry on a line of its own with “- ” in front";
    let Some(entries) = value::field(key, list, help, findings) else {
        return Vec::new();
    };
    findings.within(key, |findings| {
        let mut rules = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            findings.within(index, |findings| {
                if let Some(rule) = lower(entry, findings) {
                    rules.push((findings.path().to_vec(), rule));
                }
            });
        }
        rules
    })
}

/// Notes rules that say the same, and ids that are used twice.
fn repeats(allow: &[Placed], deny: &[Placed], listen: &[Placed<Listen>], findings: &mut Findings) {
    let mut ids = HashMap::new();
    let mut meanings = HashMap::new();
    let mut all = Vec::new();
    for (path, Written { rule, .. }) in allow {
        all.push((path, &rule.id, rule::derived_id(rule, false)));
    }
    for (path, Written { rule, .. }) in deny {
        all.push((path, &rule.id, rule::derived_id(rule, true)));
    }
    for (path, rule) in listen {
        all.push((path, &rule.id, listen::derived_id(rule)));
    }
    for (path, id, meaning) in all {
        if let Some(first) = meanings.insert(meaning.clone(), path) {
            findings.note_at(
                path.clone(),
                format!("this rule says the same as {}", spoken(first)),
                "remove one of the two",
            );
        } else if let Some(first) = ids.insert(id, path) {
            findings.note_at(
                path.clone(),
                format!("the id {} is that of {}", quote(id), spoken(first)),
                "give one of the two another “id:”",
            );
        }
    }
}

/// A rule's place for a message: “allow entry 2”, counted from 1.
pub(super) fn spoken(path: &[Step]) -> String {
    match path {
        [Step::Key(list), Step::Index(index)] => format!("entry {} of “{list}”", index + 1),
        _ => "another".into(),
    }
}

fn require(document: &Document, findings: &mut Findings) -> Vec<Layer> {
    const HELP: &str = "write a list of layers, such as “require: [unix, sni]”";
    let Some(entries) = value::field("require", &document.require, HELP, findings) else {
        return Vec::new();
    };
    let mut layers = Vec::new();
    findings.within("require", |findings| {
        for (index, name) in entries.iter().enumerate() {
            findings.within(index, |findings| {
                let Some(LayerName(name)) = value::entry("a layer", name, HELP, findings) else {
                    return;
                };
                match Layer::of_name(name) {
                    None => findings.complain(no_layer(name)),
                    Some(layer) if layers.contains(&layer) => {
                        findings.note(format!("“{layer}” stands here twice"), "remove one");
                    }
                    Some(layer) => layers.push(layer),
                }
            });
        }
    });
    layers
}

fn no_layer(name: &str) -> Complaint {
    let known: Vec<String> = Layer::ALL.iter().map(ToString::to_string).collect();
    let help = match value::nearest(name, &known) {
        Some(meant) => format!("did you mean “{meant}”?"),
        None => format!("known here: {}", known.join(", ")),
    };
    Complaint::new(format!("{} is no layer", quote(name)), help)
}

fn dns(document: &Document, findings: &mut Findings) -> DnsSettings {
    let help = "write a mapping with “servers:”, “domains:” and “ttl:”";
    let Some(dns) = value::field("dns", &document.dns, help, findings) else {
        return DnsSettings::default();
    };
    findings.within("dns", |findings| settings::dns(dns, findings))
}

fn run(document: &Document, findings: &mut Findings) -> Option<crate::policy::model::Run> {
    let help = "write a mapping with “command:”, “user:”, “env:”, “processes:” and “devices:”";
    let run = value::field("run", &document.run, help, findings)?;
    Some(findings.within("run", |findings| start::run(run, findings)))
}
