//! The agent's side of the envelope proxy: its start, its orders, and what it says.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    io,
    net::Ipv4Addr,
    path::PathBuf,
    time::Duration,
};

use egress_envelope::{
    judge::{Operation, Refusal},
    secret::Own,
    shape::Baseline,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{
    spec::{ENVELOPE, Order, Said, Spec},
    tap::Tapped,
    why::Why,
};
use crate::{
    dns::{
        inspected::Rules,
        stand::{Learn, What},
    },
    forward::{ForwardError, confined::Place, pipes::Pipes},
};

/// The same about the same name is said once in this time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Different things that are kept in mind for that.
const MAX_SAID: usize = 256;
/// Lines that may wait.
const LINES: usize = 4_096;
/// Longest line of the proxy's: an operation with its recipients. Bytes.
const MAX_LINE: usize = 4 << 20;
/// It, for people.
const WHO: &str = "the envelope proxy";

/// What the envelope proxy is started with.
pub struct Start {
    /// The `cgroup.procs` file of its cgroup.
    pub cgroup_procs: PathBuf,
    /// The pinned table that its listener goes into.
    pub listener: PathBuf,
    /// Where its addresses begin.
    pub net: Ipv4Addr,
    /// Whom the host and the caller trust; PEM.
    pub roots: String,
    /// Texts of the operator's.
    pub operator: Vec<String>,
    /// Values of the connector's environment that look like secrets.
    pub secrets: Vec<Own>,
    /// What operations have shown, now and whenever the operator has it otherwise.
    pub baseline: watch::Receiver<Baseline>,
    /// The version of the connector's package.
    pub version: String,
    /// Names and addresses that it is to know.
    pub learn: mpsc::Receiver<Learn>,
    /// How requests are judged.
    pub rules: watch::Receiver<Rules>,
    /// What the client says.
    pub tapped: mpsc::Receiver<Tapped>,
}

/// Something to be told of the envelope proxy.
#[derive(Debug)]
pub enum Told {
    /// A request was judged.
    Operation(Box<Judged>),
    /// What people should know.
    Warning(String),
}

/// A request that was judged.
#[derive(Clone, PartialEq, Debug)]
pub struct Judged {
    /// The name that was called.
    pub name: String,
    /// At which port.
    pub port: u16,
    /// What it was.
    pub operation: Operation,
    /// Why it was refused, or would have been.
    pub refusals: Vec<Refusal>,
    /// The answer's status.
    pub status: Option<u16>,
}

/// A running envelope proxy, which ends when this is dropped.
pub struct Envelope {
    task: JoinHandle<()>,
    lines: mpsc::Receiver<Told>,
}

impl Envelope {
    /// Starts an envelope proxy and waits until it is confined and listens. Answers its authority,
    /// too, in PEM.
    pub async fn start(mut start: Start) -> Result<(Self, String), ForwardError> {
        let mut pipes =
            Pipes::start(ENVELOPE, MAX_LINE).map_err(|error| ForwardError::Spawn(WHO, error))?;
        let spec = Spec {
            place: Place::new(start.cgroup_procs, start.listener, start.net),
            roots: start.roots,
            rules: start.rules.borrow_and_update().clone(),
            operator: start.operator,
            secrets: start.secrets,
            baseline: start.baseline.borrow_and_update().clone(),
            version: start.version,
        };
        let ca_pem = match pipes.begin(WHO, &spec).await? {
            Said::Ready { ca_pem } => ca_pem,
            Said::Failed(message) => return Err(ForwardError::Failed(WHO, message)),
            said => return Err(ForwardError::Failed(WHO, format!("it began with {said:?}"))),
        };
        let (told, lines) = mpsc::channel(LINES);
        let talk = Talk {
            pipes,
            waiting: VecDeque::new(),
            said: HashMap::new(),
            told,
            missed: 0,
        };
        let task =
            tokio::spawn(talk.carry_on(start.learn, (start.rules, start.baseline), start.tapped));
        Ok((Self { task, lines }, ca_pem))
    }

    /// The next thing to be told of it. Never where there is nothing more. Safe to cancel.
    pub async fn next(&mut self) -> Told {
        match self.lines.recv().await {
            Some(told) => told,
            None => pending().await,
        }
    }

    /// What is left to be told.
    pub fn last(&mut self) -> Option<Told> {
        self.lines.try_recv().ok()
    }
}

impl Drop for Envelope {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The talk with a running envelope proxy.
struct Talk {
    pipes: Pipes,
    /// Who waits for something to be learned, in the order in which they were told.
    waiting: VecDeque<oneshot::Sender<()>>,
    /// What was said lately, and how often it happened since.
    said: HashMap<(String, u16, Why), (Instant, u64)>,
    told: mpsc::Sender<Told>,
    /// Lines for which there was no room.
    missed: u64,
}

impl Talk {
    async fn carry_on(
        mut self,
        mut learn: mpsc::Receiver<Learn>,
        (mut rules, mut baseline): (watch::Receiver<Rules>, watch::Receiver<Baseline>),
        mut tapped: mpsc::Receiver<Tapped>,
    ) {
        let ended = loop {
            let sent = tokio::select! {
                said = self.pipes.hear() => match said.and_then(|said| self.take(said)) {
                    Ok(()) => Ok(()),
                    Err(error) => break error,
                },
                Some(Learn { what, done }) = learn.recv() => {
                    self.waiting.push_back(done);
                    self.pipes.say(&order(what)).await
                }
                Ok(()) = rules.changed() => {
                    let rules = rules.borrow_and_update().clone();
                    self.pipes.say(&Order::Rules(rules)).await
                }
                Ok(()) = baseline.changed() => {
                    let baseline = baseline.borrow_and_update().clone();
                    self.pipes.say(&Order::Baseline(baseline)).await
                }
                Some(Tapped { order, done }) = tapped.recv() => {
                    let said = self.pipes.say(&order).await;
                    if let Some(done) = done {
                        // The line has waited long enough and gone on.
                        let _gone = done.send(());
                    }
                    said
                }
            };
            if let Err(error) = sent {
                break error;
            }
        };
        let status = self.pipes.end().await;
        let message = format!(
            "{WHO} is gone ({ended}; {status}): no name under a rule with “inspect” is reached; \
             restart the connector"
        );
        let _ends_too = self.told.send(Told::Warning(message)).await;
    }

    fn take(&mut self, said: Said) -> io::Result<()> {
        match said {
            Said::Learned => {
                if let Some(done) = self.waiting.pop_front() {
                    // Who asked has waited long enough.
                    let _gone = done.send(());
                }
            }
            Said::Operation {
                name,
                port,
                operation,
                refusals,
                status,
            } => self.tell(Told::Operation(Box::new(Judged {
                name,
                port,
                operation,
                refusals,
                status,
            }))),
            Said::Lost { name, port, why } => self.lost(name, port, why),
            Said::Missed(lines) => self.missed = self.missed.saturating_add(lines),
            said => return Err(io::Error::other(format!("it said {said:?}"))),
        }
        if self.missed > 0 && self.told.capacity() > 1 {
            let message = format!(
                "{} operations were judged and are not shown: more came than could be told",
                std::mem::take(&mut self.missed)
            );
            self.tell(Told::Warning(message));
        }
        Ok(())
    }

    /// Says once a minute what happened to a name.
    fn lost(&mut self, name: String, port: u16, why: Why) {
        let key = (name, port, why);
        let now = Instant::now();
        let mut times = 1;
        if let Some((when, count)) = self.said.get_mut(&key) {
            *count = count.saturating_add(1);
            if now.duration_since(*when) < AGAIN_AFTER {
                return;
            }
            times = *count;
        } else if self.said.len() >= MAX_SAID {
            self.said.clear();
        }
        let mut line = format!("{}:{}: {}", key.0, key.1, key.2);
        if times > 1 {
            line += &format!(" (x{times})");
        }
        self.said.insert(key, (now, 0));
        self.tell(Told::Warning(line));
    }

    fn tell(&mut self, told: Told) {
        if self.told.try_send(told).is_err() {
            self.missed = self.missed.saturating_add(1);
        }
    }
}

fn order(what: What) -> Order {
    match what {
        What::Stands(address, name) => Order::Learn {
            address,
            name: name.as_str().to_owned(),
        },
        What::IsAt(name, addresses) => Order::Upstream {
            name: name.as_str().to_owned(),
            addresses,
        },
    }
}
