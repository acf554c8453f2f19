//! The agent's side of the forwarder: its start, its orders, and what it says.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::{
    confined::Place,
    pipes::{ForwardError, Pipes},
    spec::{FORWARDER, Order, Said, Spec, Why},
    story::story,
};
use crate::{
    dns::{
        proxied::Proxied,
        stand::{Learn, What},
    },
    policy::proxy::Proxy,
};

/// The same about the same name is said once in this time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Different things that are kept in mind for that.
const MAX_SAID: usize = 256;
/// Lines for people that may wait.
const LINES: usize = 256;
/// Longest line of the forwarder's. Bytes.
const MAX_LINE: usize = 4_096;
/// It, for people.
const WHO: &str = "the forwarder to the proxy";

/// What a forwarder is started with.
pub struct Start {
    /// The proxy.
    pub proxy: Proxy,
    /// The `cgroup.procs` file of its cgroup.
    pub cgroup_procs: PathBuf,
    /// The pinned table that its listener goes into.
    pub listener: PathBuf,
    /// Where its addresses begin.
    pub net: Ipv4Addr,
}

/// A running forwarder, which ends when this is dropped.
pub struct Forwarder {
    task: JoinHandle<()>,
    lines: mpsc::Receiver<String>,
}

impl Forwarder {
    /// Starts a forwarder and waits until it is confined and listens. `learn` are names it is to
    /// know, `proxies` where the proxy is, `proxied` what its addresses stand for.
    pub async fn start(
        start: Start,
        learn: mpsc::Receiver<Learn>,
        proxies: mpsc::Receiver<Vec<SocketAddr>>,
        proxied: Arc<Proxied>,
    ) -> Result<Self, ForwardError> {
        let mut pipes =
            Pipes::start(FORWARDER, MAX_LINE).map_err(|error| ForwardError::Spawn(WHO, error))?;
        let spec = Spec {
            place: Place::new(start.cgroup_procs, start.listener, start.net),
            authorization: start
                .proxy
                .credentials
                .as_ref()
                .map(|it| it.authorization()),
        };
        match pipes.begin(WHO, &spec).await? {
            Said::Ready => {}
            Said::Failed(message) => return Err(ForwardError::Failed(WHO, message)),
            said => return Err(ForwardError::Failed(WHO, format!("it began with {said:?}"))),
        }
        let (told, lines) = mpsc::channel(LINES);
        let talk = Talk {
            pipes,
            proxied,
            proxy: start.proxy,
            waiting: VecDeque::new(),
            said: HashMap::new(),
            told,
        };
        let task = tokio::spawn(talk.carry_on(learn, proxies));
        Ok(Self { task, lines })
    }

    /// The next thing people should know of it. Never where there is nothing more. Safe to cancel.
    pub async fn next(&mut self) -> String {
        match self.lines.recv().await {
            Some(line) => line,
            None => pending().await,
        }
    }

    /// What is left to be said.
    pub fn last(&mut self) -> Option<String> {
        self.lines.try_recv().ok()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The talk with a running forwarder.
struct Talk {
    pipes: Pipes,
    proxied: Arc<Proxied>,
    proxy: Proxy,
    /// Who waits for a name to be learned, in the order in which they were told.
    waiting: VecDeque<oneshot::Sender<()>>,
    /// What was said lately, and how often it happened since.
    said: HashMap<(String, u16, Why), (Instant, u64)>,
    told: mpsc::Sender<String>,
}

impl Talk {
    async fn carry_on(
        mut self,
        mut learn: mpsc::Receiver<Learn>,
        mut proxies: mpsc::Receiver<Vec<SocketAddr>>,
    ) {
        let ended = loop {
            let sent = tokio::select! {
                said = self.pipes.hear() => match said.and_then(|said| self.take(said)) {
                    Ok(()) => Ok(()),
                    Err(error) => break error,
                },
                Some(Learn { what: What::Stands(address, name), done }) = learn.recv() => {
                    self.waiting.push_back(done);
                    let name = name.as_str().to_owned();
                    self.pipes.say(&Order::Learn { address, name }).await
                }
                Some(proxies) = proxies.recv() => self.pipes.say(&Order::Proxy(proxies)).await,
            };
            if let Err(error) = sent {
                break error;
            }
        };
        let status = self.pipes.end().await;
        let why = format!("{ended}; {status}");
        let message = format!(
            "the forwarder to {} is gone ({why}): no name that goes through it is reached; restart \
             the connector",
            self.proxy
        );
        let _ends_too = self.told.send(message).await;
    }

    fn take(&mut self, said: Said) -> io::Result<()> {
        match said {
            Said::Learned => {
                if let Some(done) = self.waiting.pop_front() {
                    // Who asked has waited long enough.
                    let _gone = done.send(());
                }
                Ok(())
            }
            Said::Lost { address, port, why } => {
                self.lost(address, port, why);
                Ok(())
            }
            said => Err(io::Error::other(format!("it said {said:?}"))),
        }
    }

    /// Says once a minute what happened to a name.
    fn lost(&mut self, address: Ipv4Addr, port: u16, why: Why) {
        let Some(name) = self.proxied.name_at(address) else {
            return;
        };
        let key = (name.as_str().to_owned(), port, why);
        let now = Instant::now();
        let known = self.said.get_mut(&key);
        let mut times = 1;
        if let Some((when, count)) = known {
            *count = count.saturating_add(1);
            if now.duration_since(*when) < AGAIN_AFTER {
                return;
            }
            times = *count;
        } else if self.said.len() >= MAX_SAID {
            self.said.clear();
        }
        let credentials = self.proxy.credentials.is_some();
        let mut line = story(&self.proxy.to_string(), credentials, &key.0, port, &key.2);
        if times > 1 {
            line += &format!(" (x{times})");
        }
        self.said.insert(key, (now, 0));
        // Lines that nobody has taken for so long are not what people wait for.
        let _full = self.told.try_send(line);
    }
}
