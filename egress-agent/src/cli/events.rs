//! `egress-agent events`: the denials of every connector, read from the files of all
//! instances.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IsTerminal, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};

use crate::{
    control::client::SOCKET,
    event::{
        Record, escape,
        sink::{
            folder::EVENTS,
            terminal::use_color,
            text::{self, Color},
        },
        tail::{Line, Tail},
    },
};

/// How often new lines are looked for.
const PAUSE: Duration = Duration::from_millis(50);
/// Lines shown before following.
const BEFORE_FOLLOWING: usize = 10;
/// Bytes written at once.
const CHUNK: usize = 64 << 10;

/// Show what was denied, of every connector.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EventsArgs {
    /// Keep showing new events, also of connectors that start later
    #[arg(short, long)]
    pub follow: bool,
    /// Only events of this connector; may be given several times
    #[arg(long, value_name = "NAME")]
    pub connector: Vec<String>,
    /// One readable line, or the JSON line as it was written
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Only events since a time (2026-03-04T05:06:07Z) or age (15m, 2h)
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// Only the last N events of those that are there [default: all, with --follow 10]
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
    /// Ask the daemon at this control socket, and not the files; who is not root always asks it
    #[arg(long, value_name = "FILE")]
    pub socket: Option<PathBuf>,
    /// Colour in the text form
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Color,
}

/// Form of the lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// JSON Lines, schema `egress-agent/event/v1`.
    Json,
}

/// Runs the command; answers the exit code. It ends well when the reader goes away.
pub fn run(args: &EventsArgs) -> anyhow::Result<u8> {
    if args.socket.is_some() || !nix::unistd::geteuid().is_root() {
        // The files are root's; the daemon shows everybody their own.
        anyhow::ensure!(
            args.since.is_none(),
            "--since reads the files, which needs root: the daemon keeps the last lines only"
        );
        let last = args.lines.unwrap_or(if args.follow {
            BEFORE_FOLLOWING
        } else {
            usize::MAX
        });
        let as_json = args.output == Output::Json;
        let socket = args.socket.as_deref().unwrap_or(Path::new(SOCKET));
        let wanted = (last, args.follow, as_json);
        return Ok(super::control::events(socket, wanted, &args.connector));
    }
    let color = use_color(args.color, io::stdout().is_terminal());
    show(
        args,
        Path::new(EVENTS),
        color,
        &mut io::stdout().lock(),
        &mut io::stderr(),
        || false,
    )
}

fn show(
    args: &EventsArgs,
    folder: &Path,
    color: bool,
    out: &mut impl Write,
    notes: &mut impl Write,
    mut stop: impl FnMut() -> bool,
) -> anyhow::Result<u8> {
    let mut tail = Tail::new(folder);
    if !tail.has_folder() {
        let rest = if args.follow { "; waiting" } else { "" };
        note(notes, &format!("no connector has run since boot{rest}"));
    }
    let mut printer = Printer {
        args,
        color,
        out,
        text: Vec::new(),
    };
    let mut result = printer.history(&mut tail);
    while let Ok(true) = result {
        let faults = tail.take_faults();
        if faults.damaged > 0 {
            let damaged = faults.damaged;
            note(
                notes,
                &format!("{damaged} lines could not be read and are left out"),
            );
        }
        if faults.overtaken > 0 {
            note(
                notes,
                "events came faster than they were read; some may be missing here",
            );
        }
        if !args.follow || stop() {
            break;
        }
        std::thread::sleep(PAUSE);
        result = printer.news(&mut tail);
    }
    result.context("events cannot be shown").map(|_| 0)
}

/// Notes are a courtesy; that nobody reads them is no reason to stop.
fn note(notes: &mut impl Write, text: &str) {
    writeln!(notes, "egress-agent: {text}").unwrap_or_default();
}

struct Printer<'a, W> {
    args: &'a EventsArgs,
    color: bool,
    out: &'a mut W,
    text: Vec<u8>,
}

impl<W: Write> Printer<'_, W> {
    /// What is there already. `false`: nobody reads any more.
    fn history(&mut self, tail: &mut Tail) -> anyhow::Result<bool> {
        let limit = match self.args.lines {
            Some(lines) => lines,
            None if self.args.follow => BEFORE_FOLLOWING,
            None => return self.news(tail),
        };
        let mut last = VecDeque::new();
        tail.read(|line| {
            if self.wants(&line) {
                last.push_back(line);
            }
            if last.len() > limit {
                last.pop_front();
            }
            ControlFlow::<()>::Continue(())
        })?;
        for line in &last {
            self.line(line);
        }
        readable(self.hand_over())
    }

    /// What is new. `false`: nobody reads any more.
    fn news(&mut self, tail: &mut Tail) -> anyhow::Result<bool> {
        let failed = tail.read(|line| {
            if self.wants(&line) {
                self.line(&line);
            }
            if self.text.len() < CHUNK {
                return ControlFlow::Continue(());
            }
            self.hand_over()
                .map_or_else(ControlFlow::Break, ControlFlow::Continue)
        })?;
        readable(match failed {
            Some(error) => Err(error),
            None => self.hand_over(),
        })
    }

    fn wants(&self, line: &Line) -> bool {
        let named = &self.args.connector;
        let connector = line.connector.as_ref();
        (named.is_empty() || connector.is_some_and(|name| named.contains(name)))
            && self.args.since.is_none_or(|since| line.time >= since)
    }

    fn line(&mut self, line: &Line) {
        match self.args.output {
            Output::Json => self.text.extend(line.json.as_bytes()),
            Output::Text => match serde_json::from_str::<Record>(&line.json) {
                Ok(record) => self.text.extend(text::line(&record, self.color).bytes()),
                Err(_) => self.text.extend(unknown(line).bytes()),
            },
        }
        self.text.push(b'\n');
    }

    fn hand_over(&mut self) -> io::Result<()> {
        self.out.write_all(&self.text)?;
        self.text.clear();
        self.out.flush()
    }
}

/// A line of a newer version.
fn unknown(line: &Line) -> String {
    format!(
        "{:.3}  {}  {}  (written by another version; see -o json)",
        line.time,
        escape::field(&line.kind),
        line.connector.as_deref().map_or("-".into(), escape::field)
    )
}

/// A reader that went away (`| head`) is no error.
fn readable(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output cannot be written"),
    }
}

pub(super) fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let age: SignedDuration = text.parse().map_err(|_| {
        "write a time such as 2026-03-04T05:06:07Z or an age such as 15m".to_owned()
    })?;
    Timestamp::now()
        .checked_sub(age.abs())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
