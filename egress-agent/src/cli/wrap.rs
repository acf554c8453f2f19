//! `egress-agent wrap` and `unwrap`: the agent in front of the servers of a client's configuration.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::Args;
use serde::Serialize;

use super::{
    check::{Output, complain, json, print},
    fail, policies,
    scan::configurations,
};
use crate::{
    event::escape::inner,
    exit,
    policy::model::Mode,
    scan::find::Config,
    wrap::job::{self, Done, FileDone, Names, Outcome, Wanted},
};

/// Put the agent in front of the servers of MCP clients
///
/// Puts `egress-agent exec NAME --` before a server's own command in the client's configuration
/// file. Where the command is a text beside its arguments, its token moves among them; everything
/// else is insertion: comments, order, indentation, line ends, links, mode and owner stay. `unwrap`
/// gives the same bytes back. The file is exchanged in one step, with the rights of its owner, and
/// only while it is what was read.
///
/// Makes a policy for each connector that has none: the ready one where the server's package has
/// one, otherwise one in mode audit, which refuses nothing and reports.
///
/// Servers that are reached by an address, run in a container or are started by sudo are left as they
/// are, and said.
///
/// Exit status: 0 where all servers that start a program have the agent in front, 1 where one was
/// left, 2 where the command line was not understood or a named file cannot be opened, 125 where the
/// agent failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    egress-agent wrap --config ~/.cursor/mcp.json --dry-run\n  \
    egress-agent wrap github --config .mcp.json\n  \
    sudo egress-agent wrap --all\n\n\
    docs/wrap.md says what is changed and how, and has the fields of the JSON form.")]
pub struct WrapArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Name of the connector, for one server [default: made from the server's name]
    #[arg(long, value_name = "NAME", requires = "servers")]
    name: Option<String>,
    /// Folder for policies [default: /etc/egress-agent/policies.d as root, otherwise
    /// ~/.config/egress-agent/policies]
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
}

/// Take the agent away again from in front of the servers of MCP clients
///
/// Undoes `wrap`: the file has the bytes that it had before. Where a client has written the file
/// anew since, what it says is as before, and its layout as the client likes it. Policies stay.
///
/// Exit status: 0 where no server has the agent in front any more, 1 where one was left, 2 and 125 as
/// for `wrap`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    egress-agent unwrap --config ~/.cursor/mcp.json --dry-run\n  \
    sudo egress-agent unwrap --all")]
pub struct UnwrapArgs {
    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Debug, Args)]
struct WhichArgs {
    /// Servers by their names in the file [default: every one of it]
    #[arg(value_name = "SERVER")]
    servers: Vec<String>,
    /// Change this file; may be given several times
    #[arg(long, short, value_name = "FILE", required_unless_present_any = ["servers", "all"])]
    config: Vec<PathBuf>,
    /// Every server of every configuration that `scan` finds
    #[arg(long, conflicts_with_all = ["servers", "config"])]
    all: bool,
    /// Change nothing; show the changes as a unified diff
    #[arg(long)]
    dry_run: bool,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Puts it in front. Answers the exit code.
pub fn wrap(args: &WrapArgs) -> u8 {
    let folder = match args.policies.clone().map_or_else(policies::made_in, Ok) {
        Ok(folder) => folder,
        Err(error) => return fail(error),
    };
    if let Some(name) = &args.name
        && (crate::wrap::starting::connector(name).as_ref() != Some(name)
            || args.which.servers.len() != 1)
    {
        complain("egress-agent: --name is for one server: 1 to 64 of a-z 0-9 - _ .");
        return exit::USAGE;
    }
    let wanted = Wanted {
        servers: &args.which.servers,
        name: args.name.as_deref(),
        policies: &folder,
        dry_run: args.which.dry_run,
    };
    let mut names = Names::new();
    all(&args.which, "wrap", |config| {
        job::wrap(config, &wanted, &mut names)
    })
}

/// Takes it away. Answers the exit code.
pub fn unwrap(args: &UnwrapArgs) -> u8 {
    let wanted = Wanted {
        servers: &args.which.servers,
        name: None,
        policies: std::path::Path::new(""),
        dry_run: args.which.dry_run,
    };
    all(&args.which, "unwrap", |config| job::unwrap(config, &wanted))
}

fn all(args: &WhichArgs, verb: &str, mut job: impl FnMut(&Config) -> FileDone) -> u8 {
    let configs = match configurations(&args.config) {
        Ok(configs) => configs,
        Err(code) => return code,
    };
    let done: Vec<(&Config, FileDone)> = configs
        .iter()
        .map(|config| (config, job(config)))
        // A client's file without servers is nobody's concern.
        .filter(|(_, done)| !done.servers.is_empty() || done.failed.is_some())
        .collect();
    let absent = args.servers.iter().filter(|&name| {
        let mut servers = done.iter().flat_map(|(_, done)| &done.servers);
        servers.all(|server| server.server != *name)
    });
    let absent: Vec<&String> = absent.collect();
    match args.output {
        Output::Text => print(&text(&done, args.dry_run)),
        Output::Json => print(&json(&report(&done, args.dry_run, verb))),
    }
    for name in &absent {
        let name = inner(name);
        complain(&format!(
            "egress-agent: no server {name} was found; `egress-agent scan` shows them"
        ));
    }
    let left = |server: &Done| matches!(server.outcome, Outcome::Left(_));
    let clean = absent.is_empty()
        && done
            .iter()
            .all(|(_, done)| done.failed.is_none() && !done.servers.iter().any(left));
    if clean { 0 } else { exit::FAULTS }
}

fn text(done: &[(&Config, FileDone)], dry_run: bool) -> String {
    let mut text = String::new();
    for (config, done) in done {
        let path = inner(&config.path.to_string_lossy());
        if dry_run {
            text += &shown(&done.diff);
        }
        for server in &done.servers {
            let name = inner(&server.server);
            let what = sentence(server, dry_run, done.failed.is_some());
            text += &format!("{path}: {name}: {what}\n");
        }
        if let Some(why) = &done.failed {
            text += &format!("{path}: left as it is: {}\n", inner(why));
        }
    }
    if done.is_empty() {
        text += "no configuration with servers was found\n";
    }
    text
}

/// A diff for a terminal has nothing in it that moves the cursor; one for a file is exact.
fn shown(diff: &str) -> String {
    if !io::stdout().is_terminal() {
        return diff.to_owned();
    }
    let line = |line: &str| {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let shown = inner(&line.replace('\t', "    ")).replace("\\\"", "\"");
        format!("{shown}\n")
    };
    diff.split_inclusive('\n').map(line).collect()
}

fn sentence(server: &Done, dry_run: bool, failed: bool) -> String {
    let would = if dry_run { "would be " } else { "" };
    match &server.outcome {
        Outcome::Wrapped | Outcome::Unwrapped(_) if failed => "not changed".to_owned(),
        Outcome::Wrapped => {
            let connector = server.connector.as_deref().unwrap_or_default();
            let mut text = format!("{would}wrapped as {connector}");
            if let Some(made) = &server.policy {
                let file = inner(&made.file.to_string_lossy());
                text += &match (made.kept, made.ready) {
                    (true, _) => format!("; its policy is there: {file}"),
                    (false, Some(ready)) => {
                        format!(
                            "; policy {file} from the ready {ready}, mode {}",
                            mode(made.mode)
                        )
                    }
                    (false, None) => format!("; policy {file}, mode {}", mode(made.mode)),
                };
            }
            text
        }
        Outcome::Unwrapped(true) => format!("{would}unwrapped"),
        Outcome::Unwrapped(false) => {
            format!("{would}unwrapped; the file was written anew since, and its layout stays")
        }
        Outcome::Already => "nothing to do".to_owned(),
        Outcome::Remote => "reached by its address; nothing here starts it".to_owned(),
        Outcome::Left(why) => format!("left: {}", inner(why)),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    schema: String,
    dry_run: bool,
    files: Vec<FileReport<'a>>,
}

#[derive(Serialize)]
struct FileReport<'a> {
    file: String,
    client: &'a str,
    user: Option<&'a str>,
    uid: u32,
    changed: bool,
    failed: Option<&'a str>,
    diff: Option<&'a str>,
    servers: Vec<ServerReport<'a>>,
}

#[derive(Serialize)]
struct ServerReport<'a> {
    name: &'a str,
    connector: Option<&'a str>,
    outcome: &'static str,
    exact: Option<bool>,
    why: Option<&'a str>,
    policy: Option<PolicyReport>,
}

#[derive(Serialize)]
struct PolicyReport {
    file: String,
    made: bool,
    ready: Option<&'static str>,
    mode: &'static str,
}

fn report<'a>(done: &'a [(&Config, FileDone)], dry_run: bool, verb: &str) -> Report<'a> {
    let files = done.iter().map(|(config, done)| FileReport {
        file: config.path.to_string_lossy().into_owned(),
        client: config.client.name,
        user: config.user.name.as_deref(),
        uid: config.user.uid,
        changed: !dry_run && done.failed.is_none() && !done.diff.is_empty(),
        failed: done.failed.as_deref(),
        diff: dry_run.then_some(done.diff.as_str()),
        servers: done.servers.iter().map(server_report).collect(),
    });
    Report {
        schema: format!("egress-agent/{verb}/v1"),
        dry_run,
        files: files.collect(),
    }
}

fn server_report(server: &Done) -> ServerReport<'_> {
    let mut report = ServerReport {
        name: &server.server,
        connector: server.connector.as_deref(),
        outcome: "wrapped",
        exact: None,
        why: None,
        policy: server.policy.as_ref().map(|made| PolicyReport {
            file: made.file.to_string_lossy().into_owned(),
            made: !made.kept,
            ready: made.ready,
            mode: mode(made.mode),
        }),
    };
    match &server.outcome {
        Outcome::Wrapped => {}
        Outcome::Unwrapped(exact) => {
            report.outcome = "unwrapped";
            report.exact = Some(*exact);
        }
        Outcome::Already => report.outcome = "already",
        Outcome::Remote => report.outcome = "remote",
        Outcome::Left(why) => {
            report.outcome = "left";
            report.why = Some(why);
        }
    }
    report
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    }
}
