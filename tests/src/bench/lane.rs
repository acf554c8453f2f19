//! Workers, and the cgroups they are in.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use nix::unistd::setsid;

use super::{
    job::{Answer, Done, Job},
    peers::tree,
    plane::Plane,
};
use crate::leftovers::cgroup2;

/// Nice value of everything that is measured.
pub(super) const PRIORITY: i32 = -15;
/// A job takes no longer.
const JOB: Duration = Duration::from_secs(60);
/// How long a process may take to end after its input.
const END: Duration = Duration::from_secs(15);
/// Our cgroups are `egress-bench-PID`.
const PREFIX: &str = "egress-bench-";

/// One way to run: a worker, and the programs that see what it does.
pub(super) struct Lane {
    /// For people.
    pub(super) name: &'static str,
    /// Does the jobs.
    pub(super) worker: Process,
    /// Its programs; nothing where none are measured.
    pub(super) plane: Option<Plane>,
}

/// A process that answers line by line, and ends when its input does.
pub(super) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it, in a session of its own as the agent gives its connector one, and waits until
    /// it says that it is ready. It may be a launcher with namespaces, in which process ids mean
    /// nothing here.
    pub(super) fn start(command: Command) -> Result<Self> {
        let text = format!("{command:?}");
        let this = Self::spawn(command)?;
        this.line().with_context(|| format!("not ready: {text}"))?;
        for pid in tree(this.pid()) {
            first_of_sessions(pid)?;
        }
        Ok(this)
    }

    fn spawn(mut command: Command) -> Result<Self> {
        // SAFETY: setsid(2) is async-signal-safe and takes no memory.
        unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let output = child.stdout.take().context("no stdout")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            input: child.stdin.take(),
            child,
            lines,
        })
    }

    /// Has a job done.
    pub(super) fn work(&mut self, job: &Job) -> Result<Done> {
        self.begin(job)?;
        self.end_job()
    }

    /// Hands a job over; [`Process::end_job`] waits for its end.
    pub(super) fn begin(&mut self, job: &Job) -> Result<()> {
        let input = self.input.as_mut().context("closed")?;
        Ok(writeln!(input, "{}", serde_json::to_string(job)?)?)
    }

    /// Waits for the job that was begun.
    pub(super) fn end_job(&mut self) -> Result<Done> {
        let answer: Answer = serde_json::from_str(&self.line()?)?;
        answer.map_err(|why| anyhow!("a worker says: {why}"))
    }

    /// Its process id, of the agent where the agent was started.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends its input and waits. Answers how long it took.
    pub(super) fn end(&mut self) -> Result<Duration> {
        let start = Instant::now();
        self.input = None;
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > END {
                self.child.kill()?;
                self.child.wait()?;
                anyhow::bail!("process {} did not end by itself", self.pid());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(start.elapsed())
    }

    fn line(&self) -> Result<String> {
        let line = self.lines.recv_timeout(JOB);
        line.context("no answer; the reason is above")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Puts a session before the others of the machine, whose nice values count only inside
/// (sched(7), autogroups). Ends with the session.
pub(super) fn first_of_sessions(pid: u32) -> Result<()> {
    match fs::write(format!("/proc/{pid}/autogroup"), PRIORITY.to_string()) {
        // A kernel without autogroups: the nice value is all there is.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.context("autogroup"),
    }
}

/// The cgroups of the lanes without an agent, as deep as the agent's; gone when dropped.
pub(super) struct Cgroups {
    base: PathBuf,
}

impl Cgroups {
    /// Also removes those of runs that were killed.
    pub(super) fn create() -> Result<Self> {
        let root = cgroup2()?;
        for entry in fs::read_dir(&root)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(pid) = name.strip_prefix(PREFIX)
                && !Path::new("/proc").join(pid).exists()
            {
                remove(&entry.path());
            }
        }
        let base = root.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&base).with_context(|| base.display().to_string())?;
        Ok(Self { base })
    }

    /// Two cgroups of a name: where programs are attached, and below it where processes are.
    pub(super) fn add(&self, name: &str) -> Result<(PathBuf, PathBuf)> {
        let parent = self.base.join(name);
        let leaf = parent.join("bench").join("1");
        fs::create_dir_all(&leaf)?;
        Ok((parent, leaf))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(2);
        while !remove(&self.base) && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a cgroup and those below it. Whether nothing is left.
fn remove(folder: &Path) -> bool {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    fs::remove_dir(folder).is_ok()
}
