//! What the daemon does about each request, and for whom.

use std::{
    collections::BTreeSet,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    sync::Arc,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::signal::Signal,
};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
use tokio::{sync::broadcast::error::RecvError, task::spawn_blocking};

use super::{
    daemon::Daemon,
    exec::Refusal,
    hosted::{self, Asked, Runs},
    orphans,
    outside::Order,
    policies::Known,
};
use crate::{
    control::{
        Answer, Exec, Peer, Request,
        protocol::{self, EXEC_DESCRIPTORS, Overview, State},
        server::{Broken, Call, Connection},
    },
    event::sink::hub::HubLine,
    exit,
    host::netns,
    launch::Given,
    reload::say,
};

/// Signals that a client passes on; the rest are nobody's but the kernel's.
const PASSED: [Signal; 5] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Carries out one request.
pub(super) async fn serve(daemon: Arc<Daemon>, call: Call) {
    let Call {
        peer,
        request,
        descriptors,
        mut connection,
    } = call;
    let operates = peer.operates(daemon.operators);
    let answer = match request {
        Request::Exec(exec) => {
            exec_connector(&daemon, peer, *exec, descriptors, &mut connection).await
        }
        Request::Signal(_) => Answer::failed(exit::AGENT_FAILED, "nothing is started here"),
        Request::Ps => {
            let mut rows = daemon.registry.rows(&peer, operates);
            let uid = (!operates).then_some(peer.uid);
            match spawn_blocking(move || orphans::rows(uid)).await {
                Ok(Ok(others)) => {
                    rows.extend(others);
                    Answer::Instances(rows)
                }
                Ok(Err(error)) => Answer::failed(exit::AGENT_FAILED, error.to_string()),
                Err(error) => Answer::failed(exit::AGENT_FAILED, error.to_string()),
            }
        }
        Request::Status => status(&daemon, &peer, operates),
        Request::Stop(what) => stop(&daemon, &peer, operates, what).await,
        Request::Reload(connector) => reload(&daemon, &peer, operates, connector).await,
        Request::Events { last, follow } => {
            let wants = |line: &HubLine| operates || line.caller == peer.uid;
            match events(&daemon, wants, (last, follow), &mut connection).await {
                Ok(()) => Answer::Done(String::new()),
                Err(_reader_gone) => return,
            }
        }
    };
    // A client that is gone wants no answer.
    let _gone = connection.say(&answer).await;
}

/// Starts a connector and stays with it to its end, or to that of its caller.
async fn exec_connector(
    daemon: &Arc<Daemon>,
    peer: Peer,
    exec: Exec,
    descriptors: Vec<OwnedFd>,
    connection: &mut Connection,
) -> Answer {
    let failed = |(code, message): Refusal| Answer::Failed { code, message };
    let (known, given) = match permitted(daemon, &peer, &exec, descriptors).await {
        Ok(both) => both,
        Err(refusal) => return failed(refusal),
    };
    let asked = Asked {
        peer,
        exec,
        known,
        given,
    };
    let starting = Arc::clone(daemon);
    let started = spawn_blocking(move || hosted::start(&starting, asked)).await;
    let mut hosted = match started {
        Ok(Ok(hosted)) => hosted,
        Ok(Err(refusal)) => return failed(refusal),
        Err(error) => return Answer::failed(exit::AGENT_FAILED, error.to_string()),
    };
    let (mut starting, mut here) = (true, true);
    loop {
        tokio::select! {
            runs = &mut hosted.runs, if starting => {
                starting = false;
                if let Ok(Runs { instance, pid, process }) = runs {
                    let answer = Answer::Started { instance, pid };
                    here = connection.say_with(&answer, process.as_fd()).await.is_ok();
                    if !here {
                        gone(&hosted.orders).await;
                    }
                }
            }
            heard = connection.hear(), if here => match heard {
                Ok(Request::Signal(number)) => {
                    let signal = Signal::try_from(number).ok();
                    if let Some(signal) = signal.filter(|signal| PASSED.contains(signal)) {
                        let _over = hosted.orders.send(Order::Signal(signal)).await;
                    }
                }
                // Who says something else has lost the thread, and is as good as gone.
                _ => {
                    here = false;
                    gone(&hosted.orders).await;
                }
            },
            ended = &mut hosted.ended => return match ended {
                Ok(Ok(status)) => Answer::Ended { status: status.into_raw() },
                Ok(Err(refusal)) => failed(refusal),
                Err(_) => Answer::failed(exit::AGENT_FAILED, "its thread in the daemon is gone"),
            },
        }
    }
}

async fn gone(orders: &tokio::sync::mpsc::Sender<Order>) {
    // One that is over needs no order.
    let _over = orders
        .send(Order::Gone("whoever started it is gone".to_owned()))
        .await;
}

/// Whether somebody may start what he asks for; its policy and its descriptors.
async fn permitted(
    daemon: &Arc<Daemon>,
    peer: &Peer,
    exec: &Exec,
    descriptors: Vec<OwnedFd>,
) -> Result<(Arc<Known>, Given), Refusal> {
    let refuse = |message: String| Err((exit::AGENT_FAILED, message));
    if exec.version != protocol::VERSION {
        return refuse(format!(
            "client and daemon are of different versions (the daemon is {}): restart the daemon, or \
             use the program that it came with",
            env!("CARGO_PKG_VERSION")
        ));
    }
    let finding = Arc::clone(daemon);
    let name = exec.connector.clone();
    let found = spawn_blocking(move || finding.policies.find(&name)).await;
    let Some(known) = found.ok().flatten() else {
        return refuse(unknown(daemon, peer, &exec.connector));
    };
    if !known.permits(peer) {
        return refuse(format!(
            "user {} may not start “{}”: its policy names who may (users:, groups: in {}; without \
             them root and the members of the group egress-agent, as of their last login)",
            peer.uid,
            exec.connector,
            known.loaded.policy.source.display()
        ));
    }
    if netns::differs(peer.pid) {
        return refuse(
            "you are in another network namespace than the daemon, where the connector would run: \
             start a daemon there, or use `egress-agent run`"
                .to_owned(),
        );
    }
    match given(descriptors) {
        Ok(given) => Ok((known, given)),
        Err(why) => refuse(why.to_owned()),
    }
}

/// The descriptors of a request, each of its kind.
fn given(descriptors: Vec<OwnedFd>) -> Result<Given, &'static str> {
    let all: Result<[OwnedFd; EXEC_DESCRIPTORS], _> = descriptors.try_into();
    let [input, output, error, lifeline, status] =
        all.map_err(|_| "the request has not the descriptors that it needs")?;
    let is = |fd: &OwnedFd, access: OFlag| {
        // Without asking whoever serves the file, who may never answer (FUSE).
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let facts = statx(fd, c"", flags, StatxFlags::TYPE);
        let pipe = facts
            .is_ok_and(|facts| FileType::from_raw_mode(facts.stx_mode.into()) == FileType::Fifo);
        let flags = fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
        pipe && flags.is_ok_and(|flags| flags & OFlag::O_ACCMODE == access)
    };
    if !is(&lifeline, OFlag::O_RDONLY) || !is(&status, OFlag::O_WRONLY) {
        return Err("the request has other descriptors than the two pipes that it needs");
    }
    Ok(Given {
        standard: Some([input, output, error]),
        lifeline: Some(lifeline),
        status: Some(status),
    })
}

fn unknown(daemon: &Daemon, peer: &Peer, name: &str) -> String {
    let all = daemon.policies.list();
    let own = all.iter().filter(|(_, known, _)| known.permits(peer));
    let own: Vec<&str> = own.map(|(name, ..)| name.as_str()).collect();
    let folder = daemon.config.policies.display();
    let mut told = format!("there is no policy for a connector “{name}” in {folder}");
    if let Some(near) = nearest(name, &own) {
        told.push_str(&format!("; did you mean “{near}”?"));
    } else if own.is_empty() {
        told.push_str(", nor for any other that you may start");
    } else {
        told.push_str(&format!("; you may start {}", own.join(", ")));
    }
    if peer.operates(daemon.operators)
        && let Some(fault) = daemon.policies.others().first()
    {
        told.push_str(&format!("; a file there has faults: {fault}"));
    }
    told
}

/// What somebody may have meant.
fn nearest<'a>(name: &str, all: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &&&str| strsim::damerau_levenshtein(name, other);
    let near = all.iter().min_by_key(likeness)?;
    (likeness(&near) <= 2).then_some(near)
}

fn status(daemon: &Daemon, peer: &Peer, operates: bool) -> Answer {
    let rows = daemon.registry.rows(peer, operates);
    let connectors = daemon
        .policies
        .list()
        .into_iter()
        .filter(|(_, known, _)| operates || known.permits(peer))
        .map(|(connector, known, fault)| State {
            instances: rows.iter().filter(|row| row.connector == connector).count() as u64,
            policy: known.loaded.policy.source.display().to_string(),
            mode: say::mode_name(known.loaded.policy.mode).to_owned(),
            rules: known.loaded.policy.written().count() as u64,
            connector,
            fault,
        });
    Answer::Status(Box::new(Overview {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        age: daemon.since.elapsed().as_secs(),
        connectors: connectors.collect(),
        faults: if operates {
            daemon.policies.others()
        } else {
            Vec::new()
        },
    }))
}

async fn stop(daemon: &Arc<Daemon>, peer: &Peer, operates: bool, what: String) -> Answer {
    let mut ended = Vec::new();
    for (name, orders) in daemon.registry.of(peer, operates, &what) {
        let why = format!("user {} ends it", peer.uid);
        if orders.send(Order::Gone(why)).await.is_ok() {
            ended.push(name);
        }
    }
    let (uid, orphan) = ((!operates).then_some(peer.uid), what.clone());
    match spawn_blocking(move || orphans::end(&orphan, uid)).await {
        Ok(Ok(others)) => ended.extend(others),
        Ok(Err(error)) => return Answer::failed(exit::AGENT_FAILED, error.to_string()),
        Err(error) => return Answer::failed(exit::AGENT_FAILED, error.to_string()),
    }
    if ended.is_empty() {
        return Answer::failed(
            exit::AGENT_FAILED,
            format!("nothing of yours runs under the name “{what}”; see `egress-agent ps`"),
        );
    }
    Answer::Done(format!("ending {}", ended.join(", ")))
}

/// Reads policies again, and has the instances of each connector whose file is sound go over.
pub(super) async fn reload(
    daemon: &Arc<Daemon>,
    peer: &Peer,
    operates: bool,
    connector: Option<String>,
) -> Answer {
    if !operates {
        return Answer::failed(
            exit::AGENT_FAILED,
            "only root and the members of the operators' group reload policies",
        );
    }
    let reading = Arc::clone(daemon);
    if let Err(error) = spawn_blocking(move || reading.policies.read_again()).await {
        return Answer::failed(exit::AGENT_FAILED, error.to_string());
    }
    let all = daemon.policies.list();
    let named = |name: &str| connector.as_deref().is_none_or(|only| only == name);
    let mut faults = Vec::new();
    let mut told = BTreeSet::new();
    for (name, _, fault) in all.iter().filter(|(name, ..)| named(name)) {
        if let Some(fault) = fault {
            faults.push(format!("{name}: {fault}; the policy before stays in force"));
            continue;
        }
        told.insert(name.as_str());
        for (_, orders) in daemon.registry.of(peer, true, name) {
            let _over = orders.send(Order::Read).await;
        }
    }
    if connector.is_none() {
        faults.extend(daemon.policies.others());
    }
    match (connector, faults.is_empty(), told.is_empty()) {
        (Some(name), true, true) => {
            Answer::failed(exit::AGENT_FAILED, format!("no policy is for “{name}”"))
        }
        (_, false, _) => Answer::failed(exit::AGENT_FAILED, faults.join("\n")),
        _ => Answer::Done(format!("read {} policies", told.len())),
    }
}

async fn events(
    daemon: &Daemon,
    wants: impl Fn(&HubLine) -> bool,
    (last, follow): (usize, bool),
    connection: &mut Connection,
) -> Result<(), Broken> {
    // First, so that no line falls between the two.
    let mut coming = daemon.hub.listen();
    let past = daemon.hub.last(last, &wants);
    let mut shown = past.last().map_or(0, |line| line.number);
    for line in past {
        connection.say(&Answer::Event(line.json.clone())).await?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        tokio::select! {
            line = coming.recv() => match line {
                Ok(line) if line.number > shown && wants(&line) => {
                    shown = line.number;
                    connection.say(&Answer::Event(line.json.clone())).await?;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => connection.say(&Answer::Missed(count)).await?,
                Err(RecvError::Closed) => return Ok(()),
            },
            // It has nothing more to say: it is gone.
            heard = connection.hear() => return heard.map(drop),
        }
    }
}
