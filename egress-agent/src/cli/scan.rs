//! `egress-agent scan`: what are the MCP clients of this host configured to start?

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, ValueEnum};

use super::{
    check::{POLICIES, complain, print},
    fail,
};
use crate::{
    event::escape::inner,
    exit,
    scan::{
        find::{self, Config},
        finding::Severity,
        guard::{self, Guard},
        judge::judge,
        report,
    },
};

/// Folder of policies that the daemon reads.
pub(super) const DAEMON: &str = "/etc/egress-agent/policies.d";
/// Folder of a user's own policies, below the home.
pub(super) const OWN: &str = ".config/egress-agent/policies";

/// Find what MCP clients are configured to start, and what is open there
///
/// Finds the configurations of known MCP clients: of all users as root, otherwise one's own and
/// those of the current folder. Reads them as their users, starts nothing, writes nothing, asks
/// no network. Secrets are named by their key and kind, and never printed.
///
/// A server is confined where its command is `egress-agent run` or `exec`, also behind sudo, env or a shell.
///
/// Exit status: 0 where nothing was found, 1 where there are findings, 2 where the command line
/// was not understood or a named file cannot be opened, 125 where the agent failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo egress-agent scan\n  \
    egress-agent scan --config .mcp.json --fail-on error\n  \
    egress-agent scan -o sarif > scan.sarif\n  \
    egress-agent scan -o json | jq -r '.servers[] | select(.confined | not) | .name'\n\n\
    docs/scan.md lists the findings, the clients and the fields of the JSON form.")]
pub struct ScanArgs {
    /// Look at this file alone; may be given several times
    #[arg(long, short, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
    /// Lowest severity that makes the exit status 1
    ///
    /// Findings below it are shown all the same.
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = Severity::Note)]
    fail_on: Severity,
    /// Folder in which policies are looked for by the connector's name
    ///
    /// Without it also /etc/egress-agent/policies.d and ~/.config/egress-agent/policies.
    #[arg(long, value_name = "DIR", default_value = POLICIES)]
    policies: PathBuf,
}

/// Form of the result on standard output.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// For people.
    Text,
    /// For programs: one JSON document.
    Json,
    /// For code hosts and editors: SARIF 2.1.0.
    Sarif,
}

/// Looks, and prints what was found. Answers the exit code.
pub fn run(args: &ScanArgs) -> u8 {
    let configs = match configurations(&args.config) {
        Ok(configs) => configs,
        Err(code) => return code,
    };
    let judged = judge(&configs, |agent, user| policy(agent, user, &args.policies));
    let text = match args.output {
        Form::Text => Ok(report::text(&configs, &judged)),
        Form::Json => report::json(&configs, &judged),
        Form::Sarif => report::sarif(&judged),
    };
    match text {
        Ok(text) => print(&text),
        Err(error) => return fail(format!("the result cannot be written: {error}")),
    }
    let failed = judged
        .findings
        .iter()
        .any(|finding| finding.severity >= args.fail_on);
    if failed { exit::FAULTS } else { 0 }
}

/// The named files, or those of this host. Fails with the exit code.
pub(super) fn configurations(named: &[PathBuf]) -> Result<Vec<Config>, u8> {
    if named.is_empty() {
        return find::on_host()
            .map_err(|error| fail(format!("the configurations cannot be looked for: {error}")));
    }
    let mut configs = Vec::new();
    for path in named {
        configs.push(find::named(path).map_err(|error| {
            let path = inner(&path.to_string_lossy());
            complain(&format!(
                "{path}: cannot be opened: {error}; name a configuration file"
            ));
            exit::USAGE
        })?);
    }
    Ok(configs)
}

fn policy(agent: &crate::scan::program::Agent, user: &crate::host::User, folder: &Path) -> Guard {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    });
    // What `run` reads, what the daemon reads, and what `wrap` writes for a user.
    let own = user.home.join(OWN);
    let folders = [folder, Path::new(DAEMON), &own];
    let known = if folder == Path::new(POLICIES) { 3 } else { 1 };
    guard::look(agent, user, folders.get(..known).unwrap_or_default(), now)
}
