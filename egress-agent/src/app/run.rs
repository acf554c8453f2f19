//! The wiring of one confined run: every task and channel is made here.
//!
//! ```text
//! policy ─▶ reload ─▶ kernel tables          (intent)
//! ring ─▶ stream ─▶ text, JSON Lines         (evidence)
//! door ─▶ names ─▶ keeper ─▶ kernel tables   (names)
//! ```

use std::{ffi::OsString, os::fd::AsFd as _, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use nix::sys::signal::Signal;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    beside::{Beside, Running},
    cautions::{cautions, leftovers},
    fault::RunError,
    routes::Following,
    start::{binds, layers, proven, spec, temporary, used},
    sweep::sweep,
};
use crate::{
    dns::{self, Door, Names, NamesConfig, files::Files, news::News},
    event::{
        model::{Body, Exit, Started},
        pump::{Pump, PumpConfig},
    },
    exit,
    grant::Keeper,
    host::{
        User, clock,
        inherited::Inherited,
        own_address,
        switch::{self, Step},
        temporary::Temporary,
        trust::Changeable,
    },
    kernel::{
        Plane, Settings,
        instance::Instance,
        leftovers::{Leftovers, clean_leftovers},
        lsm::LsmPrograms,
        probe,
    },
    launch::{self, Callers, Signals, UnixSockets, refusals::Telling, signals::forward},
    policy::{
        model::{Mode, Policy, Start},
        session::Session,
        slots,
    },
    reload::{self, Live, Own, Reload, say},
};

/// The only connector of a `run` instance.
const CONNECTOR: u32 = 1;
/// Refusals of the door, and of the system call filter, that may wait for the stream.
const REFUSALS: usize = 4096;
/// Lines about routes that may wait for the stream.
const LINES: usize = 16;
/// Batches of new names that may wait for the refresher.
const REFRESHES: usize = 16;

/// How long a connector whose caller is gone has for its own end.
const FAREWELL: Duration = Duration::from_secs(2);

/// What one run needs to know.
pub struct Run {
    /// The policy.
    pub policy: Policy,
    /// Whom the connector runs as.
    pub user: User,
    /// Program and arguments; not empty.
    pub command: Vec<OsString>,
    /// Why the policy is read once and never again: its own connector could change it.
    pub changeable: Option<Changeable>,
    /// What the caller's session says; the policy is settled by it.
    pub session: Session,
    /// Rules of the policy that it says nothing usable for, and why.
    pub unsettled: Vec<String>,
    /// What the agent inherited from its caller.
    pub inherited: Inherited,
    /// The caller's environment.
    pub caller_env: Vec<(OsString, OsString)>,
    /// A further file for events.
    pub events: Option<PathBuf>,
    /// Start although a permitted name has no address now.
    pub start_unresolved: bool,
    /// Nothing is refused, whatever the policy says.
    pub audit: bool,
    /// Look at the policy file by itself, not on SIGHUP only.
    pub watch: bool,
    /// Show nothing on standard error but errors.
    pub quiet: bool,
    /// Colours on standard error.
    pub color: bool,
}

/// Runs a connector from beginning to end. Answers its exit code.
pub async fn run(run: Run) -> Result<u8, RunError> {
    // Before SIGHUP is listened to: whoever ignores it means to outlive the caller.
    let callers = Callers::find().map_err(RunError::Wait)?;
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Wait)?;
    let signals = Signals::listen().map_err(RunError::Wait)?;
    probe::check_host()?;
    switch::reached(Step::HostChecked);
    let cleaned = clean_leftovers()?;
    switch::reached(Step::LeftoversEnded);
    let instance = Instance::create(&run.policy.connector)?;
    switch::reached(Step::Created);
    let result = confined(&run, &instance, &cleaned, hangup, signals, callers).await;
    // Whatever happened inside, the end is the same. A failure of it keeps the boundary, and
    // does not hide how the connector ended.
    if let Err(error) = instance.kill().and_then(|()| instance.end()) {
        say::to_caller(format_args!("{error}; the next start tries again"));
    }
    result
}

/// Everything between the making and the ending of an instance.
async fn confined(
    run: &Run,
    instance: &Instance,
    cleaned: &Leftovers,
    hangup: tokio::signal::unix::Signal,
    mut signals: Signals,
    callers: Callers,
) -> Result<u8, RunError> {
    let policy = Arc::new(run.policy.clone());
    let beside = Beside::prepare(&policy, instance)?;
    let settings = Settings {
        connector_level: instance.connector().level()?,
        connectors: 1 + beside.count(),
        rules: slots::room(policy.rule_count()),
        proxy_net: beside.net(),
    };
    let mut plane = Plane::load(&settings, instance.pins().clone())?;
    switch::reached(Step::Loaded);
    let unix = launch::unix_sockets(&policy, plane.unix())?;
    let temporary = temporary(run, instance, &unix, &plane);
    let door = Door::bind().map_err(RunError::Door)?;
    door.admit(|socket| plane.enter_resolver(socket, CONNECTOR))
        .map_err(RunError::Door)?;
    let first = Arc::clone(&policy);
    let mut live = Live::start(
        plane.take_switches()?,
        (CONNECTOR, instance.connector().clone()),
        settings.rules,
        &door,
        first,
        &Own {
            abstracts: unix.landlock.abstracts,
            temporary: temporary
                .as_ref()
                .ok()
                .and_then(|folder| Some(folder.as_ref()?.path())),
        },
    )?;
    let (routes, unknown) = Following::begin(plane.take_routes()?, CONNECTOR, run.user.uid);
    switch::reached(Step::PolicyWritten);
    beside.admit(&mut live, &mut plane, instance)?;
    plane.attach(instance.parent().path())?;
    switch::reached(Step::Attached);
    let modules = proven(instance, &mut plane);
    let layers = layers(&policy, &plane, modules.as_ref().err())?;

    let (stop, stopped) = watch::channel(false);
    let (refusals, refused) = mpsc::channel(REFUSALS);
    let (lines, calls) = mpsc::channel(REFUSALS);
    let telling = Telling {
        stats: Arc::default(),
        lines,
    };
    let keeper = Arc::new(Keeper::new(Box::new(plane.maps.grants())));
    let names = Arc::new(Names::new(NamesConfig {
        holder: live.holder(),
        policy: Arc::clone(&policy),
        keeper: Arc::clone(&keeper),
        now_ns: clock::boot_ns,
        is_own: own_address::is_own,
        refusals,
        files: Arc::new(Files::of_host(run.user.uid)),
        carrier: beside.carrier(),
    }));
    let ring = plane.take_ring()?;
    let stream = Pump::start(PumpConfig {
        connector: policy.connector.clone(),
        connector_id: CONNECTOR,
        instance: instance.name().to_owned(),
        rules: live.rule_names(),
        keeper: Arc::clone(&keeper),
        door: Arc::clone(names.stats()),
        maps: plane.maps,
        ring,
        refusals: refused,
        calls,
        call_stats: Arc::clone(&telling.stats),
        extra: run.events.clone(),
        quiet: run.quiet,
        color: run.color,
    })?;
    switch::reached(Step::StreamOpen);
    for told in leftovers(cleaned) {
        stream.say(say::warning(
            &policy.connector,
            instance.name(),
            "leftovers",
            told,
        ));
    }

    for (topic, told) in cautions(run) {
        stream.say(say::warning(
            &policy.connector,
            instance.name(),
            topic,
            told,
        ));
    }

    if let Some(told) = unknown {
        stream.say(say::warning(
            &policy.connector,
            instance.name(),
            "routes",
            told,
        ));
    }
    if let Err(error) = &temporary {
        stream.say(say::warning(
            &policy.connector,
            instance.name(),
            "temporary",
            format!(
                "what the connector leaves in its temporary folder is seen by nobody else and \
                 gone at its end: no folder can be shared with its caller: {error}"
            ),
        ));
    }
    let used = used(&layers, policy.mode);
    stream.say(say::layers(&policy.connector, instance.name(), &used));

    let (more, later) = mpsc::channel(REFRESHES);
    let reload = Reload::new(reload::Start {
        live,
        names: Arc::clone(&names),
        keeper: Arc::clone(&keeper),
        more,
        layers,
        instance: instance.name().to_owned(),
        audit: run.audit,
        changeable: run.changeable.clone(),
        user: run.user.clone(),
        session: run.session.clone(),
        watch: run.watch,
        hangup,
    });

    let around = (&names, &keeper);
    let beside = beside.start(CONNECTOR, (run, instance), around).await?;
    let start = if run.start_unresolved || run.policy.mode == Mode::Audit {
        Start::Lenient
    } else {
        run.policy.start
    };
    let serving = tokio::spawn(door.serve(Arc::clone(&names), stopped.clone()));
    let prefetched = tokio::select! {
        prefetched = dns::prefetch(&names, start) => prefetched,
        signal = signals.next() => return Err(RunError::Signal(signal)),
    };
    switch::reached(Step::Resolved);
    for unresolved in prefetched
        .iter()
        .filter_map(|name| say::unresolved(&policy, instance.name(), name))
    {
        stream.say(unresolved);
    }
    let resolved = match start {
        Start::Lenient => Ok(()),
        Start::Strict => all_resolved(&prefetched),
    };
    let sweeping = tokio::spawn(sweep(keeper, Arc::clone(&names), stopped.clone()));
    let (ways, way) = mpsc::channel(LINES);
    let following = routes.start(ways, stopped.clone());
    let news = names.news();
    let refreshing = tokio::spawn(dns::refresh(names, prefetched, later, stopped));

    let outcome = match resolved {
        Ok(()) => {
            let ahead = Ahead {
                run,
                instance,
                unix,
                temporary: temporary.ok().flatten(),
                modules: modules.ok(),
                stream: &stream,
                news: &news,
                way,
                beside,
                telling,
            };
            launched(ahead, serving, reload, &mut signals, callers).await
        }
        Err(error) => Err(error),
    };

    instance.kill()?;
    let exit = exit_of(&outcome);
    let _tasks_gone = stop.send(true);
    refreshing.abort();
    sweeping.abort();
    following.abort();
    stream.finish(exit).await?;
    switch::reached(Step::StreamFinished);
    Ok(exit::of_child(outcome?))
}

/// What a start needs, once everything around it stands.
struct Ahead<'a> {
    run: &'a Run,
    instance: &'a Instance,
    unix: UnixSockets,
    temporary: Option<Temporary>,
    modules: Option<LsmPrograms>,
    stream: &'a Pump,
    news: &'a News,
    /// What is to be told of routes.
    way: mpsc::Receiver<String>,
    /// The process beside the connector.
    beside: Running,
    telling: Telling,
}

/// Starts the connector, forwards signals to it and waits for its end.
async fn launched(
    ahead: Ahead<'_>,
    mut serving: JoinHandle<std::io::Result<()>>,
    mut reload: Reload,
    signals: &mut Signals,
    callers: Callers,
) -> Result<std::process::ExitStatus, RunError> {
    let Ahead {
        run,
        instance,
        unix,
        temporary,
        modules,
        stream,
        news,
        mut way,
        mut beside,
        telling,
    } = ahead;
    let mut spec = spec(run, instance, unix, temporary);
    if let Some(proxy) = run.policy.through() {
        for name in launch::env::without_proxy(&mut spec.env, proxy) {
            stream.say(say::warning(
                &run.policy.connector,
                instance.name(),
                "proxy",
                format!(
                    "the variable {name} has the proxy's credentials in it and is not passed on"
                ),
            ));
        }
    }
    let tap = beside.equip(run, &mut spec);
    let ready = launch::start(&spec, tap).await?;
    switch::reached(Step::LauncherReady);
    if let Some(modules) = modules {
        // Not before: the launcher has used what these programs refuse.
        modules.attach(instance.parent().path(), instance.pins())?;
    }
    // The launcher's probe was refused and counted; the connector's account starts after it.
    stream.baseline().await?;
    let mut started = ready.go().await?;
    if let Some(listener) = started.refused.take() {
        launch::refusals::start(listener, telling, binds(&spec)).map_err(RunError::Wait)?;
    }
    switch::reached(Step::ConnectorStarted);
    stream.say(Body::Started(Started {
        connector: run.policy.connector.clone(),
        instance: instance.name().to_owned(),
        mode: say::mode_name(run.policy.mode).to_owned(),
        policy: Some(run.policy.source.display().to_string()),
        rules: run.policy.written().count() as u64,
        pid: Some(started.pid),
        uid: run.user.uid,
        command: run
            .command
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        proxy: run
            .policy
            .through()
            .map(|proxy| format!("{proxy} ({})", proxy.source)),
    }));
    let mut door_open = true;
    let mut gone = pin!(callers.gone());
    let (mut abandoned, mut over) = (false, false);
    let mut patience = pin!(tokio::time::sleep(FAREWELL));
    loop {
        tokio::select! {
            name = &mut gone, if !abandoned => {
                stream.say(say::warning(&run.policy.connector, instance.name(), "caller", format!(
                    "{name}, which started the agent, is gone, and the connector ends with it"
                )));
                // Who cleans up after himself has a moment for it.
                forward(Signal::SIGTERM, started.process.as_fd());
                abandoned = true;
                patience.as_mut().reset(Instant::now() + FAREWELL);
            }
            () = &mut patience, if abandoned && !over => {
                instance.kill()?;
                over = true;
            }
            status = started.ended() => {
                let status = status.map_err(RunError::Wait)?;
                switch::reached(Step::ConnectorEnded);
                // Its last words before the agent's own, and before the pipes close.
                instance.kill()?;
                switch::reached(Step::ConnectorKilled);
                started.relaying.finish().await;
                beside.last(run, (instance, started.pid), stream);
                return Ok(status);
            }
            signal = signals.next() => {
                // Who stands still answers none.
                if instance.is_frozen()? {
                    instance.kill()?;
                } else {
                    forward(signal, started.process.as_fd());
                }
            }
            turned = reload.turn(stream) => turned?,
            line = news.line() => stream.say(say::warning(
                &run.policy.connector,
                instance.name(),
                "dns",
                line,
            )),
            Some(line) = way.recv() => stream.say(say::warning(
                &run.policy.connector,
                instance.name(),
                "routes",
                line,
            )),
            told = beside.told() => beside.tell(told, run, (instance, started.pid), stream),
            ended = &mut serving, if door_open => {
                door_open = false;
                let why = match ended {
                    Ok(Ok(())) => "it ended".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                stream.say(say::warning(&run.policy.connector, instance.name(), "dns", format!(
                    "the DNS door is gone ({why}): the connector resolves nothing more; restart it"
                )));
            }
        }
    }
}

/// Where the policy is strict, a typing error in a name is seen at the start, not at the first
/// call.
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

/// As the caller gets it.
fn exit_of(outcome: &Result<std::process::ExitStatus, RunError>) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    let code = match outcome {
        Ok(status) => exit::of_child(*status),
        Err(error) => error.code(),
    };
    Exit {
        code: Some(i32::from(code)),
        signal: outcome.as_ref().ok().and_then(|status| status.signal()),
    }
}
