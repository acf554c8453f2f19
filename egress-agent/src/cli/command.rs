//! What can be said on the command line, and who does it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{
    check, control, daemon, diff, doctor, events, exec, explain, learn, pin, run, scan, shape,
    thaw, wrap,
};
use crate::{
    envelope, exit, forward,
    host::{inherited::with_stack, temporary},
    launch,
};

/// Confines AI connectors (MCP servers) to the destinations their policy declares.
///
/// Each connector runs in a cgroup of its own. eBPF programs at that cgroup refuse every
/// outbound connection and datagram that no rule of its YAML policy permits, and report each
/// refusal. The connector needs no change, no proxy settings and no container.
#[derive(Debug, Parser)]
#[command(name = "egress-agent", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // Its own words, so that `--help` shows all of them; so have others without any here.
    Run(run::RunArgs),
    Exec(exec::ExecArgs),
    Daemon(daemon::DaemonArgs),
    Ps(control::PsArgs),
    Status(control::StatusArgs),
    Stop(control::StopArgs),
    Reload(control::ReloadArgs),
    /// Show the denials of every connector, from any terminal
    Events(events::EventsArgs),
    Doctor(doctor::DoctorArgs),
    /// Validate policies; show every fault with its place and what to write instead
    Check(check::CheckArgs),
    /// Say whether a connector may reach a destination, by which rule, through which layer
    Explain(explain::ExplainArgs),
    Scan(scan::ScanArgs),
    Shape(shape::ShapeArgs),
    Thaw(thaw::ThawArgs),
    Wrap(wrap::WrapArgs),
    Unwrap(wrap::UnwrapArgs),
    Learn(learn::LearnArgs),
    Diff(diff::DiffArgs),
    Pin(pin::PinArgs),
    /// Become a connector; for the agent itself
    #[command(name = launch::LAUNCHER, hide = true)]
    Launch {
        /// Descriptor of the pipe with commands
        commands: i32,
        /// Descriptor of the socket for answers
        answers: i32,
        /// Descriptor of the pipe of the init
        status: i32,
        /// Descriptor of the pipe that hangs up with the caller, or 0
        lifeline: i32,
        /// Descriptor of the caller's own pipe of the init, or 0
        copy: i32,
    },
    /// Keep a user namespace; for the agent itself
    #[command(name = temporary::KEEPER, hide = true)]
    Ids,
    /// Become a forwarder to a proxy; for the agent itself
    #[command(name = forward::FORWARDER, hide = true)]
    Forward {
        /// Descriptor of the pipe with orders
        commands: i32,
        /// Descriptor of the pipe for answers
        answers: i32,
    },
    /// Become the envelope proxy; for the agent itself
    #[command(name = envelope::ENVELOPE, hide = true)]
    Envelope {
        /// Descriptor of the pipe with orders
        commands: i32,
        /// Descriptor of the pipe for answers
        answers: i32,
    },
    /// Try what the security modules should refuse; for the agent itself
    #[command(name = launch::CANARY, hide = true)]
    Canary {
        /// File by which to join the cgroup
        cgroup_procs: std::path::PathBuf,
    },
}

/// Understands the command line and does what it says.
pub fn main() -> ExitCode {
    let said = match with_stack(Cli::parse) {
        Ok(said) => said,
        Err(unfit) => return ExitCode::from(fail(unfit)),
    };
    let code = match said.command {
        Command::Run(args) => run::run(args),
        Command::Exec(args) => exec::run(args),
        Command::Daemon(args) => daemon::run(&args),
        Command::Ps(args) => control::ps(&args),
        Command::Status(args) => control::status(&args),
        Command::Stop(args) => control::stop(&args),
        Command::Reload(args) => control::reload(&args),
        Command::Events(args) => {
            events::run(&args).unwrap_or_else(|error| fail(format!("{error:#}")))
        }
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Scan(args) => scan::run(&args),
        Command::Shape(args) => shape::run(&args),
        Command::Thaw(args) => thaw::run(&args),
        Command::Wrap(args) => wrap::wrap(&args),
        Command::Unwrap(args) => wrap::unwrap(&args),
        Command::Learn(args) => learn::run(args),
        Command::Diff(args) => diff::run(&args),
        Command::Pin(args) => pin::run(&args),
        Command::Launch {
            commands,
            answers,
            status,
            lifeline,
            copy,
        } => launch::child::run(launch::child::Numbers {
            commands,
            answers,
            status,
            lifeline,
            copy,
        }),
        Command::Ids => temporary::keep_ids().map_or_else(fail, |()| 0),
        Command::Forward { commands, answers } => forward::child::run(commands, answers),
        Command::Envelope { commands, answers } => envelope::child::run(commands, answers),
        Command::Canary { cgroup_procs } => launch::canary::run(&cgroup_procs),
    };
    ExitCode::from(code)
}

/// Prints a failure once, for people, on standard error.
pub(crate) fn fail(message: impl std::fmt::Display) -> u8 {
    crate::reload::say::to_caller(message);
    exit::AGENT_FAILED
}
