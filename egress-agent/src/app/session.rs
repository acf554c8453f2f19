//! One connector from its policy to its end, in a data plane that may be its own or one of many.
//!
//! ```text
//! policy ─▶ reload ─▶ kernel tables          (intent)
//! ring ─▶ stream ─▶ text, JSON Lines         (evidence)
//! door ─▶ names ─▶ keeper ─▶ kernel tables   (names)
//! ```
//!
//! Every task and channel of a connector is made here. It knows no terminal, no signal handler and
//! no command line: what happens outside comes to it as [`Order`]s.

use std::{os::fd::AsFd as _, pin::pin, process::ExitStatus, sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    Run, RunError,
    beside::{Beside, Running},
    cautions::cautions,
    outside::{Order, Outside},
    routes::Following,
    start::{binds, layers, proven, spec, temporary, used},
    sweep::sweep,
};
use crate::{
    dns::{self, Door, Names, NamesConfig, files::Files, news::News},
    event::{
        account::Owner,
        model::{Body, Exit, Started},
        pump::{Mail, Telling as Stream},
        sink::Sink,
    },
    exit,
    host::{
        clock, own_address,
        switch::{self, Step},
        temporary::Temporary,
    },
    instance::{DataPlane, Place},
    kernel::instance::Instance,
    launch::{self, Given, UnixSockets, refusals::Telling, signals::forward},
    policy::model::{Mode, Start},
    reload::{self, Live, Own, Reload, say},
};

/// Refusals of the door, and of the system call filter, that may wait for the stream.
const REFUSALS: usize = 4096;
/// Lines about routes that may wait for the stream.
const LINES: usize = 16;
/// Batches of new names that may wait for the refresher.
const REFRESHES: usize = 16;

/// How long a connector whose caller is gone has for its own end.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connector that is to run.
pub(super) struct Session<'a> {
    /// What it is.
    pub(super) run: &'a Run,
    /// Where its processes are.
    pub(super) instance: &'a Instance,
    /// Its place in the data plane.
    pub(super) place: Place,
    /// The process beside it.
    pub(super) beside: Beside,
    /// Where its lines go.
    pub(super) sinks: Vec<Box<dyn Sink>>,
    /// What to say first: topics and lines.
    pub(super) told: Vec<(&'static str, String)>,
    /// Descriptors for its first process.
    pub(super) given: Given,
}

/// How a session ended: the connector's exit status, or why there is none, and its policy as it
/// is in the data plane, where that is still there.
pub(super) struct Ended {
    pub(super) outcome: Result<ExitStatus, RunError>,
    pub(super) live: Option<Live>,
}

/// Runs a connector from beginning to end. Its processes are gone when it answers.
pub(super) async fn session(session: Session<'_>, outside: &mut Outside) -> Ended {
    let mut kept = None;
    let outcome = confined(session, outside, &mut kept).await;
    Ended {
        outcome,
        live: kept,
    }
}

/// Everything between the making and the ending of an instance. `kept`: its policy, where it is
/// in the data plane.
async fn confined(
    session: Session<'_>,
    outside: &mut Outside,
    kept: &mut Option<Live>,
) -> Result<ExitStatus, RunError> {
    let Session {
        run,
        instance,
        place,
        beside,
        sinks,
        told,
        given,
    } = session;
    let (id, beside_id) = (place.id(), place.beside());
    let plane = Arc::clone(place.plane());
    let policy = Arc::new(run.policy.clone());
    let unix = launch::unix_sockets(&policy, plane.plane().unix())?;
    let temporary = temporary(run, instance, &unix, &plane);
    let door = Door::bind().map_err(RunError::Door)?;
    door.admit(|socket| plane.enter_resolver(socket, id))
        .map_err(RunError::Door)?;
    let own = Own {
        abstracts: unix.landlock.abstracts,
        temporary: temporary
            .as_ref()
            .ok()
            .and_then(|folder| Some(folder.as_ref()?.path())),
    };
    let connector = instance.connector().clone();
    let live = kept.insert(Live::start(
        place,
        connector,
        &door,
        Arc::clone(&policy),
        &own,
    )?);
    let (routes, unknown) = Following::begin(plane.routes(), id, run.user.uid);
    switch::reached(Step::PolicyWritten);
    beside.admit(live, &plane, instance)?;
    plane.attach(instance.parent().path())?;
    switch::reached(Step::Attached);
    let modules = proven(instance, &plane);
    let layers = layers(&policy, &plane, modules.as_ref().err())?;

    let (stop, stopped) = watch::channel(false);
    let (refusals, refused) = mpsc::channel(REFUSALS);
    let (lines, calls) = mpsc::channel(REFUSALS);
    let telling = Telling {
        stats: Arc::default(),
        lines,
    };
    let keeper = Arc::clone(plane.keeper());
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
    let owner = Owner {
        connector: policy.connector.clone(),
        id,
        beside: beside_id,
        instance: instance.name().to_owned(),
        rules: live.rule_names(),
        keeper: Arc::clone(&keeper),
        door: Arc::clone(names.stats()),
        calls: Arc::clone(&telling.stats),
        sinks,
    };
    let mail = Mail {
        refusals: refused,
        calls,
    };
    let stream = plane.pump().open(owner, mail);
    switch::reached(Step::StreamOpen);
    let warn = |topic: &str, told: String| {
        stream.say(say::warning(
            &policy.connector,
            instance.name(),
            topic,
            told,
        ));
    };
    for (topic, told) in told.into_iter().chain(cautions(run)) {
        warn(topic, told);
    }
    if let Some(told) = unknown {
        warn("routes", told);
    }
    if let Err(error) = &temporary {
        warn(
            "temporary",
            format!(
                "what the connector leaves in its temporary folder is seen by nobody else and \
                 gone at its end: no folder can be shared with its caller: {error}"
            ),
        );
    }
    let used = used(&layers, policy.mode);
    stream.say(say::layers(&policy.connector, instance.name(), &used));

    let (more, later) = mpsc::channel(REFRESHES);
    let beside = beside.start(id, (run, instance), (&names, &keeper)).await?;
    let start = if run.start_unresolved || run.policy.mode == Mode::Audit {
        Start::Lenient
    } else {
        run.policy.start
    };
    let serving = tokio::spawn(door.serve(Arc::clone(&names), stopped.clone()));
    let prefetched = tokio::select! {
        prefetched = dns::prefetch(&names, start) => prefetched,
        signal = outside.end() => return Err(RunError::Signal(signal)),
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
    let sweeping = tokio::spawn(sweep(
        Arc::clone(&keeper),
        Arc::clone(&names),
        stopped.clone(),
    ));
    let (ways, way) = mpsc::channel(LINES);
    let following = routes.start(ways, stopped.clone());
    let news = names.news();
    let refreshing = tokio::spawn(dns::refresh(Arc::clone(&names), prefetched, later, stopped));

    let Some(live) = kept.take() else {
        return Err(RunError::Signal(Signal::SIGKILL));
    };
    let mut reload = Reload::new(reload::Start {
        live,
        names: Arc::clone(&names),
        keeper,
        more,
        layers,
        instance: instance.name().to_owned(),
        audit: run.audit,
        changeable: run.changeable.clone(),
        user: run.user.clone(),
        session: run.session.clone(),
        watch: run.watch,
    });
    let outcome = match resolved {
        Ok(()) => {
            let ahead = Ahead {
                run,
                instance,
                unix,
                temporary: temporary.ok().flatten(),
                lsm: modules.is_ok(),
                stream: &stream,
                news: &news,
                way,
                beside,
                telling,
                given,
                plane: &plane,
            };
            launched(ahead, serving, &mut reload, outside).await
        }
        Err(error) => Err(error),
    };

    instance.kill()?;
    *kept = Some(reload.into_live());
    let exit = exit_of(&outcome);
    let _tasks_gone = stop.send(true);
    refreshing.abort();
    sweeping.abort();
    following.abort();
    stream.finish(exit).await?;
    switch::reached(Step::StreamFinished);
    outcome
}

/// What a start needs, once everything around it stands.
struct Ahead<'a> {
    run: &'a Run,
    instance: &'a Instance,
    unix: UnixSockets,
    temporary: Option<Temporary>,
    /// The programs for security modules fire.
    lsm: bool,
    stream: &'a Stream,
    news: &'a News,
    /// What is to be told of routes.
    way: mpsc::Receiver<String>,
    /// The process beside the connector.
    beside: Running,
    telling: Telling,
    given: Given,
    plane: &'a DataPlane,
}

/// Starts the connector, forwards signals to it and waits for its end.
async fn launched(
    ahead: Ahead<'_>,
    mut serving: JoinHandle<std::io::Result<()>>,
    reload: &mut Reload,
    outside: &mut Outside,
) -> Result<ExitStatus, RunError> {
    let Ahead {
        run,
        instance,
        unix,
        temporary,
        lsm,
        stream,
        news,
        mut way,
        mut beside,
        telling,
        given,
        plane,
    } = ahead;
    let warn = |topic: &str, told: String| {
        stream.say(say::warning(
            &run.policy.connector,
            instance.name(),
            topic,
            told,
        ));
    };
    let mut spec = spec(run, instance, unix, temporary);
    if let Some(proxy) = run.policy.through() {
        for name in launch::env::without_proxy(&mut spec.env, proxy) {
            warn(
                "proxy",
                format!(
                    "the variable {name} has the proxy's credentials in it and is not passed on"
                ),
            );
        }
    }
    let tap = beside.equip(run, &mut spec);
    let ready = launch::start(&spec, tap, given).await?;
    switch::reached(Step::LauncherReady);
    if lsm {
        // Not before: the launcher has used what these programs refuse.
        attach_modules(plane, instance)?;
    }
    // The launcher's probe was refused and counted; the connector's account starts after it.
    stream.baseline().await?;
    let mut started = ready.go().await?;
    if let Some(listener) = started.refused.take() {
        launch::refusals::start(listener, telling, binds(&spec)).map_err(RunError::Wait)?;
    }
    switch::reached(Step::ConnectorStarted);
    stream.say(started_body(run, instance, started.pid));
    outside.started(&started).map_err(RunError::Wait)?;
    let mut door_open = true;
    let (mut abandoned, mut over) = (false, false);
    let mut patience = pin!(tokio::time::sleep(FAREWELL));
    loop {
        tokio::select! {
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
            order = outside.next() => match order {
                Order::Signal(signal) => {
                    // Who stands still answers none.
                    if instance.is_frozen()? {
                        instance.kill()?;
                    } else {
                        forward(signal, started.process.as_fd());
                    }
                }
                Order::Read => reload.ask(stream),
                Order::Gone(why) if !abandoned => {
                    warn("caller", format!("{why}, and the connector ends with it"));
                    // Who cleans up after himself has a moment for it.
                    forward(Signal::SIGTERM, started.process.as_fd());
                    abandoned = true;
                    patience.as_mut().reset(Instant::now() + FAREWELL);
                }
                Order::Gone(_) => {}
            },
            turned = reload.turn(stream) => turned?,
            line = news.line() => warn("dns", line),
            Some(line) = way.recv() => warn("routes", line),
            told = beside.told() => beside.tell(told, run, (instance, started.pid), stream),
            ended = &mut serving, if door_open => {
                door_open = false;
                let why = match ended {
                    Ok(Ok(())) => "it ended".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                warn("dns", format!(
                    "the DNS door is gone ({why}): the connector resolves nothing more; restart it"
                ));
            }
        }
    }
}

/// Where connectors share a data plane, each has these programs at its own cgroup: at the one of
/// all they would refuse the next launcher what it needs.
fn attach_modules(plane: &DataPlane, instance: &Instance) -> Result<(), RunError> {
    let modules = plane.modules(Ok).as_ref().map_err(Clone::clone)?;
    let at = if instance.is_shared() {
        instance.connector()
    } else {
        instance.parent()
    };
    let number = instance.is_shared().then(|| instance.name());
    Ok(modules.attach(at.path(), instance.pins(), number)?)
}

fn started_body(run: &Run, instance: &Instance, pid: u32) -> Body {
    Body::Started(Started {
        connector: run.policy.connector.clone(),
        instance: instance.name().to_owned(),
        mode: say::mode_name(run.policy.mode).to_owned(),
        policy: Some(run.policy.source.display().to_string()),
        rules: run.policy.written().count() as u64,
        pid: Some(pid),
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
    })
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
fn exit_of(outcome: &Result<ExitStatus, RunError>) -> Exit {
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
