//! `egress-agent diff`: what is declared beside what was observed, or one record beside another.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use serde::Serialize;

use super::{
    check::{Output, complain, json, print},
    fail,
    learn::{SourceArgs, events},
    learned::{RuleReport, ThingReport, rule_report, things_report},
};
use crate::{
    event::escape::inner,
    exit,
    learn::{
        compare::{Between, Compared, records, with_policy},
        observed::Observed,
        propose::{Proposed, To},
        render::{counted, seen, why},
    },
    policy::load_file,
};

/// Compare a connector's policy with what it reached, or two records of it
///
/// Against the policy: rules that nothing used, what was wanted and is not declared, rules that permit more
/// than one destination.
///
/// With --before: against another record of the same connector, for example of the last version of its
/// package: names, addresses, sockets, operations, programs and rules that only one of them has.
///
/// Exit status: 0 nothing new was wanted, 1 something was, 2 the command line was not understood or there is
/// nothing to compare, 125 the agent failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo egress-agent diff github\n  \
    egress-agent diff github --events now.jsonl --policy github.yaml -o json\n  \
    egress-agent diff github --before v1.jsonl --events v2.jsonl")]
pub struct DiffArgs {
    /// Name of the connector
    connector: String,
    #[command(flatten)]
    source: SourceArgs,
    /// File of events of the record to compare with; may be given several times
    #[arg(long, value_name = "FILE", requires = "events")]
    before: Vec<PathBuf>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Compares. Answers the exit code.
pub fn run(args: &DiffArgs) -> u8 {
    compared(args).unwrap_or_else(fail)
}

fn compared(args: &DiffArgs) -> Result<u8, String> {
    let connector = &args.connector;
    let Some(after) = events(&args.source.events, connector, args.source.since)? else {
        return Ok(exit::USAGE);
    };
    let after = after.observed;
    if !args.before.is_empty() {
        let Some(before) = events(&args.before, connector, None)? else {
            return Ok(exit::USAGE);
        };
        let between = records(&before.observed, &after);
        match args.output {
            Output::Text => print(&between_text(&between)),
            Output::Json => print(&json(&BetweenReport {
                schema: "egress-agent/diff/v1",
                connector,
                between: &between.new,
                gone: &between.gone,
            })),
        }
        return Ok(if between.new.is_empty() {
            0
        } else {
            exit::FAULTS
        });
    }
    let Some(file) = args.source.declared(connector)? else {
        complain(&format!(
            "egress-agent: {} has no policy; name one with --policy, or another record with --before",
            inner(connector)
        ));
        return Ok(exit::USAGE);
    };
    let policy = load_file(&file).map_err(|faults| faults.to_string())?;
    let compared = with_policy(&after, &policy);
    match args.output {
        Output::Text => print(&text(&compared, &after)),
        Output::Json => print(&json(&report(
            connector,
            &file.display().to_string(),
            &compared,
            &after,
        ))),
    }
    Ok(if compared.has_news() { exit::FAULTS } else { 0 })
}

fn text(compared: &Compared, observed: &Observed) -> String {
    let mut text = String::new();
    let wishes = &compared.wishes;
    if compared.has_news() {
        text += "wanted, and not declared:\n";
    }
    let line = |rule: &Proposed, why: &str| {
        format!(
            "  {}{why}: {}\n",
            destination(rule),
            seen(&rule.seen, observed)
        )
    };
    for rule in &wishes.rules {
        text += &line(rule, "");
    }
    for (apart, rule) in &wishes.apart {
        text += &line(rule, &format!(" ({})", why(*apart)));
    }
    for (name, how) in &wishes.asked {
        text += &format!(
            "  {} (asked for by name alone): {}\n",
            inner(name),
            seen(how, observed)
        );
    }
    for (what, how) in &wishes.never {
        text += &format!(
            "  {} (no rule permits it): {}\n",
            inner(what),
            seen(how, observed)
        );
    }
    for (host, port, what, reasons) in &compared.requests {
        let reasons: Vec<String> = reasons
            .iter()
            .map(|(why, times)| format!("{} {times}", inner(why)))
            .collect();
        text += &format!(
            "  {} at {}:{port}: {}\n",
            inner(what),
            inner(host),
            reasons.join(", ")
        );
    }
    for (title, ids) in [
        ("declared, and never used", &compared.unused),
        (
            "declared for more than one destination; which were meant is in no event",
            &compared.wide,
        ),
    ] {
        if !ids.is_empty() {
            text += &format!("{title}:\n");
        }
        for id in ids {
            text += &format!("  {}\n", inner(id));
        }
    }
    let runs = counted(observed.runs.len(), "run");
    let ended = observed.runs.iter().filter(|run| run.ended).count();
    text + &format!("{runs}, {ended} with their closing account\n")
}

fn destination(rule: &Proposed) -> String {
    let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
    match &rule.to {
        To::Unix(path) => inner(path),
        To::Host(name) => format!("{name}:{}/{}", ports.join(","), rule.protocol),
        To::Address(ip) => format!("{ip} {}/{}", ports.join(","), rule.protocol),
    }
}

fn between_text(between: &Between) -> String {
    let mut text = String::new();
    for (sign, kinds) in [("+", &between.new), ("-", &between.gone)] {
        for (kind, things) in kinds {
            for thing in things {
                text += &format!("{sign} {kind}: {}\n", inner(thing));
            }
        }
    }
    if text.is_empty() {
        text += "the two records have the same in them\n";
    }
    text
}

#[derive(Serialize)]
struct BetweenReport<'a> {
    schema: &'static str,
    connector: &'a str,
    #[serde(rename = "new")]
    between: &'a BTreeMap<&'static str, std::collections::BTreeSet<String>>,
    gone: &'a BTreeMap<&'static str, std::collections::BTreeSet<String>>,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    connector: &'a str,
    policy: &'a str,
    runs: usize,
    ended: usize,
    unused: &'a [String],
    wide: &'a [String],
    wanted: Vec<RuleReport<'a>>,
    asked: Vec<ThingReport<'a>>,
    never: Vec<ThingReport<'a>>,
    requests: Vec<Refused<'a>>,
}

#[derive(Serialize)]
struct Refused<'a> {
    host: &'a str,
    port: u16,
    operation: &'a str,
    reasons: &'a BTreeMap<String, u64>,
}

fn report<'a>(
    connector: &'a str,
    policy: &'a str,
    compared: &'a Compared,
    observed: &Observed,
) -> Report<'a> {
    let wishes = &compared.wishes;
    let rules = wishes.rules.iter().map(|rule| rule_report(None, rule));
    let apart = wishes
        .apart
        .iter()
        .map(|(why, rule)| rule_report(Some(*why), rule));
    let requests = compared.requests.iter();
    Report {
        schema: "egress-agent/diff/v1",
        connector,
        policy,
        runs: observed.runs.len(),
        ended: observed.runs.iter().filter(|run| run.ended).count(),
        unused: &compared.unused,
        wide: &compared.wide,
        wanted: rules.chain(apart).collect(),
        asked: things_report(&wishes.asked),
        never: things_report(&wishes.never),
        requests: requests
            .map(|(host, port, operation, reasons)| Refused {
                host,
                port: *port,
                operation,
                reasons,
            })
            .collect(),
    }
}
