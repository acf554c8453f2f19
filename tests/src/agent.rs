//! Runs a connector under the agent, the way a user would.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    event::{self, Denial, Event},
    process::{Outcome, Running, patience},
    programs,
    world::{USER, World},
};

/// A program under the agent has this long unless a test says otherwise.
pub const LIMIT: Duration = Duration::from_secs(90);
/// A denial is in the stream within this time.
pub const SHOWN_WITHIN: Duration = Duration::from_secs(1);

/// What the DNS door answers for a name that no rule permits, as dig spells it.
pub const DOOR_STATUS: &str = "NXDOMAIN";
/// The same as a number (RFC 1035 section 4.1.1).
pub const DOOR_CODE: u8 = 3;

/// The variable that takes layers away from the agent of test builds.
pub const WITHOUT: &str = "EGRESS_TEST_WITHOUT";

/// Whether the tests run without the agent, to see that they would notice
/// (`EGRESS_TEST_UNCONFINED=1`).
pub fn unconfined() -> bool {
    env::var_os("EGRESS_TEST_UNCONFINED").is_some_and(|value| value == "1")
}

/// Whether they run under an agent that reports and refuses nothing
/// (`EGRESS_TEST_UNCONFINED=audit`).
fn audited() -> bool {
    env::var_os("EGRESS_TEST_UNCONFINED").is_some_and(|value| value == "audit")
}

/// One `egress-agent run`, before it starts.
pub struct Agent<'w> {
    world: &'w World,
    policy: String,
    options: Vec<String>,
    user: Option<String>,
    environment: Vec<(String, String)>,
    limit: Duration,
    free: bool,
    behind: Option<String>,
    without: Option<String>,
}

/// A connector under a running agent.
pub struct Confined {
    /// The agent.
    pub agent: Running,
    events: PathBuf,
}

/// What a run left.
#[derive(Debug)]
pub struct Report {
    /// Of the agent, which passes on that of the connector.
    pub outcome: Outcome,
    /// Everything the stream says.
    pub events: Vec<Event>,
}

/// The text of a policy with a rule for each destination, in the short form.
pub fn policy(connector: &str, allow: &[&str]) -> String {
    let mut text = format!("version: 1\nconnector: {connector}\nmode: enforce\nallow:");
    if allow.is_empty() {
        text.push_str(" []");
    }
    for rule in allow {
        text.push_str(&format!("\n  - {rule}"));
    }
    text.push('\n');
    text
}

impl World {
    /// A run with the given policy text, as the user `nobody`.
    pub fn agent(&self, policy: impl Into<String>) -> Agent<'_> {
        Agent {
            world: self,
            policy: policy.into(),
            options: Vec::new(),
            user: Some(USER.to_string()),
            environment: Vec::new(),
            limit: LIMIT,
            free: unconfined(),
            behind: None,
            without: None,
        }
    }

    /// `egress-agent` on the host with just these arguments, no connector.
    pub fn agent_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.command(programs::agent()?);
        command.args(arguments);
        Ok(command)
    }
}

impl Agent<'_> {
    /// Adds an option of `egress-agent run`.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Runs as another user; `None`: no `--user`.
    pub fn user(mut self, user: Option<&str>) -> Self {
        self.user = user.map(str::to_owned);
        self
    }

    /// Sets a variable in the caller's environment.
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Another deadline.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Without the agent after all: shows that a way out exists where nothing confines.
    pub fn free(mut self) -> Self {
        self.free = true;
        self
    }

    /// Starts the agent from a line of shell, as `exec "$@"` for instance, so that the caller's
    /// own descriptors, limits or mounts are not the harness's.
    pub fn behind(mut self, line: &str) -> Self {
        self.behind = Some(line.to_owned());
        self
    }

    /// Under the agent of test builds, with these layers taken away (commas between; the names
    /// are in `egress-agent/src/host/switch.rs`): shows that a way out is stopped by them.
    pub fn without(mut self, layers: &str) -> Self {
        self.without = Some(layers.to_owned());
        self
    }

    /// Starts it.
    pub fn start<S: AsRef<str>>(self, words: &[S]) -> Result<Confined> {
        let file = self.world.path("policy.yaml");
        fs::write(&file, &self.policy)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        self.start_with_file(&file, words)
    }

    /// Starts it with a policy file as it is.
    pub fn start_with_file<S: AsRef<str>>(self, file: &Path, words: &[S]) -> Result<Confined> {
        let limit = self.limit;
        let (command, events) = self.command(file, words)?;
        let agent = Running::start(command, limit)?;
        Ok(Confined { agent, events })
    }

    /// The command itself, for a caller with standard descriptors of its own, and the file that
    /// its stream goes to.
    pub fn command<S: AsRef<str>>(self, file: &Path, words: &[S]) -> Result<(Command, PathBuf)> {
        let events = self.world.path("events.jsonl");
        let front = |program: &OsStr| match &self.behind {
            None => self.world.command(program),
            Some(line) => {
                let mut shell = self.world.command("/bin/bash");
                shell.args(["-c", line, "behind"]).arg(program);
                shell
            }
        };
        let mut command = if self.free {
            let mut command = front(OsStr::new("setpriv"));
            let user = self.user.as_deref().unwrap_or("0");
            command.args([&format!("--reuid={user}"), &format!("--regid={user}")]);
            command.args(["--clear-groups", "--"]);
            command
        } else {
            let mut command = match &self.without {
                None => front(programs::agent()?.as_os_str()),
                Some(layers) => {
                    let mut command = front(programs::agent_with_switches()?.as_os_str());
                    command.env(WITHOUT, layers);
                    command
                }
            };
            command
                .args(["run", "--policy"])
                .arg(file)
                .arg("--events")
                .arg(&events);
            if let Some(user) = &self.user {
                command.args(["--user", user]);
            }
            command.args(audited().then_some("--audit"));
            command.args(&self.options).arg("--");
            command
        };
        command
            .args(words.iter().map(AsRef::as_ref))
            .envs(self.environment);
        Ok((command, events))
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<str>>(self, words: &[S]) -> Result<Report> {
        self.start(words)?.wait()
    }
}

impl Confined {
    /// The stream so far.
    pub fn events(&self) -> Result<Vec<Event>> {
        event::read(&self.events)
    }

    /// Waits for a denial in the stream, at most [`SHOWN_WITHIN`].
    pub fn denial(&self, denial: &Denial) -> Result<Event> {
        let end = Instant::now() + SHOWN_WITHIN * patience();
        loop {
            let events = self.events()?;
            if let Some(event) = events.iter().find(|event| denial.fits(event)) {
                return Ok(event.clone());
            }
            if Instant::now() > end {
                bail!(
                    "no {denial:?} within {SHOWN_WITHIN:?}; the stream says {}",
                    lines(&events)
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the connector has printed a text.
    pub fn printed(&mut self, text: &str, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit * patience();
        while !String::from_utf8_lossy(&self.agent.stdout()).contains(text) {
            let ended = self.agent.ended()?;
            if ended || Instant::now() > end {
                bail!(
                    "it did not print {text:?} ({}); so far: {}{}",
                    if ended { "it ended" } else { "time is over" },
                    String::from_utf8_lossy(&self.agent.stdout()),
                    self.agent.stderr()
                );
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Kills the agent itself so that it can do nothing any more.
    pub fn kill_agent(&self) -> Result<()> {
        self.agent.signal(Signal::SIGKILL)?;
        // Dead it is when the last of its threads has let go of its files, locks among them: a
        // zombie, and alone.
        let process = format!("/proc/{}", self.agent.pid());
        let end = Instant::now() + LIMIT;
        loop {
            let text = fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
            // The state follows the name, which may hold anything (proc(5)).
            let state = text.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
            let threads = fs::read_dir(format!("{process}/task")).map_or(0, Iterator::count);
            let runs = matches!(state, Some(Some(state)) if state != 'Z');
            if !runs && threads <= 1 {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < end, "the agent does not die");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Process 1 of the connector's PID namespace, the parent of its first process, stopped: it
    /// would end everything with the agent.
    pub fn hold_init(&self) -> Result<Pid> {
        let events = self.events()?;
        let started = events.iter().find(|event| event.kind == "started");
        let pid = started.and_then(|event| event.rest.get("pid"));
        let status = fs::read_to_string(format!("/proc/{}/status", pid.context("no pid")?))?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let init = Pid::from_raw(parent.context("no parent")?.trim().parse()?);
        kill(init, Signal::SIGSTOP)?;
        Ok(init)
    }

    /// Waits for the end.
    pub fn wait(self) -> Result<Report> {
        let Self { agent, events } = self;
        let outcome = agent.wait()?;
        let events = event::read(&events)?;
        Ok(Report { outcome, events })
    }
}

impl Report {
    /// The connector's exit code.
    pub fn code(&self) -> i32 {
        self.outcome.code()
    }

    /// What it printed.
    pub fn text(&self) -> String {
        self.outcome.text()
    }

    /// The denials in the stream.
    pub fn denials(&self) -> Vec<&Event> {
        self.events
            .iter()
            .filter(|event| event.kind == "denied")
            .collect()
    }

    /// Errors unless the connector ended well and printed the text.
    pub fn ensure_printed(&self, text: &str) -> Result<()> {
        if self.outcome.ok() && self.text().contains(text) {
            return Ok(());
        }
        bail!("it should have printed {text:?}; {self}")
    }

    /// Errors unless the stream has the denial.
    pub fn ensure_denied(&self, denial: &Denial) -> Result<&Event> {
        let found = self.events.iter().find(|event| denial.fits(event));
        found.ok_or_else(|| anyhow::anyhow!("no {denial:?}; {self}"))
    }

    /// Errors where the stream has any denial.
    pub fn ensure_nothing_denied(&self) -> Result<()> {
        if self.denials().is_empty() {
            return Ok(());
        }
        bail!("nothing should have been denied; {self}")
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcome {
            command,
            timed_out,
            stderr,
            took,
            ..
        } = &self.outcome;
        writeln!(f, "{command}")?;
        writeln!(
            f,
            "code {} after {took:?}, timed out: {timed_out}",
            self.code()
        )?;
        writeln!(f, "stdout: {}\nstderr: {stderr}", self.text())?;
        write!(f, "stream: {}", lines(&self.events))
    }
}

fn lines(events: &[Event]) -> String {
    let lines = events.iter().map(|event| format!("\n  {}", event.line));
    lines.collect()
}
