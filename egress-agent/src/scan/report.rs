//! What was found, as text, JSON and SARIF 2.1.0. Pure.
//!
//! Names, paths and messages hold what others wrote. In text they are escaped for terminals,
//! in JSON and SARIF everything but visible characters stands as `\uXXXX`.

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};

use super::{
    find::Config,
    finding::{Finding, RULES, Severity},
    judge::{Judged, Seen},
};
use crate::event::{
    escape::{field, inner},
    sink::json::push_line,
};

/// Version of the JSON form.
pub const SCHEMA: &str = "egress-agent/scan/v1";
/// What the fields of a SARIF result mean: OASIS, SARIF 2.1.0 plus errata 01.
const SARIF: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// For people: one line for each finding, then what to do for each kind, then the sum.
pub fn text(configs: &[Config], judged: &Judged) -> String {
    let mut text = String::new();
    for finding in &judged.findings {
        let server = finding
            .server
            .as_deref()
            .map_or(String::new(), |name| format!(" {}:", field(name)));
        add(
            &mut text,
            &format!(
                "{}:{}: {}: {}:{server} {}",
                inner(&finding.file.to_string_lossy()),
                finding.line,
                finding.severity.as_str(),
                finding.rule.id,
                shown(&finding.message),
            ),
        );
    }
    let kinds: BTreeSet<&str> = judged
        .findings
        .iter()
        .map(|finding| finding.rule.id)
        .collect();
    if !kinds.is_empty() {
        add(&mut text, "\nWhat to do:");
        for rule in RULES.iter().filter(|rule| kinds.contains(rule.id)) {
            add(&mut text, &format!("  {}: {}", rule.id, rule.help));
        }
        add(&mut text, "");
    }
    let count =
        |keep: fn(&Seen) -> bool| judged.servers.iter().filter(|server| keep(server)).count();
    let severities = [Severity::Error, Severity::Warning, Severity::Note].map(|severity| {
        let found = judged
            .findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count();
        counted(found, severity.as_str())
    });
    add(
        &mut text,
        &format!(
            "{} in {}: {} confined, {} remote; {}",
            counted(judged.servers.len(), "server"),
            counted(configs.len(), "configuration"),
            count(|server| server.confined),
            count(|server| server.remote),
            severities.join(", "),
        ),
    );
    text
}

/// A message may have blanks and quotes; nothing else that a terminal could act upon.
fn shown(message: &str) -> String {
    inner(message).replace("\\\"", "\"")
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn add(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// For programs; docs/scan.md has the fields.
pub fn json(configs: &[Config], judged: &Judged) -> Result<String, serde_json::Error> {
    let files: Vec<Value> = configs
        .iter()
        .map(|config| {
            json!({
                "file": config.path.to_string_lossy(),
                "client": config.client.name,
                "user": config.user.name,
                "uid": config.user.uid,
                "read": config.tree.is_ok(),
            })
        })
        .collect();
    let servers: Vec<Value> = judged
        .servers
        .iter()
        .map(|server| seen(configs, server))
        .collect();
    let findings: Vec<Value> = judged.findings.iter().map(found).collect();
    written(&json!({
        "schema": SCHEMA,
        "ok": findings.is_empty(),
        "configurations": files,
        "servers": servers,
        "findings": findings,
    }))
}

fn seen(configs: &[Config], server: &Seen) -> Value {
    let config = configs.get(server.config);
    json!({
        "name": server.name,
        "file": config.map(|config| config.path.to_string_lossy()),
        "line": server.line,
        "client": config.map(|config| config.client.name),
        "uid": config.map(|config| config.user.uid),
        "kind": if server.remote { "remote" } else { "program" },
        "starts": server.starts,
        "confined": server.confined,
        "off": server.off,
    })
}

fn found(finding: &Finding) -> Value {
    json!({
        "id": finding.rule.id,
        "severity": finding.severity,
        "file": finding.file.to_string_lossy(),
        "line": finding.line,
        "client": finding.client,
        "server": finding.server,
        "subject": finding.subject,
        "message": finding.message,
        "help": finding.rule.help,
        "fingerprint": fingerprint(finding),
    })
}

/// The same for the same finding in a file whose lines have moved.
fn fingerprint(finding: &Finding) -> String {
    let server = finding.server.as_deref().unwrap_or_default();
    format!(
        "{}|{}|{server}|{}",
        finding.rule.id,
        finding.file.display(),
        finding.subject
    )
}

/// For code hosts and editors.
pub fn sarif(judged: &Judged) -> Result<String, serde_json::Error> {
    let rules: Vec<Value> = RULES
        .iter()
        .map(|rule| {
            json!({
                "id": rule.id,
                "shortDescription": { "text": rule.about },
                "help": { "text": rule.help },
                "defaultConfiguration": { "level": rule.severity.as_str() },
            })
        })
        .collect();
    let results: Vec<Value> = judged.findings.iter().map(result).collect();
    written(&json!({
        "$schema": SARIF,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "egress-agent scan",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    }))
}

fn result(finding: &Finding) -> Value {
    let server = finding
        .server
        .as_deref()
        .map_or(String::new(), |name| format!("{name}: "));
    let index = RULES.iter().position(|rule| rule.id == finding.rule.id);
    json!({
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": finding.severity.as_str(),
        "message": { "text": format!("{server}{}. {}", finding.message, finding.rule.help) },
        "locations": [{ "physicalLocation": {
            "artifactLocation": { "uri": uri(&finding.file) },
            "region": { "startLine": finding.line },
        }}],
        "partialFingerprints": { "egressAgentScan/v1": fingerprint(finding) },
    })
}

/// A path as a reference (RFC 3986, section 4.1; RFC 8089 where it is absolute).
fn uri(path: &Path) -> String {
    let mut uri = String::new();
    if path.is_absolute() {
        uri.push_str("file://");
    }
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte))
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

fn written(value: &Value) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    push_line(value, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
