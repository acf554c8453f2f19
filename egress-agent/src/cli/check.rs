//! `egress-agent check`: are these policies free of faults?

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{
    exit,
    policy::{
        Policy,
        fault::{Fault, quiet},
        judged,
        load::{self, load_file},
        model::{Mode, Target},
        name::HostPattern,
        open, schema,
    },
    reload::say,
};

/// Where policies are looked for if no place is named.
pub const POLICIES: &str = "/etc/egress-agent/policies";

/// Arguments of `check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Policy files, and folders of them (*.yaml, *.yml)
    #[arg(value_name = "FILE|DIR", default_value = POLICIES)]
    pub paths: Vec<PathBuf>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Print the JSON Schema of policies instead, for editors
    #[arg(long, exclusive = true)]
    pub schema: bool,
}

/// Form of a result on stdout.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: one JSON document.
    Json,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    ok: bool,
    policies: Vec<Summary<'a>>,
    faults: &'a [Fault],
}

#[derive(Serialize)]
struct Summary<'a> {
    file: &'a Path,
    connector: &'a str,
    mode: &'static str,
    hosts: usize,
    internet: Vec<&'a str>,
    prefixes: usize,
    sockets: usize,
    deny: usize,
    listen: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    #[serde(skip)]
    addresses_denied: bool,
    /// What rules with `inspect` mean.
    judged: Vec<String>,
    /// Where they mean less than they seem to.
    cautions: Vec<String>,
    /// What keys beside the rules open, and rules for servers that act outside.
    open: Vec<String>,
    #[serde(skip)]
    outside: Vec<&'static str>,
}

/// Checks policies. Exit code 0: all are usable; 1: there are faults, each on a line of
/// stderr as `file:line:column: message; help` (with `-o json`: in the report on stdout).
pub fn run(args: &CheckArgs) -> u8 {
    if args.schema {
        print(&schema::json_schema());
        return 0;
    }
    let (policies, faults) = read(&args.paths);
    let report = Report {
        schema: "egress-agent/check/v1",
        ok: faults.is_empty(),
        policies: policies.iter().map(summary).collect(),
        faults: &faults,
    };
    match args.output {
        Output::Json => print(&json(&report)),
        Output::Text => {
            for fault in &faults {
                complain(&fault.to_string());
            }
            print(&text(&report));
        }
    }
    if report.ok { 0 } else { exit::FAULTS }
}

/// All policies of the places, and all faults.
fn read(paths: &[PathBuf]) -> (Vec<Policy>, Vec<Fault>) {
    let mut policies = Vec::new();
    let mut faults = Vec::new();
    let mut seen = Vec::new();
    for path in paths {
        let files = if path.is_dir() {
            load::list(path)
        } else {
            Ok(vec![path.clone()])
        };
        match files {
            Err(found) => faults.extend(found.into_vec()),
            Ok(files) if files.is_empty() => faults.push(Fault::of_file(
                path,
                "the folder holds no policies",
                "put policies there as NAME.yaml, or name other places",
            )),
            Ok(files) => seen.extend(files),
        }
    }
    seen.sort();
    seen.dedup_by_key(|file| file.canonicalize().unwrap_or_else(|_| file.clone()));
    for file in seen {
        match load_file(&file) {
            Ok(policy) => policies.push(policy),
            Err(found) => faults.extend(found.into_vec()),
        }
    }
    faults.extend(load::twins(&policies));
    (policies, faults)
}

fn summary(policy: &Policy) -> Summary<'_> {
    let count = |kind: fn(&Target) -> bool| {
        let rules = policy.written();
        rules.filter(|rule| kind(&rule.target)).count()
    };
    Summary {
        file: &policy.source,
        connector: &policy.connector,
        mode: match policy.mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        },
        hosts: count(|target| matches!(target, Target::Host(_)) && !is_internet(target)),
        internet: policy
            .written()
            .filter(|rule| is_internet(&rule.target))
            .map(|rule| rule.id.as_str())
            .collect(),
        prefixes: count(|target| matches!(target, Target::Cidr(_))),
        sockets: count(|target| matches!(target, Target::Unix(_) | Target::Session(_))),
        deny: policy.deny.len(),
        listen: policy.listen.len(),
        proxy: policy.through().map(ToString::to_string),
        addresses_denied: policy
            .deny
            .iter()
            .any(|rule| matches!(rule.target, Target::Cidr(_))),
        judged: judged::meanings(policy),
        cautions: judged::cautions(policy),
        open: open::all(policy),
        outside: open::servers(policy)
            .map(|(_, server)| server.what)
            .collect(),
    }
}

fn is_internet(target: &Target) -> bool {
    matches!(target, Target::Host(HostPattern::Public))
}

fn text(report: &Report<'_>) -> String {
    let mut text = String::new();
    for policy in &report.policies {
        let Summary {
            hosts,
            internet,
            prefixes,
            sockets,
            deny,
            listen,
            proxy,
            addresses_denied,
            outside,
            ..
        } = policy;
        let parts = [
            counted(internet.len(), "rule for the whole public Internet"),
            counted(*hosts, "host rule"),
            counted(*prefixes, "address rule"),
            counted(*sockets, "unix socket"),
            counted(*deny, "denial"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let what = if hosts + internet.len() + prefixes + sockets == 0 {
            "reaches nothing".to_owned()
        } else {
            parts.join(", ")
        };
        let callers =
            counted(*listen, "listen rule").map_or_else(String::new, |it| format!(", {it}"));
        let audit = if policy.mode == "audit" {
            "; audit mode: nothing is blocked"
        } else {
            ""
        };
        let proxy = match proxy {
            Some(proxy) if *addresses_denied => {
                format!("; names go through {proxy}, which looks at no denied address")
            }
            Some(proxy) => format!("; names go through {proxy}"),
            None => String::new(),
        };
        let outside = match outside.as_slice() {
            [] => String::new(),
            servers => format!(" (open: leads to {})", servers.join(", ")),
        };
        let file = quiet(&policy.file.to_string_lossy());
        add(
            &mut text,
            &format!(
                "{file}: {}: {what}{outside}{callers}{proxy}{audit}",
                policy.connector
            ),
        );
        for meaning in &policy.judged {
            add(
                &mut text,
                &format!("{file}: {}: {}", policy.connector, quiet(meaning)),
            );
        }
        for caution in &policy.cautions {
            add(&mut text, &format!("  warning: {}", quiet(caution)));
        }
        for opened in &policy.open {
            add(
                &mut text,
                &format!("{file}: {}: open: {opened}", policy.connector),
            );
        }
        for rule in internet {
            add(&mut text, &format!("  warning: {}", say::internet(rule)));
        }
    }
    let good = report.policies.len();
    let faults = report.faults.len();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let policies = if good == 1 { "policy" } else { "policies" };
    add(
        &mut text,
        &format!("{good} {policies} usable, {faults} fault{}", plural(faults)),
    );
    text
}

fn counted(count: usize, what: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        _ => Some(format!("{count} {what}s")),
    }
}

fn add(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}

/// A report as one JSON document, ended by a line break.
pub(super) fn json<T: Serialize>(report: &T) -> String {
    let mut text = serde_json::to_string_pretty(report).unwrap_or_default();
    text.push('\n');
    text
}

/// Prints to stdout. A reader that has gone away is no fault of the policies.
pub(super) fn print(text: &str) {
    io::stdout().write_all(text.as_bytes()).unwrap_or_default();
}

/// Prints a line to stderr.
pub(super) fn complain(line: &str) {
    writeln!(io::stderr(), "{line}").unwrap_or_default();
}
