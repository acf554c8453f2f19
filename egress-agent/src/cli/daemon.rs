//! `egress-agent daemon`: one data plane for all connectors of this host.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Deserialize;

use super::fail;
use crate::{
    app,
    control::client::SOCKET,
    host::{inherited::Inherited, owned, user::group_number},
    policy::model::Starters,
};

/// Where its settings are.
const CONFIG: &str = "/etc/egress-agent/agent.yaml";
/// Where its policies are.
const POLICIES: &str = "/etc/egress-agent/policies.d";
/// Where it keeps its lock.
const STATE: &str = "/var/lib/egress-agent";
/// Everybody may connect: what each may do, policies say.
const MODE: u32 = 0o666;

/// Serve connectors to everybody whom their policies permit (needs root)
///
/// Connectors are started by `egress-agent exec`. They run on when the daemon ends: confined, with
/// their standard input and output, but without names until they are started again.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the policies [default: /etc/egress-agent/policies.d]
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Folder of its state [default: /var/lib/egress-agent]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Control socket [default: /run/egress-agent/control.sock]
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
}

/// The file of settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    policies: Option<PathBuf>,
    state: Option<PathBuf>,
    socket: Socket,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Socket {
    path: Option<PathBuf>,
    group: Option<String>,
    mode: Option<String>,
}

/// Runs the daemon. Answers the exit code.
pub fn run(args: &DaemonArgs) -> u8 {
    match serve(args) {
        Ok(code) => code,
        Err(message) => fail(message),
    }
}

fn serve(args: &DaemonArgs) -> Result<u8, String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("the daemon needs root; `egress-agent exec` does not".to_owned());
    }
    Inherited::lay_down().map_err(|unfit| unfit.to_string())?;
    let settings = settings(args.config.as_deref())?;
    let state = args.state.clone().or(settings.state);
    let state = state.unwrap_or_else(|| PathBuf::from(STATE));
    let socket = args.socket.clone().or(settings.socket.path);
    let socket = socket.unwrap_or_else(|| PathBuf::from(SOCKET));
    let _one_at_a_time = lock(&state, &socket)?;
    let group = settings.socket.group.as_deref();
    let config =
        app::Config {
            policies: args
                .policies
                .clone()
                .or(settings.policies)
                .unwrap_or_else(|| PathBuf::from(POLICIES)),
            group: match group {
                Some(name) => Some(group_number(name).ok_or_else(|| {
                    format!("socket.group: there is no group “{name}” on this host")
                })?),
                None => group_number(Starters::GROUP),
            },
            mode: mode(settings.socket.mode.as_deref())?,
            socket,
        };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let code = runtime
        .block_on(app::daemon(config))
        .map_err(|error| error.to_string());
    // Threads of instances end with the process; what they are for goes on.
    runtime.shutdown_background();
    code
}

fn settings(path: Option<&Path>) -> Result<Settings, String> {
    let file = path.unwrap_or_else(|| Path::new(CONFIG));
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && path.is_none() => {
            return Ok(Settings::default());
        }
        Err(error) => return Err(format!("cannot read {}: {error}", file.display())),
    };
    if text.trim().is_empty() {
        return Ok(Settings::default());
    }
    serde_yaml::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn mode(text: Option<&str>) -> Result<u32, String> {
    let Some(text) = text else {
        return Ok(MODE);
    };
    let number = u32::from_str_radix(text, 8).ok();
    number
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("socket.mode: “{text}” is no mode; write it as \"0660\""))
}

/// One daemon for each folder of state, and the folders that it needs.
fn lock(state: &Path, socket: &Path) -> Result<nix::fcntl::Flock<fs::File>, String> {
    let failed = |what: &Path, error: std::io::Error| format!("{}: {error}", what.display());
    for folder in [Some(state), socket.parent()].into_iter().flatten() {
        let (Some(above), Some(name)) = (folder.parent(), folder.file_name()) else {
            return Err(format!("{} is no folder of the daemon's", folder.display()));
        };
        let name = name.to_string_lossy();
        owned::folder(above, &name, 0o755).map_err(|error| failed(folder, error))?;
    }
    let path = state.join("daemon.lock");
    let file = fs::File::create(&path).map_err(|error| failed(&path, error))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|_| {
        format!(
            "a daemon runs already with its state in {}",
            state.display()
        )
    })
}
