//! From files to policies. Everything but [`parse`] reads the disk.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use egress_common::abi::{MAX_RULES, RULE_FIRST};
use serde::Deserialize;

use super::{
    compile,
    fault::{Complaint, Fault, Faults, Finding, Findings, Steps, is_reordering, quote},
    locate::Places,
    lower,
    model::{List, Policy},
    schema::Document,
    tree,
};
use crate::host::{
    User,
    trust::{Changeable, Way},
};

/// Where the agent's configuration is: read-only for connectors that run as root.
pub const SEALED: &str = "/etc/egress-agent";
/// Bytes of a policy file at most.
pub const MAX_BYTES: u64 = 1 << 20;
/// Opening brackets of a file. The parser's time grows with the square of their depth, and
/// with that of the number of directives.
const MAX_BRACKETS: usize = 4_096;
/// Faults that are shown of one file.
const MAX_FAULTS: usize = 200;

/// A policy and how its file was come by.
#[derive(Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// The file, and everything on its way.
    pub way: Way,
}

/// Reads one policy. Fails with every fault of the file.
pub fn load_file(path: &Path) -> Result<Policy, Faults> {
    load_traced(path).map(|loaded| loaded.policy)
}

/// Reads one policy, and keeps the file open that it was read from.
pub fn load_traced(path: &Path) -> Result<Loaded, Faults> {
    let (way, text) = read(path).map_err(|complaint| {
        Faults::from(Fault::of_file(path, complaint.message, complaint.help))
    })?;
    let policy = parse(path, &text)?;
    Ok(Loaded { policy, way })
}

/// What the user as whom a connector runs could change about its policy: the file, or a folder or
/// link on its way. For root nothing is out of reach but what every root connector sees
/// read-only.
pub fn changeable_by(loaded: &Loaded, user: &User) -> Result<Option<Changeable>, Faults> {
    if user.is_root() && loaded.way.path().starts_with(SEALED) {
        return Ok(None);
    }
    loaded.way.changeable_by(user).map_err(|error| {
        let message = format!("nobody knows who can change it: {error}");
        Fault::of_file(&loaded.policy.source, message, "report this fault").into()
    })
}

/// Reads every `*.yaml` and `*.yml` of a folder, in the order of their names. Fails with
/// every fault of every file; a connector may have one file only.
pub fn load_dir(path: &Path) -> Result<Vec<Policy>, Faults> {
    let mut policies = Vec::new();
    let mut faults = Vec::new();
    for file in list(path)? {
        match load_file(&file) {
            Ok(policy) => policies.push(policy),
            Err(found) => faults.extend(found.into_vec()),
        }
    }
    faults.extend(twins(&policies));
    Faults::check(faults)?;
    Ok(policies)
}

/// The policy of a connector in a folder. Faults of other connectors' files are no matter,
/// unless the connector is not found without them.
pub fn find(folder: &Path, connector: &str) -> Result<Loaded, Faults> {
    let mut faults = Vec::new();
    let mut policies = Vec::new();
    let mut ways = Vec::new();
    let mut names = Vec::new();
    for file in list(folder)? {
        match load_traced(&file) {
            Ok(loaded) => {
                names.push(loaded.policy.connector.clone());
                if loaded.policy.connector == connector {
                    policies.push(loaded.policy);
                    ways.push(loaded.way);
                }
            }
            Err(found) => faults.extend(found.into_vec()),
        }
    }
    Faults::check(twins(&policies))?;
    match policies.pop().zip(ways.pop()) {
        Some((policy, way)) => Ok(Loaded { policy, way }),
        None => {
            let message = format!("no policy here is for the connector {}", quote(connector));
            let help = if names.is_empty() {
                "put its policy there, or name a policy file".to_owned()
            } else {
                format!("name one of {}, or a policy file", names.join(", "))
            };
            faults.push(Fault::of_file(folder, message, help));
            Err(Faults::check(faults).err().unwrap_or_else(|| {
                Fault::of_file(folder, "no such policy", "name a policy file").into()
            }))
        }
    }
}

/// Reads the policy that a text is. Pure: `source` only names the text in faults.
pub fn parse(source: &Path, text: &str) -> Result<Policy, Faults> {
    let (policy, findings) = understand(source, text)?;
    if findings.is_empty() {
        return Ok(policy);
    }
    Err(placed(source, text, findings))
}

fn understand(source: &Path, text: &str) -> Result<(Policy, Vec<Finding>), Fault> {
    let plain = |complaint: Complaint| Fault::of_file(source, complaint.message, complaint.help);
    bounds(text).map_err(plain)?;
    let mut findings = Findings::default();
    let value = tree::values(text, &mut findings).map_err(|fault| Fault {
        file: source.to_owned(),
        line: fault.line,
        column: fault.column,
        message: fault.message,
        help: fault.help,
    })?;
    if value.is_null() {
        return Err(plain(Complaint::new(
            "the file is empty",
            "write a policy: at least “version: 1” and “connector: NAME”",
        )));
    }
    let Ok(document) = Document::deserialize(value) else {
        return Err(plain(Complaint::new(
            "the file is no mapping of keys to values",
            "start with “version: 1” and “connector: NAME” on lines of their own",
        )));
    };
    let policy = lower::lower(source, &document, &mut findings);
    if findings.is_empty() {
        fit(&policy, &mut findings);
    }
    Ok((policy, findings.into_vec()))
}

/// Notes what no data plane has room for.
fn fit(policy: &Policy, findings: &mut Findings) {
    let slots: Vec<u32> = (RULE_FIRST..MAX_RULES).collect();
    let Err(misfits) = compile::assemble(policy, 1, &slots) else {
        return;
    };
    for misfit in misfits {
        let path: Steps = match misfit.rule.map(|index| policy.place_of(index)) {
            None => Steps::new(),
            Some((List::Allow, index)) => vec!["allow".into(), index.into()],
            Some((List::Deny, index)) => vec!["deny".into(), index.into()],
            Some((List::Listen, index)) => vec!["listen".into(), index.into()],
        };
        findings.note_at(path, misfit.complaint.message, misfit.complaint.help);
    }
}

/// Findings with their places.
fn placed(source: &Path, text: &str, findings: Vec<Finding>) -> Faults {
    let places = Places::of(text);
    let count = findings.len();
    let mut faults: Vec<Fault> = findings
        .into_iter()
        .map(|finding| {
            let place = places.find(&finding.path, finding.spot);
            Fault {
                file: source.to_owned(),
                line: place.line,
                column: place.column,
                message: finding.message,
                help: finding.help,
            }
        })
        .collect();
    faults.sort_by_key(|fault| (fault.line, fault.column));
    if count > MAX_FAULTS {
        faults.truncate(MAX_FAULTS);
        let last = faults
            .last()
            .map_or((1, 1), |fault| (fault.line, fault.column));
        faults.push(Fault {
            line: last.0,
            column: last.1,
            ..Fault::of_file(
                source,
                format!("{} more faults follow", count - MAX_FAULTS),
                "correct these first",
            )
        });
    }
    match Faults::check(faults) {
        Err(faults) => faults,
        Ok(()) => Fault::of_file(source, "the policy is not usable", "report this fault").into(),
    }
}

/// What keeps a text from being looked at.
fn bounds(text: &str) -> Result<(), Complaint> {
    if text.len() as u64 > MAX_BYTES {
        return Err(too_large());
    }
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if let Some(line) = text.lines().position(|line| line.contains(control)) {
        return Err(Complaint::new(
            format!(
                "line {} holds control characters; this is no text file",
                line + 1
            ),
            "name a policy in YAML; check with “file NAME” what this is",
        ));
    }
    // Each of these lets a file mean something else than what an editor shows.
    let deceptive = |c: char| matches!(c, '\r' | '\u{2028}' | '\u{2029}') || is_reordering(c);
    if let Some(line) = text.lines().position(|line| line.contains(deceptive)) {
        return Err(Complaint::new(
            format!(
                "line {} holds characters that hide or reorder text",
                line + 1
            ),
            "remove line breaks other than LF and CR LF, and marks of writing direction",
        ));
    }
    if let Some(line) = text.lines().position(|line| line.starts_with('%')) {
        return Err(Complaint::new(
            format!("line {} is a YAML directive (“%…”)", line + 1),
            "remove it; a policy needs none",
        ));
    }
    let brackets = text
        .bytes()
        .filter(|byte| matches!(byte, b'[' | b'{'))
        .count();
    if brackets > MAX_BRACKETS {
        return Err(Complaint::new(
            format!("the file holds {brackets} opening brackets; at most {MAX_BRACKETS} fit"),
            "write long lists with “- ” on lines of their own",
        ));
    }
    Ok(())
}

fn too_large() -> Complaint {
    Complaint::new(
        format!("the file is larger than {} KiB", MAX_BYTES / 1024),
        "name a policy; a long one has a few KiB",
    )
}

fn read(path: &Path) -> Result<(Way, String), Complaint> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::IsADirectory => {
            Complaint::new("is no regular file", "name a policy file in YAML")
        }
        _ => Complaint::new(
            format!("cannot be read: {error}"),
            "check the path and that this user may read it",
        ),
    };
    let mut way = Way::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    way.file()
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(too_large());
    }
    Ok((way, text_of(bytes)?))
}

/// The text of a file, without a mark of its byte order: it says nothing in UTF-8.
fn text_of(mut bytes: Vec<u8>) -> Result<String, Complaint> {
    const HELP: &str = "save it as UTF-8 (Windows: `Set-Content -Encoding utf8`, not `>`)";
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Complaint::new("is not UTF-8 but UTF-16", HELP));
    }
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let error = error.utf8_error();
        let byte = error.valid_up_to();
        Complaint::new(
            format!("is not UTF-8 (byte {byte} is none)"),
            "name a policy in YAML, saved as UTF-8; a letter such as ü in Latin-1 is one cause",
        )
    })
}

/// The policy files of a folder, by name: `*.yaml` and `*.yml`, hidden ones left out.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, Faults> {
    let failed = |error: std::io::Error| {
        Faults::from(Fault::of_file(
            folder,
            format!("the folder cannot be read: {error}"),
            "check the path and that this user may read it",
        ))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = path
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Faults of policies that are for the same connector.
pub fn twins(policies: &[Policy]) -> Vec<Fault> {
    let mut first = BTreeMap::new();
    let mut faults = Vec::new();
    for policy in policies {
        let Some(other) = first.insert(&policy.connector, &policy.source) else {
            continue;
        };
        let name = quote(&policy.connector);
        let other = super::fault::quiet(&other.to_string_lossy());
        faults.push(Fault::of_file(
            &policy.source,
            format!("the connector {name} already has the policy {other}"),
            "give one of them another name, or remove one of the files",
        ));
    }
    faults
}
