//! `egress-agent pin`: the hashes of what a connector executes.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use super::{
    check::{Output, complain, json, print},
    fail, policies,
};
use crate::{
    event::escape::inner,
    exit,
    host::{tree, user},
    launch::pinned::{lists, odd_command},
    policy::{load_file, model::Pin},
    wrap::write::{Held, as_owner, create},
};

/// Compute the hashes of what a connector executes, after a review
///
/// Hashes files and folders (path, mode, link and bytes) and shows the `pin` block of the policy with them.
/// At each start the agent computes them again before the connector runs: where one differs, nothing is
/// started, and the files that differ are listed. What is pinned has to be where root alone writes.
///
/// Without paths those of the policy's `pin` are computed anew, or, where it has none, the program of its
/// run.command and the folders of the files among its words.
///
/// Exit status: 0 the policy's hashes are these, or it has none; 1 some differ, or something cannot be pinned;
/// 2 the command line was not understood or there is no such policy; 125 the agent failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sudo egress-agent pin reports\n  \
    sudo egress-agent pin reports /usr/bin/node /opt/reports-mcp --write-list\n\n\
    docs/pin.md says what is hashed and what else a pin closes.")]
pub struct PinArgs {
    /// Name of the connector, or its policy file
    connector: String,
    /// Files and folders to pin; absolute, without links
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Keep the list of what was hashed beside the policy, so that a refusal can say what differs
    #[arg(long)]
    write_list: bool,
    /// Folder in which the policy is looked for by the connector's name
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    policy: String,
    ok: bool,
    pins: Vec<PinReport>,
}

#[derive(Serialize)]
struct PinReport {
    path: String,
    hash: Option<String>,
    declared: Option<String>,
    entries: usize,
    fault: Option<String>,
}

/// Computes. Answers the exit code.
pub fn run(args: &PinArgs) -> u8 {
    computed(args).unwrap_or_else(fail)
}

fn computed(args: &PinArgs) -> Result<u8, String> {
    let file = match args.connector.contains('/') {
        true => Some(PathBuf::from(&args.connector)),
        false => policies::find(&args.connector, args.policies.as_deref())?
            .map(|loaded| loaded.policy.source),
    };
    let Some(file) = file else {
        complain(&format!(
            "egress-agent: {} has no policy; make one first",
            inner(&args.connector)
        ));
        return Ok(exit::USAGE);
    };
    let policy = load_file(&file).map_err(|faults| faults.to_string())?;
    let command = policy
        .run
        .as_ref()
        .map(|run| run.command.clone())
        .unwrap_or_default();
    let mut paths = args.paths.clone();
    if paths.is_empty() {
        paths = policy.pin.iter().map(|pin| pin.path.clone()).collect();
    }
    if paths.is_empty() {
        paths = of_command(&command);
    }
    if paths.is_empty() {
        complain("egress-agent: the policy has no run.command; name paths to pin");
        return Ok(exit::USAGE);
    }
    let mut pins = Vec::new();
    let mut kept = Vec::new();
    for path in &paths {
        let found = tree::hash(path, &paths);
        let declared = policy.pin.iter().find(|pin| pin.path == *path);
        pins.push(PinReport {
            path: path.display().to_string(),
            hash: found
                .as_ref()
                .ok()
                .map(|tree| format!("sha256:{}", tree.hash)),
            declared: declared.map(|pin| format!("sha256:{}", pin.hash)),
            entries: found.as_ref().map_or(0, |tree| tree.list.lines().count()),
            fault: found.as_ref().err().map(ToString::to_string),
        });
        kept.extend(
            found
                .ok()
                .map(|tree| (path.display().to_string(), tree.list)),
        );
    }
    let whole: Vec<Pin> = paths
        .iter()
        .map(|path| Pin {
            path: path.clone(),
            hash: String::new(),
        })
        .collect();
    let odd = odd_command(&command, &whole);
    let differs = |pin: &PinReport| pin.declared.is_some() && pin.declared != pin.hash;
    let ok = odd.is_none() && pins.iter().all(|pin| pin.fault.is_none() && !differs(pin));
    if args.write_list {
        let text = serde_json::to_string(&kept).map_err(|error| error.to_string())?;
        write(&lists(&file), &text)
            .map_err(|error| format!("{}: {error}", lists(&file).display()))?;
    }
    match args.output {
        Output::Text => print(&text(&pins)),
        Output::Json => print(&json(&Report {
            schema: "egress-agent/pin/v1",
            policy: file.display().to_string(),
            ok,
            pins,
        })),
    }
    if let Some(why) = odd {
        complain(&format!(
            "egress-agent: with these pins nothing is started: {}",
            inner(&why)
        ));
    }
    Ok(if ok { 0 } else { exit::FAULTS })
}

/// The program, and the folders of the files among its words.
fn of_command(command: &[String]) -> Vec<PathBuf> {
    let Some((program, words)) = command.split_first() else {
        return Vec::new();
    };
    let mut paths = vec![PathBuf::from(program)];
    for word in words {
        let path = Path::new(word);
        if path.is_absolute()
            && path.is_file()
            && let Some(folder) = path.parent()
            && !paths.iter().any(|known| folder.starts_with(known))
        {
            paths.push(folder.to_owned());
        }
    }
    paths
}

fn text(pins: &[PinReport]) -> String {
    let mut text = "pin:\n".to_owned();
    for pin in pins {
        let path = serde_json::Value::from(pin.path.as_str());
        text += &match (&pin.hash, &pin.declared) {
            (Some(hash), Some(declared)) if declared != hash => {
                format!("  {path}: {hash} # was {declared}\n")
            }
            (Some(hash), _) => format!("  {path}: {hash}\n"),
            (None, _) => format!("  # {}\n", inner(pin.fault.as_deref().unwrap_or_default())),
        };
    }
    text
}

/// Puts the lists beside the policy.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if create(path, text)? {
        return Ok(());
    }
    let held = Held::open(path)?;
    let owner = user::resolve(&held.way().owner().to_string()).map_err(io::Error::other)?;
    as_owner(&owner, || held.replace(text))
}
