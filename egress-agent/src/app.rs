//! The wiring of one confined run: every task and channel is made here.
//!
//! ```text
//! policy ── compile ──▶ kernel tables        (intent)
//! ring ─▶ stream ─▶ text, JSON Lines         (evidence)
//! door ─▶ names ─▶ keeper ─▶ kernel tables   (names)
//! ```

use std::{collections::HashMap, ffi::OsString, net::Ipv4Addr, path::PathBuf, sync::Arc};

use egress_common::{
    abi::{OWN_FOLDER, RULE_DOOR, RULE_FIRST, RULE_INBOUND, RULE_OWN},
    grant::Connector,
    key::Addr,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    dns::{self, Door, Names, NamesConfig},
    event::{
        model::{Body, Exit, NameUnresolved, Started, Warning},
        pump::{Pump, PumpConfig, PumpError},
    },
    exit,
    grant::Keeper,
    host::{User, clock, route},
    kernel::{
        Plane, Settings,
        instance::{Instance, InstanceError, clean_leftovers},
        maps::Maps,
        probe,
        unix::UnixError,
    },
    launch::{
        self, LaunchError, Spec, UnixSockets, env,
        scope::{self, Landlocked},
    },
    policy::{
        compile::{Tables, compile},
        model::{Mode, Policy, Target},
    },
};

/// The only connector of a `run` instance.
const CONNECTOR: u32 = 1;
/// Refusals of the door that may wait for the stream.
const REFUSALS: usize = 4096;

/// What one run needs to know.
pub struct Run {
    /// The policy.
    pub policy: Policy,
    /// Whom the connector runs as.
    pub user: User,
    /// Program and arguments; not empty.
    pub command: Vec<OsString>,
    /// The caller's environment.
    pub caller_env: Vec<(OsString, OsString)>,
    /// A further file for events.
    pub events: Option<PathBuf>,
    /// Start although a permitted name has no address now.
    pub start_unresolved: bool,
    /// Show nothing on standard error but errors.
    pub quiet: bool,
    /// Colours on standard error.
    pub color: bool,
}

/// Why a run failed; the connector was not started, or ended with the agent's help.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// This host cannot carry the data plane.
    #[error(transparent)]
    Host(#[from] probe::HostFault),
    /// The instance could not be made or ended.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// A cgroup could not be read.
    #[error(transparent)]
    Cgroup(#[from] crate::host::CgroupError),
    /// The data plane was refused.
    #[error(transparent)]
    Plane(#[from] crate::kernel::PlaneError),
    /// The policy does not fit the data plane.
    #[error("{0}")]
    Policy(#[from] crate::policy::Faults),
    /// The DNS door could not be opened.
    #[error("cannot open the DNS door on loopback: {0}")]
    Door(#[source] std::io::Error),
    /// No upstream resolver.
    #[error("cannot resolve names: {0}")]
    Names(#[from] dns::upstream::UpstreamError),
    /// Permitted names have no address.
    #[error(
        "a permitted name has no address, and nothing was started: {0}; mend the policy or \
         the resolver, or start nevertheless with --start-unresolved"
    )]
    Unresolved(String),
    /// A rule for a unix socket on a kernel that cannot judge those.
    #[error(
        "the rule for the unix socket {name} cannot be enforced: {error}; take the rule out, or use Linux 6.7 or newer"
    )]
    Unix {
        /// The rule's name or path.
        name: String,
        /// Why.
        error: String,
    },
    /// The launcher failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The stream of events could not be opened.
    #[error(transparent)]
    Stream(#[from] PumpError),
    /// Waiting for the connector or a signal failed.
    #[error("cannot wait for the connector: {0}")]
    Wait(#[source] std::io::Error),
}

impl RunError {
    /// The exit code for this failure.
    pub fn code(&self) -> u8 {
        match self {
            Self::Launch(LaunchError::Failed { code, .. }) => *code,
            _ => exit::AGENT_FAILED,
        }
    }
}

/// Runs a connector from beginning to end. Answers its exit code.
pub async fn run(run: Run) -> Result<u8, RunError> {
    probe::check_host()?;
    let cleaned = clean_leftovers()?;
    let instance = Instance::create(&run.policy.connector)?;
    let result = confined(&run, &instance, &cleaned).await;
    // Whatever happened inside, the end is the same; its own failure keeps the boundary.
    let ended = instance.kill().and_then(|()| instance.end());
    let code = result?;
    ended?;
    Ok(code)
}

/// Everything between the making and the ending of an instance.
async fn confined(run: &Run, instance: &Instance, cleaned: &[String]) -> Result<u8, RunError> {
    let policy = Arc::new(run.policy.clone());
    let tables = compile(&policy, CONNECTOR, RULE_FIRST)?;
    let settings = Settings {
        connector_level: instance.connector().level()?,
        connectors: 1,
        rules: RULE_FIRST.saturating_add(u32::try_from(tables.rules.len()).unwrap_or(u32::MAX)),
    };
    let mut plane = Plane::load(&settings, instance.pins().clone())?;
    let unix = unix_sockets(&policy, plane.unix())?;
    let door = Door::bind().map_err(RunError::Door)?;
    fill(&mut plane.maps, &tables, &door, policy.mode, &unix)?;
    plane
        .maps
        .set_cgroup(instance.connector().id()?, CONNECTOR)?;
    plane.attach(instance.parent().path())?;

    let (stop, stopped) = watch::channel(false);
    let (refusals, refused) = mpsc::channel(REFUSALS);
    let keeper = Arc::new(Keeper::new(
        Box::new(plane.maps.grants()),
        route::interface_to,
    ));
    let names = Arc::new(Names::new(NamesConfig {
        holder: dns::lease::Holder {
            connector: CONNECTOR,
            first_rule: RULE_FIRST,
        },
        policy: Arc::clone(&policy),
        keeper: Arc::clone(&keeper),
        now_ns: clock::boot_ns,
        refusals,
    })?);
    let ring = plane.take_ring()?;
    let stream = Pump::start(PumpConfig {
        connector: policy.connector.clone(),
        connector_id: CONNECTOR,
        instance: instance.name().to_owned(),
        rules: rule_names(&tables),
        keeper: Arc::clone(&keeper),
        door: Arc::clone(names.stats()),
        maps: plane.maps,
        ring,
        refusals: refused,
        extra: run.events.clone(),
        quiet: run.quiet,
        color: run.color,
    })?;
    for leftover in cleaned {
        stream.say(warning(
            run,
            instance,
            "leftovers",
            format!("ended {leftover}, which a dead agent had left"),
        ));
    }

    let serving = tokio::spawn(door.serve(Arc::clone(&names), stopped.clone()));
    let prefetched = dns::prefetch(&names).await;
    for unresolved in prefetched
        .iter()
        .filter_map(|name| unresolved(run, instance, name))
    {
        stream.say(unresolved);
    }
    if !run.start_unresolved && run.policy.mode == Mode::Enforce {
        all_resolved(&prefetched)?;
    }
    let sweeping = tokio::spawn(sweep(keeper, stopped.clone()));
    let refreshing = tokio::spawn(dns::refresh(names, prefetched, stopped));

    let outcome = launched(run, instance, unix, &stream, serving).await;

    instance.kill()?;
    let exit = outcome.as_ref().ok().map_or(
        Exit {
            code: Some(i32::from(exit::AGENT_FAILED)),
            signal: None,
        },
        |status| exit_of(*status),
    );
    let _tasks_gone = stop.send(true);
    refreshing.abort();
    sweeping.abort();
    stream.finish(exit).await?;
    Ok(exit::of_child(outcome?))
}

/// Starts the connector, forwards signals to it and waits for its end.
async fn launched(
    run: &Run,
    instance: &Instance,
    unix: UnixSockets,
    stream: &Pump,
    mut serving: JoinHandle<std::io::Result<()>>,
) -> Result<std::process::ExitStatus, RunError> {
    let mut signals = Signals::listen().map_err(RunError::Wait)?;
    let ready = launch::start(&spec(run, instance, unix)).await?;
    // The launcher's probe was refused and counted; the connector's account starts after it.
    stream.baseline().await?;
    let mut started = ready.go().await?;
    stream.say(Body::Started(Started {
        connector: run.policy.connector.clone(),
        instance: instance.name().to_owned(),
        mode: mode_name(run.policy.mode).to_owned(),
        policy: Some(run.policy.source.display().to_string()),
        rules: run.policy.allow.len() as u64,
        pid: Some(started.pid),
        uid: run.user.uid,
        command: run
            .command
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
    }));
    let mut door_open = true;
    loop {
        tokio::select! {
            status = started.child.wait() => return status.map_err(RunError::Wait),
            signal = signals.next() => forward(signal, started.pid),
            ended = &mut serving, if door_open => {
                door_open = false;
                let why = match ended {
                    Ok(Ok(())) => "it ended".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                stream.say(warning(run, instance, "dns", format!(
                    "the DNS door is gone ({why}): the connector resolves nothing more; restart it"
                )));
            }
        }
    }
}

/// Writes a policy into a data plane that is not attached yet.
fn fill(
    maps: &mut Maps,
    tables: &Tables,
    door: &Door,
    mode: Mode,
    unix: &UnixSockets,
) -> Result<(), crate::kernel::PlaneError> {
    for slot in [RULE_DOOR, RULE_OWN, RULE_INBOUND] {
        maps.set_rule(slot, 0, true)?;
    }
    for rule in &tables.rules {
        maps.set_rule(rule.slot, CONNECTOR, !rule.deny)?;
    }
    for (bits, key, rules) in &tables.prefixes {
        maps.set_prefix(*bits, key, rules)?;
    }
    for (key, grant) in &tables.unix {
        maps.set_unix(key, grant)?;
    }
    let v6 = door.addresses().iter().any(|address| address.is_ipv6());
    let v4_loopback = Addr::from_v4(u32::from(Ipv4Addr::LOCALHOST));
    let connector = Connector {
        door_v6: if v6 { Addr::from_v6(0, 1) } else { v4_loopback },
        door_v4: u32::from(Ipv4Addr::LOCALHOST),
        door_port: door.port(),
        mode: match mode {
            Mode::Enforce => Connector::ENFORCE,
            Mode::Audit => Connector::AUDIT,
        },
        unix: Connector::OWN_PATHS
            | if unix.landlock.abstracts {
                Connector::OWN_ABSTRACT
            } else {
                0
            },
        pad: 0,
    };
    maps.set_connector(CONNECTOR, &connector)
}

/// What the launcher is to do about unix sockets. Fails where rules name some that this
/// kernel cannot tell from others.
fn unix_sockets(policy: &Policy, hooks: Result<(), &UnixError>) -> Result<UnixSockets, RunError> {
    let names = policy.allow.iter().filter_map(|rule| match &rule.target {
        Target::Unix(name) => Some(name.as_str()),
        Target::Host(_) | Target::Cidr(_) => None,
    });
    let (abstracts, paths): (Vec<&str>, Vec<&str>) = names.partition(|name| name.starts_with('@'));
    let enforced = policy.mode == Mode::Enforce;
    if let (Err(error), true, Some(name)) =
        (hooks, enforced, paths.first().or_else(|| abstracts.first()))
    {
        return Err(RunError::Unix {
            name: (*name).to_owned(),
            error: error.to_string(),
        });
    }
    let offered = scope::supported();
    Ok(UnixSockets {
        sockets: hooks.is_ok() || !enforced,
        landlock: Landlocked {
            paths: enforced && offered.paths,
            // The scope knows no exceptions: with a foreign socket to reach, names decide.
            abstracts: enforced && offered.abstracts && abstracts.is_empty(),
        },
        paths: paths.into_iter().map(PathBuf::from).collect(),
    })
}

fn spec(run: &Run, instance: &Instance, unix: UnixSockets) -> Spec {
    let name = run
        .user
        .name
        .clone()
        .unwrap_or_else(|| run.user.uid.to_string());
    let own = OsString::from(OWN_FOLDER.trim_end_matches('/'));
    let identity = [
        ("HOME", run.user.home.clone().into_os_string()),
        ("USER", OsString::from(&name)),
        ("LOGNAME", OsString::from(&name)),
        ("SHELL", run.user.shell.clone().into_os_string()),
        // Where the connector's own unix sockets work.
        ("TMPDIR", own.clone()),
        ("XDG_RUNTIME_DIR", own),
    ];
    let block = run.policy.run.as_ref().and_then(|run| run.env.as_ref());
    Spec {
        cgroup_procs: instance.copy().path().join("cgroup.procs"),
        uid: run.user.uid,
        gid: run.user.gid,
        groups: run.user.groups.clone(),
        command: run.command.clone(),
        env: env::build(block, run.caller_env.iter().cloned(), &identity),
        enforced: run.policy.mode == Mode::Enforce,
        unix,
    }
}

/// Deletes ended grants now and then. The kernel refuses them by itself; this makes room.
async fn sweep(keeper: Arc<Keeper>, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(std::time::Duration::from_secs(10));
    loop {
        tokio::select! {
            _ = every.tick() => {
                // A failed deletion leaves an entry that the kernel already refuses.
                let _next_time = keeper.sweep(clock::boot_ns());
            }
            _ = stop.changed() => return,
        }
    }
}

/// Names of the rules, as events and the summary show them.
fn rule_names(tables: &Tables) -> HashMap<u32, String> {
    let mut names: HashMap<u32, String> = tables
        .rules
        .iter()
        .map(|rule| (rule.slot, rule.id.clone()))
        .collect();
    names.insert(RULE_DOOR, "dns-door".to_owned());
    names.insert(RULE_OWN, "own-listener".to_owned());
    names.insert(RULE_INBOUND, "loopback-caller".to_owned());
    names
}

/// A typing error in a name should be seen at the start, not at the first call.
fn all_resolved(prefetched: &[dns::Prefetched]) -> Result<(), RunError> {
    let faults = prefetched.iter().filter_map(|name| {
        let error = name.result.as_ref().err()?;
        Some(format!("{} ({error})", name.name))
    });
    let faults: Vec<String> = faults.collect();
    if faults.is_empty() {
        return Ok(());
    }
    Err(RunError::Unresolved(faults.join(", ")))
}

fn unresolved(run: &Run, instance: &Instance, name: &dns::Prefetched) -> Option<Body> {
    let error = name.result.as_ref().err()?;
    Some(Body::NameUnresolved(NameUnresolved {
        connector: run.policy.connector.clone(),
        instance: instance.name().to_owned(),
        name: name.name.to_string(),
        rule: run
            .policy
            .rules_for(&name.name)
            .next()
            .map(|(_, rule)| rule.id.clone()),
        message: error.to_string(),
    }))
}

fn warning(run: &Run, instance: &Instance, topic: &str, message: String) -> Body {
    Body::Warning(Warning {
        connector: Some(run.policy.connector.clone()),
        instance: instance.name().to_owned(),
        topic: topic.to_owned(),
        message,
    })
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    }
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    Exit {
        code: status.code(),
        signal: status.signal(),
    }
}

/// Signals that belong to the connector. It is in a session of its own, so the terminal's
/// signals reach the agent alone.
struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

const FORWARDED: &[Signal] = &[
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let listen = |&number: &Signal| {
            signal(SignalKind::from_raw(number as i32)).map(|stream| (number, stream))
        };
        FORWARDED
            .iter()
            .map(listen)
            .collect::<std::io::Result<_>>()
            .map(Self)
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (number, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*number);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

fn forward(signal: Signal, pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        // A connector that is gone is seen by the wait beside this.
        let _may_be_gone = kill(Pid::from_raw(pid), signal);
    }
}
