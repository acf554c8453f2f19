//! The agent's side of a confined process beside a connector: its start, and lines both ways.

use std::{
    future::Future,
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, OwnedFd},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    unistd::pipe2,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::unix::pipe::{Receiver, Sender},
    process::{Child, Command},
    time::timeout,
};

use super::confined::Place;
use crate::host::{memory, switch};

/// How long such a process may take to get ready.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// User ids of services that systemd makes up (`DynamicUser=`, systemd.exec(5)): nobody's files.
const USERS: (u32, u32) = (61_184, 65_519);

/// Why there is no such process.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// It could not be made.
    #[error("cannot start {0}: {1}")]
    Spawn(&'static str, #[source] io::Error),
    /// It said why it gave up.
    #[error("{0} did not start: {1}")]
    Failed(&'static str, String),
    /// It did not get ready.
    #[error("{0} was not ready within {after} s", after = READY_WITHIN.as_secs())]
    Slow(&'static str),
}

impl Place {
    /// The place of a process whose cgroup has this `cgroup.procs`, whose listener goes into this
    /// pinned table, and whose addresses begin at `net`.
    pub fn new(cgroup_procs: PathBuf, listener: PathBuf, net: Ipv4Addr) -> Self {
        Self {
            cgroup_procs,
            listener,
            net,
            uid: USERS.0 + std::process::id() % (USERS.1 - USERS.0 + 1),
            oom_score_adj: memory::spare(),
        }
    }
}

/// A process and the two pipes to it. It ends when this is dropped.
pub struct Pipes {
    child: Child,
    commands: Sender,
    answers: BufReader<Receiver>,
    line: Vec<u8>,
    most: usize,
}

impl Pipes {
    /// Starts this binary anew as `subcommand`. `most`: bytes of a line that it says.
    pub fn start(subcommand: &str, most: usize) -> io::Result<Self> {
        let (commands_read, commands_write) = pipe2(OFlag::O_CLOEXEC)?;
        let (answers_read, answers_write) = pipe2(OFlag::O_CLOEXEC)?;
        inheritable(&commands_read)?;
        inheritable(&answers_write)?;
        let child = Command::new("/proc/self/exe")
            .arg(subcommand)
            .arg(commands_read.as_raw_fd().to_string())
            .arg(answers_write.as_raw_fd().to_string())
            .env_clear()
            .envs(switch::inherited())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            child,
            commands: Sender::from_owned_fd(commands_write)?,
            answers: BufReader::new(Receiver::from_owned_fd(answers_read)?),
            line: Vec::new(),
            most,
        })
    }

    /// Says the first line, and waits for the first answer. `who`: the process, for people.
    pub async fn begin<T: DeserializeOwned>(
        &mut self,
        who: &'static str,
        spec: &impl Serialize,
    ) -> Result<T, ForwardError> {
        let began = async {
            self.say(spec).await?;
            self.hear().await
        };
        match timeout(READY_WITHIN, began).await {
            Ok(Ok(said)) => Ok(said),
            Ok(Err(error)) => Err(ForwardError::Failed(who, error.to_string())),
            Err(_) => Err(ForwardError::Slow(who)),
        }
    }

    /// Says a line.
    pub fn say(&mut self, what: &impl Serialize) -> impl Future<Output = io::Result<()>> {
        let line = serde_json::to_vec(what);
        async {
            let mut line = line?;
            line.push(b'\n');
            self.commands.write_all(&line).await
        }
    }

    /// The next line that it says. Safe to cancel.
    pub async fn hear<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        loop {
            let bytes = self.answers.fill_buf().await?;
            if bytes.is_empty() {
                return Err(io::Error::other("it ended"));
            }
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(bytes.len(), |at| at.saturating_add(1));
            self.line.extend(bytes.iter().take(taken));
            self.answers.consume(taken);
            if self.line.len() > self.most {
                return Err(io::Error::other("it said more than a line has room for"));
            }
            if end.is_some() {
                return Ok(serde_json::from_slice(&std::mem::take(&mut self.line))?);
            }
        }
    }

    /// Ends it: whatever went wrong, it is not trusted with more. Answers how it ended.
    pub async fn end(mut self) -> String {
        let killed = self.child.kill().await;
        match killed.and(self.child.wait().await) {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

/// Lets the child process have a descriptor.
fn inheritable(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from)?;
    Ok(())
}
