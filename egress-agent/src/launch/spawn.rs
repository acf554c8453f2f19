//! The agent's side of a start.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::{ExitStatus, Stdio},
    thread,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl},
    sched::{CloneFlags, unshare},
    unistd::pipe2,
};
use rustix::{
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    io::{AsyncReadExt as _, Interest},
    net::{UnixStream, unix::pipe::Receiver},
    process::{Child, Command},
    runtime::Handle,
    time::timeout,
};

use super::{
    init,
    spec::{GO, LAUNCHER, NONE, Said, Spec, say},
    stdio::{self, Relay, Relaying, Tap},
};
use crate::host::switch::{self, Part};

/// How long the launcher may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// What is read of the launcher at once.
const PIECE: usize = 4096;

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
    /// The launcher found its number in a `/proc` that is not the agent's.
    #[error(
        "the launcher is not process {0} here: /proc shows another PID namespace than the agent's; \
         mount it anew (`mount -t proc proc /proc`); the connector was not started"
    )]
    OtherProc(u32),
    /// The launcher did not get ready.
    #[error("the launcher was not ready within {} s", READY_WITHIN.as_secs())]
    Slow,
}

/// Descriptors that somebody else than the agent holds the other ends of, so that a connector
/// outlives the agent that started it. By default everything is the agent's own.
#[derive(Debug, Default)]
pub struct Given {
    /// Standard input, output and error.
    pub standard: Option<[OwnedFd; 3]>,
    /// A pipe that hangs up with whoever the connector is to end with.
    pub lifeline: Option<OwnedFd>,
    /// A pipe into which the init writes the wait status as well.
    pub status: Option<OwnedFd>,
}

/// A launcher inside the boundary, ready to become the connector.
pub struct Ready {
    inside: Inside,
    commands: File,
    answers: Answers,
    relay: Relay,
    pid: u32,
    process: OwnedFd,
}

/// A started connector.
pub struct Started {
    inside: Inside,
    /// The init watches it: everything inside ends when it is closed.
    _lifeline: File,
    /// The connector's first process, on the host.
    pub pid: u32,
    /// The same as a descriptor (pidfd_open(2)), which never means another process.
    pub process: OwnedFd,
    /// What carries its standard input, output and error.
    pub relaying: Relaying,
    /// By which refused system calls are answered.
    pub refused: Option<OwnedFd>,
}

/// The agent's child: the init, or without a PID namespace the connector itself.
struct Inside {
    child: Child,
    /// What the init writes; `None`: there is none.
    status: Option<Receiver>,
}

/// Starts the launcher and waits until it is inside, without rights, and has seen the
/// boundary hold. Standard input, output and error are handed over where that is safe.
pub async fn start(spec: &Spec, tap: Option<Tap>, given: Given) -> Result<Ready, LaunchError> {
    let (commands_read, commands_write) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let (status_read, status_write) = pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)?;
    let (answers, theirs) = std::os::unix::net::UnixStream::pair()?;
    answers.set_nonblocking(true)?;
    let theirs = OwnedFd::from(theirs);
    let outlives = given.lifeline.is_some();
    let standard = match given.standard {
        Some(standard) => stdio::foreign(standard),
        None => stdio::standard(spec.uid, tap),
    };
    let standard = standard.map_err(LaunchError::Standard)?;
    let [input, output, error] = standard.given.map(Stdio::from);
    let mut command = Command::new("/proc/self/exe");
    command.arg(LAUNCHER);
    for fd in [&commands_read, &theirs, &status_write] {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from)?;
        command.arg(fd.as_raw_fd().to_string());
    }
    for fd in [&given.lifeline, &given.status] {
        let number = match fd {
            Some(fd) => {
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map_err(io::Error::from)?;
                fd.as_raw_fd()
            }
            None => NONE,
        };
        command.arg(number.to_string());
    }
    command
        .env_clear()
        .envs(switch::inherited())
        .stdin(input)
        .stdout(output)
        .stderr(error)
        .kill_on_drop(!outlives);
    let divided = !spec.host_processes && !switch::is_off(Part::Processes);
    let child = if divided {
        first_of_its_namespace(command)?
    } else {
        command.spawn()?
    };
    drop((
        commands_read,
        theirs,
        status_write,
        given.lifeline,
        given.status,
    ));
    let mut launching = Launching {
        inside: Inside {
            child,
            status: divided
                .then(|| Receiver::from_owned_fd(status_read))
                .transpose()?,
        },
        answers: Answers {
            socket: UnixStream::from_std(answers)?,
            buffer: Vec::new(),
            descriptor: None,
        },
    };
    let mut commands = File::from(commands_write);
    say(&mut commands, spec)?;
    let pid = timeout(READY_WITHIN, launching.ready())
        .await
        .map_err(|_| LaunchError::Slow)??;
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| LaunchError::Gone("no process".to_owned()))?;
    Ok(Ready {
        inside: launching.inside,
        commands,
        answers: launching.answers,
        relay: standard.relay,
        pid,
        process: pidfd_open(process, PidfdFlags::empty()).map_err(|error| match error {
            rustix::io::Errno::SRCH => LaunchError::OtherProc(pid),
            error => LaunchError::Spawn(error.into()),
        })?,
    })
}

/// Starts a process that is number 1 of a new PID namespace. In a thread of its own, because
/// unshare(2) changes what the calling thread's children are born into, for good.
fn first_of_its_namespace(mut command: Command) -> io::Result<Child> {
    let runtime = Handle::current();
    let spawning = thread::Builder::new().name("spawn".to_owned());
    let thread = spawning.spawn(move || {
        let _inside = runtime.enter();
        unshare(CloneFlags::CLONE_NEWPID)?;
        command.spawn()
    })?;
    let gone = |_| io::Error::other("the thread that starts the launcher is gone");
    thread.join().map_err(gone)?
}

/// A launcher on its way.
struct Launching {
    inside: Inside,
    answers: Answers,
}

impl Launching {
    /// Waits for launcher and init. Answers the launcher's process id.
    async fn ready(&mut self) -> Result<u32, LaunchError> {
        let pid = match self.answers.next().await? {
            Some(Said::Ready { pid }) => pid,
            Some(Said::Failed { code, message }) => {
                return Err(LaunchError::Failed { code, message });
            }
            Some(Said::Filtered) | None => return Err(self.gone().await),
        };
        let Some(status) = &mut self.inside.status else {
            return Ok(pid);
        };
        // From now on nobody inside can take hold of the init.
        if matches!(status.read_u8().await, Ok(init::READY)) {
            return Ok(pid);
        }
        match self.answers.next().await? {
            Some(Said::Failed { code, message }) => Err(LaunchError::Failed { code, message }),
            _ => Err(self.gone().await),
        }
    }

    async fn gone(&mut self) -> LaunchError {
        match self.inside.child.wait().await {
            Ok(status) => LaunchError::Gone(status.to_string()),
            Err(error) => error.into(),
        }
    }
}

impl Ready {
    /// Lets the launcher execute the connector's program.
    pub async fn go(mut self) -> Result<Started, LaunchError> {
        // Not before: a start that fails takes nothing from the client.
        let relay = std::mem::take(&mut self.relay);
        let relaying = relay.start().map_err(LaunchError::Standard)?;
        say(&mut self.commands, &GO)?;
        loop {
            match self.answers.next().await? {
                // `execve` closed the socket.
                None => break,
                Some(Said::Filtered) => {}
                Some(Said::Failed { code, message }) => {
                    return Err(LaunchError::Failed { code, message });
                }
                Some(Said::Ready { .. }) => {
                    return Err(LaunchError::Gone("it repeated itself".to_owned()));
                }
            }
        }
        Ok(Started {
            inside: self.inside,
            _lifeline: self.commands,
            pid: self.pid,
            process: self.process,
            relaying,
            refused: self.answers.descriptor,
        })
    }
}

impl Started {
    /// Waits for the end of the connector's first process. Safe to cancel.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = &mut self.inside.status {
            let mut bytes = [0; 4];
            // A pipe takes and gives four bytes whole.
            if status.read(&mut bytes).await? == bytes.len() {
                return Ok(ExitStatus::from_raw(i32::from_ne_bytes(bytes)));
            }
            // Somebody ended the init, and the kernel all the others with it.
            self.inside.status = None;
        }
        self.inside.child.wait().await
    }
}

/// What the launcher says, line by line, and the one descriptor that comes with it.
struct Answers {
    socket: UnixStream,
    buffer: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

impl Answers {
    async fn next(&mut self) -> io::Result<Option<Said>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.receive().await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn receive(&mut self) -> io::Result<usize> {
        let Self {
            socket,
            buffer,
            descriptor,
        } = self;
        socket
            .async_io(Interest::READABLE, || {
                let mut piece = [0; PIECE];
                let mut space =
                    [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut attached = RecvAncillaryBuffer::new(&mut space);
                let flags = RecvFlags::CMSG_CLOEXEC;
                let mut into = [IoSliceMut::new(&mut piece)];
                let received = recvmsg(&*socket, &mut into, &mut attached, flags);
                let length = match received {
                    Ok(received) => received.bytes,
                    // A launcher that ended with something unread.
                    Err(rustix::io::Errno::CONNRESET) => 0,
                    Err(error) => return Err(error.into()),
                };
                for message in attached.drain() {
                    if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                        *descriptor = descriptors.last();
                    }
                }
                buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
                Ok(length)
            })
            .await
    }
}
