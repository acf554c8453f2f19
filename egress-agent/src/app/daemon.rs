//! The daemon: one data plane for every connector of this host.
//!
//! It holds what nobody else can: the policies, the names, the grants, the events. What must
//! outlive it, it does not hold: a connector's descriptors, and the pipes by which it ends with its
//! caller and its caller hears of its end, are the caller's.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{LocalSet, spawn_blocking},
};

use super::{RunError, exec::Refusal, policies::Policies, registry::Registry, serve};
use crate::{
    control::{Peer, server::Server},
    event::{
        account::Owner,
        model::Exit,
        pump::{Mail, Telling},
        sink::{Sink, hub::Hub, jsonl::Jsonl},
    },
    exit,
    host::notify::Supervisor,
    instance::{DataPlane, Place},
    kernel::{
        Settings,
        instance::{Home, Instance},
        leftovers::clean_leftovers,
        load::Sizes,
        probe,
    },
    reload::say,
};

use egress_common::abi::{MAX_CONNECTORS, MAX_GRANTS, MAX_RULES};

/// Exact grants of one connector, so that sixteen that take all they can leave room for others.
const SHARE: usize = MAX_GRANTS as usize / 16;
/// How often it is looked for instances of an earlier daemon that have ended.
const SWEEP: Duration = Duration::from_secs(10);

/// What the daemon is told before it begins.
pub struct Config {
    /// Folder of the policies.
    pub policies: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// The operators' group, whose members see everything.
    pub group: Option<u32>,
    /// Mode of the socket.
    pub mode: u32,
}

/// A daemon at work.
pub(super) struct Daemon {
    pub(super) config: Config,
    pub(super) plane: Arc<DataPlane>,
    pub(super) policies: Policies,
    pub(super) registry: Registry,
    pub(super) hub: Hub,
    pub(super) operators: Option<u32>,
    pub(super) since: Instant,
    home: Home,
    count: AtomicU64,
}

/// Runs until it is told to end. Connectors that run then go on.
pub async fn daemon(config: Config) -> Result<u8, RunError> {
    let mut end = signal(SignalKind::terminate()).map_err(RunError::Wait)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Wait)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(RunError::Wait)?;
    probe::check_host()?;
    let cleaned = clean_leftovers()?;
    let daemon = Arc::new(Daemon::begin(config)?);
    let own = daemon.account().await?;
    for told in super::cautions::leftovers(&cleaned) {
        own.telling
            .say(say::warning(OWN, daemon.home.name(), "leftovers", told));
    }
    let Config {
        socket,
        group,
        mode,
        ..
    } = &daemon.config;
    let server = Server::bind(socket, *group, *mode).map_err(RunError::Socket)?;
    let supervisor = Supervisor::find();
    supervisor.say("READY=1");
    let serving = Arc::clone(&daemon);
    let local = LocalSet::new();
    local.spawn_local(server.serve(move |call| serve::serve(Arc::clone(&serving), call)));
    local
        .run_until(async {
            let mut sweep = tokio::time::interval(SWEEP);
            let mut alive = tokio::time::interval(supervisor.every());
            loop {
                tokio::select! {
                    _ = end.recv() => return,
                    _ = interrupt.recv() => return,
                    Some(()) = hangup.recv() => daemon.reload(&supervisor).await,
                    _ = alive.tick() => supervisor.say("WATCHDOG=1"),
                    _ = sweep.tick() => {
                        // What cannot be ended now is tried again with the next turn.
                        let _next_time = spawn_blocking(clean_leftovers).await;
                    }
                }
            }
        })
        .await;
    supervisor.say("STOPPING=1");
    drop(local);
    daemon.leave(own).await
}

/// The name under which the daemon's own lines are.
const OWN: &str = "egress-agent";

impl Daemon {
    /// A home, a data plane in it that refuses everybody, the policies.
    fn begin(config: Config) -> Result<Self, RunError> {
        let home = Home::create()?;
        let settings = Settings {
            connector_level: home.parent().level()? + 1,
            connectors: MAX_CONNECTORS - 1,
            rules: MAX_RULES,
            proxy_net: None,
            sizes: Sizes::MANY,
        };
        let plane = DataPlane::load(&settings, home.pins().clone(), SHARE)?;
        plane.attach(home.parent().path())?;
        Ok(Self {
            policies: Policies::read(&config.policies),
            operators: config.group,
            config,
            plane,
            registry: Registry::default(),
            hub: Hub::default(),
            since: Instant::now(),
            home,
            count: AtomicU64::new(0),
        })
    }

    /// The account of what is no connector's.
    async fn account(&self) -> Result<Own, RunError> {
        let place = self.plane.place(false)?;
        let jsonl =
            Jsonl::start(OWN, self.home.name()).map_err(crate::event::pump::PumpError::from)?;
        let sinks: Vec<Box<dyn Sink>> = vec![Box::new(jsonl), Box::new(self.hub.sink(0))];
        let owner = Owner {
            connector: OWN.to_owned(),
            id: place.id(),
            beside: None,
            instance: self.home.name().to_owned(),
            rules: Default::default(),
            keeper: Arc::clone(self.plane.keeper()),
            door: Arc::default(),
            calls: Arc::default(),
            sinks,
        };
        let (refusals, calls) = (mpsc::channel(1).1, mpsc::channel(1).1);
        let telling = self.plane.pump().open(owner, Mail { refusals, calls });
        telling.baseline().await?;
        Ok(Own {
            telling,
            _place: place,
        })
    }

    /// Makes the cgroups of a new instance.
    pub(super) fn instance(&self, connector: &str) -> Result<Instance, Refusal> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let made = self.home.instance(connector, number);
        made.map_err(|error| (exit::AGENT_FAILED, error.to_string()))
    }

    /// As root's `egress-agent reload` does.
    async fn reload(self: &Arc<Self>, supervisor: &Supervisor) {
        supervisor.say("RELOADING=1");
        let root = Peer {
            pid: std::process::id(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
        };
        let answer = serve::reload(self, &root, true, None).await;
        if let crate::control::Answer::Failed { message, .. } = answer {
            say::to_caller(message);
        }
        supervisor.say("READY=1");
    }

    /// Ends. Where connectors run, everything that confines them stays.
    async fn leave(self: Arc<Self>, own: Own) -> Result<u8, RunError> {
        let exit = Exit {
            code: Some(0),
            signal: None,
        };
        own.telling.finish(exit).await?;
        let idle = self.registry.is_empty();
        if let Err(error) = std::fs::remove_file(&self.config.socket) {
            say::to_caller(format_args!("the socket is left: {error}"));
        }
        if let (true, Ok(daemon)) = (idle, Arc::try_unwrap(self)) {
            daemon.home.end()?;
        }
        Ok(0)
    }
}

/// The daemon's own account, and the place that is its.
struct Own {
    telling: Telling,
    _place: Place,
}
