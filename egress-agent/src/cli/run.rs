//! `egress-agent run`: one connector in the foreground.

use std::{ffi::OsString, io::IsTerminal as _, path::PathBuf};

use clap::Args;

use super::fail;
use crate::{
    app,
    event::sink::{terminal::use_color, text::Color},
    host::{User, calling_user, inherited::Inherited, trust::Changeable, user},
    policy::{
        Loaded, judged, load,
        model::{Mode, Policy},
        proxy::{self, Choice},
        session::Session,
    },
};

/// Where policies are looked for by connector name.
pub const POLICIES: &str = "/etc/egress-agent/policies";

/// Start one connector, confined, in the foreground (needs root)
///
/// Standard input and output belong to the connector. Denials and a closing summary go to
/// standard error, and as JSON Lines to /run/egress-agent/events/.
///
/// The connector runs in a cgroup below /egress-agent. In a systemd unit with `Delegate=yes` it
/// runs below the unit's cgroup instead: limits of the unit hold for it, too.
///
/// Exit status: the connector's own; 128 and the signal that ended it; 125 where the agent
/// failed (the connector was then not started); 126 where the program cannot be executed;
/// 127 where it does not exist.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sudo egress-agent run --policy policies/postmark.yaml -- \
    node /opt/postmark-mcp/index.js"
)]
pub struct RunArgs {
    /// Name of the connector, whose policy is `CONNECTOR.yaml` in /etc/egress-agent/policies
    #[arg(required_unless_present = "policy", conflicts_with = "policy")]
    connector: Option<String>,
    /// Policy file
    #[arg(long, short, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Run the connector as this user: NAME, UID, NAME:GROUP or UID:GID
    ///
    /// Default: the policy's `run.user`, otherwise the user who called sudo. The connector
    /// never runs as root unless the policy or this option says root.
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// Report what would be refused, but refuse nothing
    #[arg(long)]
    audit: bool,
    /// Start although a permitted host name has no address now, even if the policy is strict
    ///
    /// Where a policy says `start: strict`, an exact host name that does not resolve ends the
    /// start with status 125; otherwise a line says so, and it is asked for again.
    #[arg(long)]
    start_unresolved: bool,
    /// Apply changes of the policy file while the connector runs
    ///
    /// Without this option the file is read again on SIGHUP only.
    #[arg(long)]
    watch: bool,
    /// Show no denials and no summary on standard error
    #[arg(long, short)]
    quiet: bool,
    /// Write events to this file, too (JSON Lines, appended)
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Program and arguments; default: the policy's `run.command`
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl RunArgs {
    /// One run in audit mode, with its events in a file.
    pub(super) fn once(
        policy: &std::path::Path,
        events: &std::path::Path,
        user: Option<String>,
        command: Vec<OsString>,
    ) -> Self {
        Self {
            connector: None,
            policy: Some(policy.to_owned()),
            user,
            audit: true,
            start_unresolved: false,
            watch: false,
            quiet: true,
            events: Some(events.to_owned()),
            command,
        }
    }
}

/// Runs the connector. Answers the exit code.
pub fn run(args: RunArgs) -> u8 {
    let run = match prepare(args) {
        Ok(run) => run,
        Err(message) => return fail(message),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(format!("cannot start: {error}")),
    };
    match runtime.block_on(app::run(run)) {
        Ok(code) => code,
        Err(error) => {
            fail(&error);
            error.code()
        }
    }
}

fn prepare(args: RunArgs) -> Result<app::Run, String> {
    let inherited = Inherited::lay_down().map_err(|unfit| unfit.to_string())?;
    let mut loaded = policy(&args)?;
    if args.audit {
        loaded.policy.mode = Mode::Audit;
    }
    proxied(&mut loaded.policy)?;
    let user = whom(args.user.as_deref(), &loaded.policy)?;
    let changeable = changeable(&loaded, &user)?;
    let session = Session::of(&user, |name| std::env::var_os(name));
    let unsettled = session.settle(&mut loaded.policy);
    let policy = loaded.policy;
    let command = if args.command.is_empty() {
        let run = policy.run.as_ref();
        run.map(|run| run.command.iter().map(OsString::from).collect())
            .unwrap_or_default()
    } else {
        args.command
    };
    if command.is_empty() {
        return Err(format!(
            "nothing to start: give a command after --, or add run.command to {}",
            policy.source.display()
        ));
    }
    Ok(app::Run {
        policy,
        user,
        command,
        changeable,
        session,
        unsettled,
        inherited,
        cwd: None,
        search: None,
        caller_env: std::env::vars_os().collect(),
        events: args.events,
        start_unresolved: args.start_unresolved,
        audit: args.audit,
        watch: args.watch,
        quiet: args.quiet,
        color: use_color(Color::Auto, std::io::stderr().is_terminal()),
    })
}

/// Who is not root cannot ask for another user, and is told so later.
fn changeable(loaded: &Loaded, user: &User) -> Result<Option<Changeable>, String> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    load::changeable_by(loaded, user).map_err(|faults| faults.to_string())
}

fn policy(args: &RunArgs) -> Result<Loaded, String> {
    let loaded = match (&args.policy, &args.connector) {
        (Some(file), _) => load::load_traced(file),
        (None, Some(connector)) => load::find(std::path::Path::new(POLICIES), connector),
        (None, None) => return Err("name a connector or give --policy FILE".to_owned()),
    };
    loaded.map_err(|faults| format!("the policy has faults; nothing was started\n{faults}"))
}

/// Where the policy says nothing of a proxy, that of the caller's environment counts.
fn proxied(policy: &mut Policy) -> Result<(), String> {
    if policy.proxy == Choice::Caller {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let value = |name: &str| {
            let variable = variables.iter().find(|(other, _)| other == name);
            variable.map(|(_, value)| value.as_str())
        };
        policy.proxy = match proxy::of_caller(value) {
            None => Choice::Off,
            Some(Ok(proxy)) => Choice::Through(Box::new(proxy)),
            Some(Err(complaint)) => {
                return Err(format!(
                    "the proxy of the environment (HTTPS_PROXY) cannot be used: {complaint}; or \
                     write “proxy: off” into the policy"
                ));
            }
        };
    }
    match judged::unfit(policy).or_else(|| proxy::way_round(policy, &[])) {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// Root only where somebody wrote root.
fn whom(option: Option<&str>, policy: &Policy) -> Result<User, String> {
    let spec = option.or_else(|| policy.run.as_ref().and_then(|run| run.user.as_deref()));
    let user = match spec {
        Some(spec) => user::resolve(spec).map_err(|error| error.to_string())?,
        None => calling_user().map_err(|error| error.to_string())?,
    };
    if let Some(error) = user.unanswered {
        fail(format!(
            "the user database does not answer for {} ({error}): the connector runs with its \
             numbers, {}:{} and no other group, and without a name or a home",
            user.uid, user.uid, user.gid
        ));
    }
    if user.is_root() && spec.is_none() {
        return Err(
            "the connector would run as root; start the agent with sudo as an ordinary user, \
             or say whom to run as with --user NAME or `run: { user: NAME }` in the policy"
                .to_owned(),
        );
    }
    Ok(user)
}
