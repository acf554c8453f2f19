//! `ps`, `status`, `stop`, `reload`: what the daemon says and does for people and programs.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::fail;
use crate::{
    control::{
        Answer, Client, Request,
        client::{ClientError, SOCKET},
        protocol::{Overview, Row},
    },
    event::{
        Record, escape,
        sink::{
            terminal::use_color,
            text::{self, Color},
        },
    },
    host::user,
};

/// Form of a result on stdout.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Output {
    /// A table, for people.
    #[default]
    Text,
    /// For programs: one JSON document.
    Json,
}

/// Where the daemon is.
#[derive(Args, Clone, Debug)]
pub struct At {
    /// Control socket of the daemon
    #[arg(long, value_name = "FILE", default_value = SOCKET)]
    socket: PathBuf,
}

/// Show the connectors that run through the daemon: your own, or all as root
#[derive(Args, Clone, Debug)]
pub struct PsArgs {
    #[command(flatten)]
    at: At,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Show the daemon and the connectors that you may start, with what is wrong with their policies
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    at: At,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// End an instance by its name, or all of a connector's
#[derive(Args, Clone, Debug)]
pub struct StopArgs {
    #[command(flatten)]
    at: At,
    /// Name of an instance, as `ps` shows it, or of a connector
    name: String,
}

/// Read policies again and put them in force; a faulty one changes nothing
#[derive(Args, Clone, Debug)]
pub struct ReloadArgs {
    #[command(flatten)]
    at: At,
    /// Only that of this connector
    connector: Option<String>,
}

/// `egress-agent ps`.
pub fn ps(args: &PsArgs) -> u8 {
    match asked(&args.at, &Request::Ps) {
        Ok(Answer::Instances(rows)) if args.output == Output::Json => json(&rows),
        Ok(Answer::Instances(rows)) => print(&instances(&rows)),
        other => odd(other),
    }
}

/// `egress-agent status`. Exit code 1 where a policy is faulty.
pub fn status(args: &StatusArgs) -> u8 {
    match asked(&args.at, &Request::Status) {
        Ok(Answer::Status(overview)) => {
            let shown = match args.output {
                Output::Json => json(&overview),
                Output::Text => print(&connectors(&overview)),
            };
            let faulty = overview.connectors.iter().any(|it| it.fault.is_some());
            shown.max(u8::from(faulty || !overview.faults.is_empty()))
        }
        other => odd(other),
    }
}

/// `egress-agent stop`.
pub fn stop(args: &StopArgs) -> u8 {
    done(asked(&args.at, &Request::Stop(args.name.clone())))
}

/// `egress-agent reload`.
pub fn reload(args: &ReloadArgs) -> u8 {
    done(asked(&args.at, &Request::Reload(args.connector.clone())))
}

/// `egress-agent events` of the daemon: for whoever cannot read the files.
pub fn events(socket: &Path, (last, follow, as_json): (usize, bool, bool), wants: &[String]) -> u8 {
    let shown = (|| {
        let mut client = Client::connect(socket)?;
        client.ask(&Request::Events { last, follow }, &[])?;
        let color = use_color(Color::Auto, io::stdout().is_terminal());
        loop {
            let line = match client.hear()? {
                Answer::Event(line) => line,
                Answer::Missed(count) => {
                    fail(format!("{count} events came faster than they were read"));
                    continue;
                }
                last => return Ok(last),
            };
            let record: Option<Record> = serde_json::from_str(&line).ok();
            let connector = record.as_ref().and_then(|record| record.body.connector());
            if !wants.is_empty() && !connector.is_some_and(|it| wants.iter().any(|name| name == it))
            {
                continue;
            }
            let text = match &record {
                Some(record) if !as_json => format!("{}\n", text::line(record, color)),
                _ => line,
            };
            let mut out = io::stdout().lock();
            if out
                .write_all(text.as_bytes())
                .and_then(|()| out.flush())
                .is_err()
            {
                return Ok(Answer::Done(String::new()));
            }
        }
    })();
    done(shown)
}

fn asked(at: &At, request: &Request) -> Result<Answer, ClientError> {
    let mut client = Client::connect(&at.socket)?;
    client.ask(request, &[])?;
    client.hear()
}

fn done(answer: Result<Answer, ClientError>) -> u8 {
    match answer {
        Ok(Answer::Done(line)) if line.is_empty() => 0,
        Ok(Answer::Done(line)) => print(&format!("{line}\n")),
        other => odd(other),
    }
}

fn odd(answer: Result<Answer, ClientError>) -> u8 {
    match answer {
        Ok(Answer::Failed { code, message }) => {
            fail(message);
            code
        }
        Ok(other) => fail(format!("the daemon answered something else: {other:?}")),
        Err(error) => fail(error),
    }
}

fn instances(rows: &[Row]) -> String {
    let mut lines = vec![
        [
            "INSTANCE",
            "CONNECTOR",
            "USER",
            "PID",
            "AGE",
            "STATE",
            "MODE",
        ]
        .map(str::to_owned),
    ];
    lines.extend(rows.iter().map(|row| {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            escape::field(&row.instance),
            escape::field(&row.connector),
            or_none(row.caller.or(row.uid).map(user::shown)),
            or_none(row.pid.map(|pid| pid.to_string())),
            or_none(row.age.map(age)),
            row.state.clone(),
            or_none(row.mode.clone()),
        ]
    }));
    table(&lines)
}

fn connectors(overview: &Overview) -> String {
    let mut text = format!(
        "egress-agent {}, process {}, for {}\n\n",
        overview.version,
        overview.pid,
        age(overview.age)
    );
    let mut lines = vec![["CONNECTOR", "MODE", "RULES", "RUNNING", "POLICY"].map(str::to_owned)];
    lines.extend(overview.connectors.iter().map(|it| {
        [
            escape::field(&it.connector),
            it.mode.clone(),
            it.rules.to_string(),
            it.instances.to_string(),
            escape::field(&it.policy),
        ]
    }));
    text.push_str(&table(&lines));
    let faults = overview.connectors.iter().filter_map(|it| {
        let fault = it.fault.as_ref()?;
        Some(format!(
            "{}: the policy before stays in force: {fault}",
            it.connector
        ))
    });
    for fault in faults.chain(overview.faults.iter().cloned()) {
        text.push_str(&format!("\nfault: {}\n", plain(&fault)));
    }
    text
}

/// Without what moves a terminal's cursor.
fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let mut text = String::new();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    for line in lines {
        let cells = line.iter().enumerate();
        let cells: Vec<String> = cells
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn json(value: &impl Serialize) -> u8 {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => fail(error),
    }
}

fn print(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => fail(error),
    }
}
