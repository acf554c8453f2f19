//! The agent's side of a start.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    unistd::pipe2,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::unix::pipe::Receiver,
    process::{Child, Command},
    time::timeout,
};

use super::{
    spec::{GO, LAUNCHER, Said, Spec, say},
    stdio::{self, Relay, Relaying},
};
use crate::host::switch;

/// How long the launcher may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Why a connector was not started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher could not be made.
    #[error("cannot start the launcher: {0}")]
    Spawn(#[from] io::Error),
    /// The agent's standard input, output or error is of no use.
    #[error("cannot hand over standard input, output and error: {0}")]
    Standard(#[source] io::Error),
    /// The launcher said why it gave up.
    #[error("{message}")]
    Failed {
        /// Exit code for this failure: 125, 126 or 127.
        code: u8,
        /// What happened and what to do.
        message: String,
    },
    /// The launcher ended without a word.
    #[error("the launcher ended before the connector was started ({0})")]
    Gone(String),
    /// The launcher did not get ready.
    #[error("the launcher was not ready within {} s", READY_WITHIN.as_secs())]
    Slow,
}

/// A launcher inside the boundary, ready to become the connector.
pub struct Ready {
    child: Child,
    commands: File,
    answers: BufReader<Receiver>,
    relay: Relay,
}

/// A started connector.
pub struct Started {
    /// The connector's first process.
    pub child: Child,
    /// Its process id.
    pub pid: u32,
    /// What carries its standard input, output and error.
    pub relaying: Relaying,
}

/// Starts the launcher and waits until it is inside, without rights, and has seen the
/// boundary hold. Standard input, output and error are the agent's own, where that is safe.
pub async fn start(spec: &Spec) -> Result<Ready, LaunchError> {
    let (commands_read, commands_write) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let (answers_read, answers_write) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    inheritable(&commands_read)?;
    inheritable(&answers_write)?;
    let standard = stdio::standard(spec.uid).map_err(LaunchError::Standard)?;
    let [input, output, error] = standard.given;
    let child = Command::new("/proc/self/exe")
        .arg(LAUNCHER)
        .arg(commands_read.as_raw_fd().to_string())
        .arg(answers_write.as_raw_fd().to_string())
        .env_clear()
        .envs(switch::inherited())
        .stdin(input)
        .stdout(output)
        .stderr(error)
        .kill_on_drop(true)
        .spawn()?;
    drop((commands_read, answers_write));
    let mut ready = Ready {
        child,
        commands: File::from(commands_write),
        answers: BufReader::new(Receiver::from_owned_fd(answers_read)?),
        relay: standard.relay,
    };
    say(&mut ready.commands, spec)?;
    match timeout(READY_WITHIN, ready.next()).await {
        Ok(Ok(Some(Said::Ready))) => Ok(ready),
        Ok(Ok(Some(Said::Failed { code, message }))) => Err(LaunchError::Failed { code, message }),
        Ok(Ok(None)) => Err(ready.gone().await),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(LaunchError::Slow),
    }
}

impl Ready {
    /// Lets the launcher execute the connector's program.
    pub async fn go(mut self) -> Result<Started, LaunchError> {
        let pid = self
            .child
            .id()
            .ok_or_else(|| LaunchError::Gone("no process".to_owned()))?;
        // Not before: a start that fails takes nothing from the client.
        let relay = std::mem::take(&mut self.relay);
        let relaying = relay.start().map_err(LaunchError::Standard)?;
        say(&mut self.commands, &GO)?;
        match self.next().await? {
            // `execve` closed the pipe.
            None => Ok(Started {
                child: self.child,
                pid,
                relaying,
            }),
            Some(Said::Failed { code, message }) => Err(LaunchError::Failed { code, message }),
            Some(Said::Ready) => Err(LaunchError::Gone("it repeated itself".to_owned())),
        }
    }

    async fn next(&mut self) -> io::Result<Option<Said>> {
        let mut line = Vec::new();
        if self.answers.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }

    async fn gone(&mut self) -> LaunchError {
        match self.child.wait().await {
            Ok(status) => LaunchError::Gone(status.to_string()),
            Err(error) => error.into(),
        }
    }
}

/// Lets a child process have a descriptor.
pub(crate) fn inheritable(fd: &OwnedFd) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from)?;
    Ok(())
}
