//! One instance in the daemon: a thread of its own from its start to its end.
//!
//! A thread, because much of a start and an end blocks: the user database, files that lie where
//! the caller wants them, the kernel's end of a cgroup. So nobody who is slow on purpose holds up
//! anybody else, and the names of one connector are answered whatever the others ask.

use std::{
    io,
    os::fd::OwnedFd,
    process::ExitStatus,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
};

use super::{
    RunError,
    beside::Beside,
    daemon::Daemon,
    exec::{Refusal, prepare},
    outside::{Order, Outside},
    policies::Known,
    registry::Entry,
    session::{Ended, Session, session},
};
use crate::{
    control::{Exec, Peer},
    event::{
        pump::PumpError,
        sink::{Sink, jsonl::Jsonl},
    },
    exit,
    kernel::instance::Instance,
    launch::Given,
    reload::{Live, say},
};

/// How long tasks that block may hold up the end of an instance.
const SHUTDOWN: Duration = Duration::from_secs(1);
/// Stack of an instance's thread. Its tasks keep their state elsewhere.
const STACK: usize = 1 << 20;

/// What is to be started, and for whom.
pub(super) struct Asked {
    /// Who asks.
    pub(super) peer: Peer,
    /// What for.
    pub(super) exec: Exec,
    /// The policy.
    pub(super) known: Arc<Known>,
    /// Descriptors for the connector.
    pub(super) given: Given,
}

/// It runs: its name, its first process by number and as a descriptor.
pub(super) struct Runs {
    /// The instance.
    pub(super) instance: String,
    /// Number of its first process.
    pub(super) pid: u32,
    /// The same as a descriptor.
    pub(super) process: OwnedFd,
}

/// An instance on its way.
pub(super) struct Hosted {
    /// What it is told.
    pub(super) orders: mpsc::Sender<Order>,
    /// Answers once it runs; is dropped where it never does.
    pub(super) runs: oneshot::Receiver<Runs>,
    /// How it ended.
    pub(super) ended: oneshot::Receiver<Result<ExitStatus, Refusal>>,
}

/// Starts the thread of an instance.
pub(super) fn start(daemon: &Arc<Daemon>, asked: Asked) -> Result<Hosted, Refusal> {
    let failed = |error: io::Error| {
        (
            exit::AGENT_FAILED,
            format!("cannot start a thread for it: {error}"),
        )
    };
    let connector = asked.known.loaded.policy.connector.clone();
    let instance = daemon.instance(&connector)?;
    let name = instance.name().to_owned();
    let (told, runs) = oneshot::channel();
    let (tell, ended) = oneshot::channel();
    let (registered, registering) = (Arc::clone(daemon), name.clone());
    let (orders, outside) = Outside::new(move |started| {
        registered.registry.runs(&registering, started.pid);
        let runs = Runs {
            instance: registering,
            pid: started.pid,
            process: started.process.try_clone()?,
        };
        // A caller that is gone is seen elsewhere.
        let _gone = told.send(runs);
        Ok(())
    });
    let entry = Entry {
        connector,
        caller: asked.peer.uid,
        uid: asked
            .known
            .loaded
            .policy
            .run
            .as_ref()
            .map_or(Some(asked.peer.uid), |run| {
                run.user.is_none().then_some(asked.peer.uid)
            }),
        pid: None,
        mode: say::mode_name(asked.known.loaded.policy.mode),
        since: Instant::now(),
        orders: orders.clone(),
    };
    if let Err(refusal) = daemon.registry.add(&name, entry) {
        put_away(instance, None);
        return Err(refusal);
    }
    let daemon = Arc::clone(daemon);
    thread::Builder::new()
        .name("instance".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let outcome = host(&daemon, asked, instance, outside);
            daemon.registry.remove(&name);
            let _caller_gone = tell.send(outcome);
        })
        .map_err(failed)?;
    Ok(Hosted {
        orders,
        runs,
        ended,
    })
}

/// The life of an instance. Nothing of it is left afterwards, or it is said.
fn host(
    daemon: &Daemon,
    asked: Asked,
    instance: Instance,
    outside: Outside,
) -> Result<ExitStatus, Refusal> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(Duration::from_millis(100))
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            put_away(instance, None);
            return Err((exit::AGENT_FAILED, format!("cannot start: {error}")));
        }
    };
    let ended = runtime.block_on(inside(daemon, asked, &instance, outside));
    // With it go the tasks that could enter grants.
    runtime.shutdown_timeout(SHUTDOWN);
    let ended = match ended {
        Ok(ended) => ended,
        Err(refusal) => {
            put_away(instance, None);
            return Err(refusal);
        }
    };
    put_away(instance, ended.live);
    ended
        .outcome
        .map_err(|error| (error.code(), error.to_string()))
}

async fn inside(
    daemon: &Daemon,
    asked: Asked,
    instance: &Instance,
    mut outside: Outside,
) -> Result<Ended, Refusal> {
    let Asked {
        peer,
        exec,
        known,
        given,
    } = asked;
    let run = prepare(&known, &peer, exec)?;
    drop(known);
    let refused = |error: RunError| (error.code(), error.to_string());
    let place = daemon
        .plane
        .place(false)
        .map_err(|full| refused(full.into()))?;
    let sinks = sinks(daemon, &run.policy.connector, instance, peer.uid)
        .map_err(|error| refused(error.into()))?;
    let it = Session {
        run: &run,
        instance,
        place,
        beside: Beside::Nobody,
        sinks,
        told: Vec::new(),
        given,
    };
    Ok(session(it, &mut outside).await)
}

/// Where the lines of an instance go.
fn sinks(
    daemon: &Daemon,
    connector: &str,
    instance: &Instance,
    caller: u32,
) -> Result<Vec<Box<dyn Sink>>, PumpError> {
    let jsonl = Jsonl::start(connector, instance.name())?;
    Ok(vec![Box::new(jsonl), Box::new(daemon.hub.sink(caller))])
}

/// Ends what is left of an instance, in the order of an end: processes, sockets, tables, cgroup.
/// What cannot be ended stays confined, and nobody gets its numbers.
fn put_away(instance: Instance, live: Option<Live>) {
    let name = instance.name().to_owned();
    if let Err(error) = instance.kill().and_then(|()| instance.quiet()) {
        say::to_caller(format_args!("{name}: {error}; what is left stays confined"));
        return;
    }
    if let Some(live) = live
        && let Err(error) = live.close()
    {
        say::to_caller(format_args!(
            "{name}: its entries could not be taken out of the data plane: {error}; they permit \
             nothing, and nobody gets their numbers"
        ));
    }
    if let Err(error) = instance.end() {
        say::to_caller(format_args!("{name}: {error}"));
    }
}
