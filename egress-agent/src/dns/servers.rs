//! Servers asked in their order.
//!
//! The order means something: the server of a VPN stands before a public one, and the public
//! one's "does not exist" for a name of the inside must not count because it came sooner. So
//! the next server is asked only when the one before has failed: at once where it refuses, and
//! where it is silent after its share of the time. The shares are glibc's 5 s for each, made
//! shorter so that all servers have been asked before the connector's own library, which
//! waits as long, asks again. A server that was silent last time has little more than a round
//! trip until it answers again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::op::Message;
use nix::net::if_::if_nametoindex;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    exchange::{Manner, Question, ServerFault, ask},
    resolv_conf::Options,
    upstream::UpstreamError,
};
use crate::policy::server::Server;

/// All servers have been asked once within this time. Below the 5 s after which C libraries
/// ask again (resolv.conf(5) `timeout`).
const ROUND: Duration = Duration::from_millis(4500);
/// Longest wait for an answer: as long as C libraries wait, two times 5 s.
pub(super) const LAST: Duration = Duration::from_secs(10);
/// A question over UDP is sent again after this time.
const RESEND: Duration = Duration::from_millis(1500);
/// A question that nobody waits for keeps newer ones from its place for this time.
const LINGERS: Duration = Duration::from_secs(1);
/// What all servers that were silent last time have together before the next one is asked.
const SILENT: Duration = Duration::from_millis(80);

/// Servers in their order, and what is known of them.
#[derive(Debug)]
pub(super) struct Servers {
    known: Vec<Arc<Known>>,
    options: Options,
    turn: AtomicUsize,
}

#[derive(Debug)]
struct Known {
    server: Server,
    /// The last question had no answer in its time.
    silent: AtomicBool,
    /// It does not speak EDNS.
    plain: AtomicBool,
    /// A question that is still open although nobody waits for it any more: its answer shows
    /// that the server is there again.
    lingering: Mutex<Option<Running>>,
}

/// A question under way. Dropping it ends it.
#[derive(Debug)]
struct Running {
    task: JoinHandle<()>,
    since: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Said = (usize, Result<Message, ServerFault>);

impl Servers {
    pub(super) fn new(servers: &[Server], options: Options) -> Self {
        let known = |server: &Server| {
            Arc::new(Known {
                server: server.clone(),
                silent: AtomicBool::new(false),
                plain: AtomicBool::new(false),
                lingering: Mutex::default(),
            })
        };
        Self {
            known: servers.iter().map(known).collect(),
            options,
            turn: AtomicUsize::new(0),
        }
    }

    /// Asks one server after the other. The first NOERROR or NXDOMAIN counts.
    pub(super) async fn ask(&self, question: &Question) -> Result<Message, UpstreamError> {
        let order = self.order();
        let deadline = Instant::now() + self.limit();
        let (sender, mut said) = mpsc::unbounded_channel();
        let mut running: Vec<(usize, Running)> = Vec::new();
        let mut faults: Vec<(usize, ServerFault)> = Vec::new();
        let mut waiting = order.iter().enumerate();
        let mut asked = 0_usize;
        let mut patience = Instant::now();
        let mut next = true;
        let result = loop {
            if std::mem::take(&mut next)
                && let Some((place, known)) = waiting.next()
            {
                let manner = self.manner(known, deadline);
                running.push((place, start(known, place, question, manner, sender.clone())));
                asked = place.saturating_add(1);
                patience = Instant::now() + self.patience(&order, place);
            }
            tokio::select! {
                Some((place, answer)) = said.recv() => match answer {
                    Ok(message) => break Ok(message),
                    Err(fault) => {
                        faults.push((place, fault));
                        if faults.len() == order.len() {
                            break Err(failed(&order, faults));
                        }
                        // Whose turn it is has failed, so the next one's has come.
                        next = place.saturating_add(1) == asked;
                    }
                },
                () = sleep_until(patience), if asked < order.len() => {
                    if let Some(known) = asked.checked_sub(1).and_then(|last| order.get(last)) {
                        known.silent.store(true, Ordering::Relaxed);
                    }
                    next = true;
                }
                () = sleep_until(deadline) => break Err(failed(&order, faults)),
            }
        };
        for (place, question) in running {
            if let Some(known) = order.get(place) {
                known.linger(question);
            }
        }
        result
    }

    /// The order of this question. `rotate` begins each with the next server.
    fn order(&self) -> Vec<&Arc<Known>> {
        let first = match (self.options.rotate, self.known.len()) {
            (true, count @ 1..) => self.turn.fetch_add(1, Ordering::Relaxed) % count,
            _ => 0,
        };
        let (before, from) = self
            .known
            .split_at_checked(first)
            .unwrap_or((&[], &self.known));
        from.iter().chain(before).collect()
    }

    /// As long as glibc's attempts at all servers take, and no longer than anybody waits.
    fn limit(&self) -> Duration {
        let servers = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let tries = servers.saturating_mul(self.options.attempts);
        self.options.timeout.saturating_mul(tries).min(LAST)
    }

    /// How long one server is waited for before the next is asked. The first has twice the
    /// share of the others.
    fn patience(&self, order: &[&Arc<Known>], place: usize) -> Duration {
        let silent = |known: &&&Arc<Known>| known.silent.load(Ordering::Relaxed);
        let among = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).max(1);
        if order.get(place).as_ref().is_some_and(silent) {
            let count = order.iter().filter(silent).count();
            return SILENT / among(count);
        }
        let share = ROUND / among(order.len().saturating_add(1));
        let share = if place == 0 { share * 2 } else { share };
        share.min(self.options.timeout)
    }

    fn manner(&self, known: &Known, deadline: Instant) -> Manner {
        Manner {
            edns: self.options.edns0 && !known.plain.load(Ordering::Relaxed),
            tcp: self.options.use_vc,
            sends: self.options.attempts,
            resend: RESEND.min(self.options.timeout),
            deadline,
        }
    }
}

/// Puts the question to one server, in a task of its own.
fn start(
    known: &Arc<Known>,
    place: usize,
    question: &Question,
    manner: Manner,
    sender: mpsc::UnboundedSender<Said>,
) -> Running {
    let (known, question) = (Arc::clone(known), question.clone());
    let task = tokio::spawn(async move {
        let answer = match address(&known.server) {
            Ok(addr) => ask(addr, &question, &manner).await,
            Err(error) => Err(error.into()),
        };
        let silent = matches!(answer, Err(ServerFault::Silent));
        known.silent.store(silent, Ordering::Relaxed);
        let answer = answer.map(|answer| {
            if answer.plain {
                known.plain.store(true, Ordering::Relaxed);
            }
            answer.message
        });
        // Nobody may wait for it any more.
        let _lingering = sender.send((place, answer));
    });
    Running {
        task,
        since: Instant::now(),
    }
}

/// Where the server is now: interfaces come and go.
fn address(server: &Server) -> std::io::Result<std::net::SocketAddr> {
    let interface = match server.scope() {
        None => 0,
        Some(scope) => match scope.parse() {
            Ok(number) => number,
            Err(_) => if_nametoindex(scope)?,
        },
    };
    Ok(server.socket_addr(interface))
}

impl Known {
    /// Leaves a question open that nobody waits for; one for each server, and a newer one in
    /// the place of one that had its time.
    fn linger(&self, question: Running) {
        let mut lingering = self
            .lingering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if lingering
            .as_ref()
            .is_none_or(|other| other.since.elapsed() > LINGERS)
        {
            *lingering = Some(question);
        }
    }
}

/// Why nobody answered, server by server.
fn failed(order: &[&Arc<Known>], faults: Vec<(usize, ServerFault)>) -> UpstreamError {
    let heard = faults
        .iter()
        .any(|(_, fault)| !matches!(fault, ServerFault::Silent | ServerFault::Unreachable(_)));
    let each: Vec<String> = order
        .iter()
        .enumerate()
        .map(|(place, known)| {
            let fault = faults.iter().find(|(other, _)| *other == place);
            let fault = fault.map_or(&ServerFault::Silent, |(_, fault)| fault);
            format!("{}: {fault}", known.server)
        })
        .collect();
    let each = each.join("; ");
    if heard {
        UpstreamError::Failed(each)
    } else {
        UpstreamError::NoAnswer(each)
    }
}
