//! The agent's side of the forwarder: its start, its orders, and what it says.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    unistd::pipe2,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::unix::pipe::{Receiver, Sender},
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    spec::{FORWARDER, Order, Said, Spec, Why},
    story::story,
};
use crate::{
    dns::proxied::{Learn, Proxied},
    host::{memory, switch},
    launch::spec::say,
    policy::proxy::Proxy,
};

/// How long the forwarder may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// The same about the same name is said once in this time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Different things that are kept in mind for that.
const MAX_SAID: usize = 256;
/// Lines for people that may wait.
const LINES: usize = 256;
/// Longest line of the forwarder's. Bytes.
const MAX_LINE: usize = 4_096;
/// User ids of services that systemd makes up (`DynamicUser=`, systemd.exec(5)): nobody's files.
const USERS: (u32, u32) = (61_184, 65_519);

/// Why there is no forwarder.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// It could not be made.
    #[error("cannot start the forwarder to the proxy: {0}")]
    Spawn(#[from] io::Error),
    /// It said why it gave up.
    #[error("the forwarder to the proxy did not start: {0}")]
    Failed(String),
    /// It did not get ready.
    #[error("the forwarder to the proxy was not ready within {} s", READY_WITHIN.as_secs())]
    Slow,
}

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
        let (commands_read, commands_write) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
        let (answers_read, answers_write) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
        inheritable(&commands_read)?;
        inheritable(&answers_write)?;
        let child = Command::new("/proc/self/exe")
            .arg(FORWARDER)
            .arg(commands_read.as_raw_fd().to_string())
            .arg(answers_write.as_raw_fd().to_string())
            .env_clear()
            .envs(switch::inherited())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        drop((commands_read, answers_write));
        let spec = Spec {
            cgroup_procs: start.cgroup_procs,
            listener: start.listener,
            net: start.net,
            uid: USERS.0 + std::process::id() % (USERS.1 - USERS.0 + 1),
            oom_score_adj: memory::spare(),
            authorization: start
                .proxy
                .credentials
                .as_ref()
                .map(|it| it.authorization()),
        };
        let mut commands = File::from(commands_write);
        say(&mut commands, &spec)?;
        let answers = BufReader::new(Receiver::from_owned_fd(answers_read)?);
        let (told, lines) = mpsc::channel(LINES);
        let mut talk = Talk {
            child,
            commands: Sender::from_owned_fd(commands.into())?,
            answers,
            proxied,
            proxy: start.proxy,
            waiting: VecDeque::new(),
            said: HashMap::new(),
            told,
        };
        match timeout(READY_WITHIN, talk.next()).await {
            Ok(Ok(Said::Ready)) => {}
            Ok(Ok(Said::Failed(message))) => return Err(ForwardError::Failed(message)),
            Ok(Ok(said)) => return Err(ForwardError::Failed(format!("it began with {said:?}"))),
            Ok(Err(error)) => return Err(ForwardError::Failed(error.to_string())),
            Err(_) => return Err(ForwardError::Slow),
        }
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
    child: Child,
    commands: Sender,
    answers: BufReader<Receiver>,
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
        let mut line = Vec::new();
        let ended = loop {
            let sent = tokio::select! {
                read = more(&mut self.answers, &mut line) => match read.and_then(|()| self.take(&mut line)) {
                    Ok(()) => Ok(()),
                    Err(error) => break error,
                },
                Some(Learn { address, name, done }) = learn.recv() => {
                    self.waiting.push_back(done);
                    self.order(&Order::Learn { address, name: name.as_str().to_owned() }).await
                }
                Some(proxies) = proxies.recv() => self.order(&Order::Proxy(proxies)).await,
            };
            if let Err(error) = sent {
                break error;
            }
        };
        // Whatever it was, this forwarder is not trusted with more.
        let killed = self.child.kill().await;
        let why = match killed.and(self.child.wait().await) {
            Ok(status) => format!("{ended}; {status}"),
            Err(error) => format!("{ended}; {error}"),
        };
        let message = format!(
            "the forwarder to {} is gone ({why}): no name that goes through it is reached; restart \
             the connector",
            self.proxy
        );
        let _ends_too = self.told.send(message).await;
    }

    async fn order(&mut self, order: &Order) -> io::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.commands.write_all(&line).await
    }

    async fn next(&mut self) -> io::Result<Said> {
        let mut line = Vec::new();
        more(&mut self.answers, &mut line).await?;
        Ok(serde_json::from_slice(&line)?)
    }

    fn take(&mut self, line: &mut Vec<u8>) -> io::Result<()> {
        match serde_json::from_slice(&std::mem::take(line))? {
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

/// Reads to the end of a line, which may have begun earlier. Safe to cancel.
async fn more(answers: &mut BufReader<Receiver>, line: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let bytes = answers.fill_buf().await?;
        if bytes.is_empty() {
            return Err(io::Error::other("it ended"));
        }
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(bytes.len(), |at| at.saturating_add(1));
        line.extend(bytes.iter().take(taken));
        answers.consume(taken);
        if line.len() > MAX_LINE {
            return Err(io::Error::other("it said more than a line has room for"));
        }
        if end.is_some() {
            return Ok(());
        }
    }
}

/// Lets the child process have a descriptor.
fn inheritable(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from)?;
    Ok(())
}
