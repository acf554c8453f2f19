//! `egress-agent learn`: the rules that a connector's runs call for.

use std::{ffi::OsString, io, path::PathBuf};

use clap::Args;
use jiff::Timestamp;
use similar::TextDiff;

use super::{
    check::{Output, complain, json, print},
    events::since,
    fail,
    learned::report,
    policies, run,
};
use crate::{
    event::escape::inner,
    exit,
    host::{User, user},
    learn::{
        insert::insert,
        observed::{Observed, Seen},
        propose::{Proposal, propose},
        read::{Read, read},
        render::{counted, entries, remarks, seen},
    },
    policy::{self, Policy},
    wrap::{
        starting,
        write::{Held, as_owner, create},
    },
};

/// Propose rules for what a connector reached, from its runs
///
/// Reads events of runs in audit mode (or of refused ones): of this host's instances, which needs root,
/// or files that `run --events FILE` wrote. Shows what would be added to the policy as a diff; each rule
/// with the runs, times and programs behind it. Names are proposed one by one. Wildcards, telemetry,
/// registries, addresses without a name and what was seen in one of several runs alone stay comments.
///
/// A connector that is malicious chooses what it reaches while it is watched: read what is proposed.
///
/// With a command behind `--` it is run once, in audit mode, with nothing declared (needs root).
///
/// Exit status: 0 nothing to add, or it was written; 1 there is something to add; 2 the command line was
/// not understood, or there are no events; 125 the agent failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo egress-agent learn github\n  \
    sudo egress-agent learn github --apply\n  \
    egress-agent learn github --events run1.jsonl --events run2.jsonl --policy github.yaml\n  \
    sudo egress-agent learn -- npx -y some-mcp-server\n\n\
    docs/learn.md says how rules are chosen, and has the fields of the JSON form.")]
pub struct LearnArgs {
    /// Name of the connector
    #[arg(required_unless_present = "command")]
    connector: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    /// Write the rules into the policy; comments and positions stay
    #[arg(long)]
    apply: bool,
    /// Run the command as this user: NAME, UID, NAME:GROUP or UID:GID
    #[arg(long, short, value_name = "USER", requires = "command")]
    user: Option<String>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Program and arguments: run once, in audit mode
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Where events and the policy are.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// File of events (JSON Lines), in the order in which they were written; may be given several times
    #[arg(long, value_name = "FILE")]
    pub(super) events: Vec<PathBuf>,
    /// Only events since a time (2026-03-04T05:06:07Z) or age (15m, 2h)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(super) since: Option<Timestamp>,
    /// Policy file
    #[arg(long, value_name = "FILE", conflicts_with = "policies")]
    pub(super) policy: Option<PathBuf>,
    /// Folder in which the policy is looked for by the connector's name
    #[arg(long, value_name = "DIR")]
    pub(super) policies: Option<PathBuf>,
}

/// The declared policy and its text, or where one would be made.
struct Declared {
    file: PathBuf,
    text: String,
    policy: Option<Policy>,
}

/// Proposes. Answers the exit code.
pub fn run(args: LearnArgs) -> u8 {
    let result = if args.command.is_empty() {
        learn(&args)
    } else {
        once(args)
    };
    result.unwrap_or_else(fail)
}

impl SourceArgs {
    /// The policy's file, where there is one.
    pub(super) fn declared(&self, connector: &str) -> Result<Option<PathBuf>, String> {
        if let Some(file) = &self.policy {
            return Ok(Some(file.clone()));
        }
        let found = policies::find(connector, self.policies.as_deref())?;
        Ok(found.map(|loaded| loaded.policy.source))
    }
}

fn learn(args: &LearnArgs) -> Result<u8, String> {
    let connector = args.connector.clone().unwrap_or_default();
    let Some(read) = events(&args.source.events, &connector, args.source.since)? else {
        return Ok(exit::USAGE);
    };
    let declared = match args.source.declared(&connector)? {
        Some(file) => {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            let policy = policy::parse(&file, &text).map_err(|faults| faults.to_string())?;
            Declared {
                file,
                text,
                policy: Some(policy),
            }
        }
        None => {
            if starting::connector(&connector).as_ref() != Some(&connector) {
                complain("egress-agent: a connector's name is 1 to 64 of a-z 0-9 - _ .");
                return Ok(exit::USAGE);
            }
            let folder = args
                .source
                .policies
                .clone()
                .map_or_else(policies::made_in, Ok)?;
            Declared {
                file: folder.join(format!("{connector}.yaml")),
                text: String::new(),
                policy: None,
            }
        }
    };
    show(
        args.apply,
        args.output,
        &connector,
        &read.observed,
        &declared,
    )
}

/// Events of a connector. `None`: there are none, which was said.
pub(super) fn events(
    files: &[PathBuf],
    connector: &str,
    since: Option<Timestamp>,
) -> Result<Option<Read>, String> {
    let read = read(files, Some(connector), since).map_err(|error| format!("{error:#}"))?;
    if read.damaged > 0 {
        complain(&format!(
            "egress-agent: {} could not be read and are left out",
            counted(usize::try_from(read.damaged).unwrap_or(usize::MAX), "line")
        ));
    }
    if !read.observed.runs.is_empty() {
        return Ok(Some(read));
    }
    let others: Vec<String> = read.others.iter().map(|name| inner(name)).collect();
    let help = match others.as_slice() {
        [] => "run it with `mode: audit` first, or name files with --events".to_owned(),
        others => format!("there are some of {}", others.join(", ")),
    };
    complain(&format!(
        "egress-agent: no events of {} were found; {help}",
        inner(connector)
    ));
    Ok(None)
}

/// Runs a command once with nothing declared, and proposes a policy for it.
fn once(args: LearnArgs) -> Result<u8, String> {
    let connector = args
        .connector
        .clone()
        .unwrap_or_else(|| "learned".to_owned());
    if starting::connector(&connector).as_ref() != Some(&connector) {
        complain("egress-agent: a connector's name is 1 to 64 of a-z 0-9 - _ .");
        return Ok(exit::USAGE);
    }
    let folder = std::env::temp_dir().join("egress-agent-learn-XXXXXX");
    let folder =
        nix::unistd::mkdtemp(&folder).map_err(|error| format!("no folder can be made: {error}"))?;
    let [policy, events] = ["policy.yaml", "events.jsonl"].map(|name| folder.join(name));
    let done = std::fs::write(&policy, empty(&connector, "mode: audit\n"))
        .map_err(|error| error.to_string())
        .and_then(|()| {
            let code = run::run(run::RunArgs::once(
                &policy,
                &events,
                args.user.clone(),
                args.command,
            ));
            if code == exit::AGENT_FAILED {
                return Ok(code);
            }
            let Some(read) = self::events(std::slice::from_ref(&events), &connector, None)? else {
                return Ok(exit::AGENT_FAILED);
            };
            let made_in = args
                .source
                .policies
                .clone()
                .map_or_else(policies::made_in, Ok)?;
            let declared = Declared {
                file: args
                    .source
                    .policy
                    .clone()
                    .unwrap_or_else(|| made_in.join(format!("{connector}.yaml"))),
                text: String::new(),
                policy: None,
            };
            show(
                args.apply,
                args.output,
                &connector,
                &read.observed,
                &declared,
            )
        });
    std::fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    done
}

fn empty(connector: &str, mode: &str) -> String {
    format!("version: 1\nconnector: {connector}\n{mode}")
}

fn show(
    apply: bool,
    output: Output,
    connector: &str,
    observed: &Observed,
    declared: &Declared,
) -> Result<u8, String> {
    let proposal = propose(observed, declared.policy.as_ref());
    let before = match &declared.policy {
        Some(_) => declared.text.clone(),
        None => empty(connector, ""),
    };
    let entries = entries(&proposal, observed);
    let remarks = remarks(&proposal, observed, &before);
    let new = match entries.is_empty() && remarks.is_empty() {
        true => before.clone(),
        false => insert(&before, &entries, &remarks)
            .map_err(|unfit| format!("{}: {unfit}", declared.file.display()))?,
    };
    let changed = new != declared.text;
    let path = declared.file.display().to_string();
    let diff = TextDiff::from_lines(declared.text.as_str(), new.as_str())
        .unified_diff()
        .header(&path, &path)
        .to_string();
    let mut written = false;
    if apply && changed {
        write(declared, &new)?;
        written = true;
    }
    match output {
        Output::Text => print(&text(&proposal, observed, &diff, written, &path)),
        Output::Json => print(&json(&report(
            connector, &path, &proposal, observed, &diff, written,
        ))),
    }
    Ok(if changed && !written { exit::FAULTS } else { 0 })
}

/// Puts the new text in the place of the policy: as its owner, and only while it is what was read.
fn write(declared: &Declared, new: &str) -> Result<(), String> {
    let told = |error: io::Error| format!("{}: {error}", declared.file.display());
    if declared.policy.is_none() {
        return match create(&declared.file, new).map_err(told)? {
            true => Ok(()),
            false => Err(format!(
                "{} is there already; name it with --policy",
                declared.file.display()
            )),
        };
    }
    let held = Held::open(&declared.file).map_err(told)?;
    if held.text().map_err(told)? != declared.text {
        return Err(told(io::Error::other(
            "it was changed meanwhile; try again",
        )));
    }
    let uid = held.way().owner();
    let owner: User = user::resolve(&uid.to_string()).map_err(|error| error.to_string())?;
    as_owner(&owner, || held.replace(new)).map_err(told)
}

fn text(proposal: &Proposal, observed: &Observed, diff: &str, written: bool, path: &str) -> String {
    let mut text = diff.to_owned();
    let said = |text: &mut String, what: &str, list: &[(String, Seen)]| {
        if !list.is_empty() {
            *text += &format!("{what}:\n");
        }
        for (thing, how) in list.iter().take(50) {
            *text += &format!("  {}: {}\n", inner(thing), seen(how, observed));
        }
        if list.len() > 50 {
            *text += &format!("  and {} more (-o json has them)\n", list.len() - 50);
        }
    };
    said(
        &mut text,
        "asked for by name, and nothing followed",
        &proposal.asked,
    );
    said(&mut text, "no rule permits", &proposal.never);
    for ((host, port, what), requests) in &observed.requests {
        if !requests.reasons.is_empty() {
            let reasons: Vec<String> = requests
                .reasons
                .iter()
                .map(|(why, times)| format!("{} {times}", inner(why)))
                .collect();
            text += &format!(
                "{}:{port}: {}: {}\n",
                inner(host),
                inner(what),
                reasons.join(", ")
            );
        }
    }
    if observed.unseen > 0 || observed.beyond > 0 {
        text += &format!(
            "{} refusals have no line of their own: repeats, or more than the events hold\n",
            observed.unseen.saturating_add(observed.beyond)
        );
    }
    let runs = counted(observed.runs.len(), "run");
    let rules = counted(proposal.rules.len(), "rule");
    text += &match (written, proposal.rules.is_empty() && diff.is_empty()) {
        (true, _) => format!("{rules} from {runs} written to {}\n", inner(path)),
        (false, true) => format!("nothing to add after {runs}\n"),
        (false, false) => format!("{rules} to add after {runs}; --apply writes them\n"),
    };
    text
}
