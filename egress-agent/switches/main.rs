//! The agent with switches that take one layer away: for tests alone, never shipped.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(fault) = egress_agent::host::switch::check() {
        eprintln!("egress-agent: {fault}");
        return ExitCode::from(egress_agent::exit::AGENT_FAILED);
    }
    egress_agent::cli::main()
}
