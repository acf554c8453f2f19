//! Child processes that cannot outlast their deadline.

use std::{
    env, fs,
    io::Read,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{SigHandler, Signal, kill, killpg, signal},
    unistd::Pid,
};

const POLL: Duration = Duration::from_millis(2);
/// A program that is dead may have left its output open in a child of its own.
const DRAIN: Duration = Duration::from_secs(1);

/// How long a program that is no longer needed may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(3);

/// A started program, the leader of a process group of its own.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Collector,
    stderr: Collector,
    started: Instant,
    limit: Duration,
    text: String,
}

/// What a program left.
#[derive(Debug)]
pub struct Outcome {
    /// The command line.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// It was killed because its time was over.
    pub timed_out: bool,
    /// Standard output, as it came.
    pub stdout: Vec<u8>,
    /// Standard error, text.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Running {
    /// Starts a command, with its deadline. Standard input is a pipe that stays open until
    /// [`Running::close_stdin`] or the end.
    ///
    /// Signals that whoever runs the tests has ignored (nohup(1), a shell's `&`) act again: what
    /// is started here looks at them.
    pub fn start(mut command: Command, limit: Duration) -> Result<Self> {
        let text = format!("{command:?}");
        // SAFETY: signal(2) is async-signal-safe (signal-safety(7)) and takes no memory.
        unsafe {
            command.pre_exec(|| {
                for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
                    signal(ignored, SigHandler::SigDfl)?;
                }
                Ok(())
            });
        }
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {text}"))?;
        let stdin = child.stdin.take();
        let stdout = Collector::start(child.stdout.take().context("no stdout")?);
        let stderr = Collector::start(child.stderr.take().context("no stderr")?);
        Ok(Self {
            child,
            stdin,
            stdout,
            stderr,
            started: Instant::now(),
            limit: limit * patience(),
            text,
        })
    }

    /// Process id of the program itself.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The pipe to its standard input.
    pub fn stdin(&mut self) -> Result<&mut ChildStdin> {
        self.stdin.as_mut().context("standard input is closed")
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Standard output so far.
    pub fn stdout(&self) -> Vec<u8> {
        self.stdout.so_far()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far()).into_owned()
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Closes its standard input and waits for its end; at the deadline its process group is
    /// killed.
    pub fn wait(mut self) -> Result<Outcome> {
        self.close_stdin();
        let mut timed_out = false;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if self.started.elapsed() >= self.limit {
                timed_out = true;
                self.kill();
                break self.child.wait()?;
            }
            thread::sleep(POLL);
        };
        let took = self.started.elapsed();
        self.stdout.drain();
        self.stderr.drain();
        Ok(Outcome {
            command: self.text.clone(),
            status,
            timed_out,
            stdout: self.stdout(),
            stderr: self.stderr(),
            took,
        })
    }

    fn kill(&self) {
        // It fails only where the group is gone already.
        let _ = killpg(self.pid(), Signal::SIGKILL);
    }
}

impl Drop for Running {
    /// A test that failed half-way still lets the agent clear up after itself, within a bound.
    fn drop(&mut self) {
        self.close_stdin();
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // It fails only where the process is gone already.
        let _ = kill(self.pid(), Signal::SIGTERM);
        let end = Instant::now() + FAREWELL;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                self.kill();
                drop(self.child.wait());
                return;
            }
            thread::sleep(POLL);
        }
    }
}

impl Outcome {
    /// The exit code as a shell gives it: 128 + signal for a program that a signal ended.
    pub fn code(&self) -> i32 {
        let by_signal = || self.status.signal().map_or(-1, |signal| 128 + signal);
        self.status.code().unwrap_or_else(by_signal)
    }

    /// Whether it ended by itself with 0.
    pub fn ok(&self) -> bool {
        self.status.success() && !self.timed_out
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// How many times longer than usual programs may take: `EGRESS_TEST_PATIENCE`, for machines
/// that are emulated.
pub fn patience() -> u32 {
    let factor = env::var("EGRESS_TEST_PATIENCE").ok();
    factor.and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// The time that one way out gets where it would get `time` elsewhere. Whoever hangs does so
/// everywhere, and hundreds are tried: less than [`patience`] has to do.
pub fn patient(time: Duration) -> Duration {
    time * patience().min(3)
}

/// That a process beside a connector has a user of its own, and no group, capability, way to more of
/// them or unfiltered system call (proc(5)).
pub fn ensure_powerless(pid: Pid) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Vec<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().split_whitespace().collect()
    };
    let users = field("Uid:");
    let number: u32 = users.first().context("no user")?.parse()?;
    ensure!((61_184..=65_519).contains(&number), "{users:?}");
    ensure!(users.iter().all(|user| *user == users[0]), "{users:?}");
    ensure!(field("Groups:").is_empty(), "{status}");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        ensure!(field(set) == ["0000000000000000"], "{set} {status}");
    }
    ensure!(
        field("NoNewPrivs:") == ["1"] && field("Seccomp:") == ["2"],
        "{status}"
    );
    Ok(())
}

/// Runs a command to its end; see [`Running`].
pub fn run(command: Command, limit: Duration) -> Result<Outcome> {
    Running::start(command, limit)?.wait()
}

/// Runs a set-up command that has to succeed. Errors: what it printed.
pub fn must(command: Command, limit: Duration) -> Result<Outcome> {
    let outcome = run(command, limit)?;
    anyhow::ensure!(
        outcome.ok(),
        "{} failed ({}): {}{}",
        outcome.command,
        outcome.code(),
        outcome.stderr,
        outcome.text()
    );
    Ok(outcome)
}

/// Reads a pipe in a thread of its own.
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = bytes.clone();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let mut bytes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend_from_slice(&buffer[..length]);
            }
        });
        Self {
            bytes,
            thread: Some(thread),
        }
    }

    fn so_far(&self) -> Vec<u8> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.clone()
    }

    /// Waits for the end of the pipe, a bounded time.
    fn drain(&mut self) {
        let end = Instant::now() + DRAIN;
        while self.thread.as_ref().is_some_and(|t| !t.is_finished()) && Instant::now() < end {
            thread::sleep(POLL);
        }
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            drop(self.thread.take().map(JoinHandle::join));
        }
    }
}
