//! Runs `egress-agent daemon` on the host of a world, and speaks to it as users do.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::{
    process::{Outcome, Running, patience},
    programs,
    world::{USER, World},
};

/// A daemon may take as long to be there: it loads its data plane.
const READY: Duration = Duration::from_secs(20);
/// A command of a test.
const LIMIT: Duration = Duration::from_secs(60);
/// A user beside [`USER`], without a name.
pub const OTHER_USER: u32 = 65_533;

/// A daemon with its policies; it is ended when dropped, connectors that run are not.
pub struct Daemon<'w> {
    world: &'w World,
    dir: PathBuf,
    running: Option<Running>,
}

impl World {
    /// A daemon with these policies, by the names of their files.
    pub fn daemon(&self, policies: &[(&str, &str)]) -> Result<Daemon<'_>> {
        let dir = self.path("daemon");
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        fs::create_dir(dir.join("policies.d"))?;
        let mut daemon = Daemon {
            world: self,
            dir,
            running: None,
        };
        for (name, text) in policies {
            daemon.write(name, text)?;
        }
        daemon.start()?;
        Ok(daemon)
    }
}

impl Daemon<'_> {
    /// Writes a policy file.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let file = self.dir.join("policies.d").join(format!("{name}.yaml"));
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
        Ok(file)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/control.sock")
    }

    /// Starts it, and waits until it takes connections.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.world.command(programs::agent()?);
        command.arg("daemon").arg("--socket").arg(self.socket());
        command.arg("--policies").arg(self.dir.join("policies.d"));
        command.arg("--state").arg(self.dir.join("state"));
        let mut running = Running::start(command, Duration::from_secs(600))?;
        let end = Instant::now() + READY * patience();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            ensure!(
                !running.ended()? && Instant::now() < end,
                "no daemon: {}",
                running.stderr()
            );
            thread::sleep(Duration::from_millis(5));
        }
        self.running = Some(running);
        Ok(())
    }

    /// Sends it a signal and waits for its end.
    pub fn end(&mut self, signal: Signal) -> Result<Outcome> {
        let running = self.running.take().context("it does not run")?;
        running.signal(signal)?;
        running.wait()
    }

    /// Number of its process.
    pub fn pid(&self) -> Result<i32> {
        Ok(self
            .running
            .as_ref()
            .context("it does not run")?
            .pid()
            .as_raw())
    }

    /// A command of a user's on the host of the world: `egress-agent` with these words.
    pub fn command(&self, uid: u32, words: &[&str]) -> Result<Command> {
        self.command_with(uid, &[], words)
    }

    /// The same with further variables, which nothing but `egress-agent` sees.
    pub fn command_with(
        &self,
        uid: u32,
        variables: &[(&str, &str)],
        words: &[&str],
    ) -> Result<Command> {
        let (verb, rest) = words.split_first().context("no words")?;
        let mut command = self.world.command("setpriv");
        command.args([&format!("--reuid={uid}"), &format!("--regid={uid}")]);
        command.args(["--clear-groups", "--", "/usr/bin/env"]);
        command.args(
            variables
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        command.arg(programs::agent()?).arg(verb);
        command.arg("--socket").arg(self.socket()).args(rest);
        Ok(command)
    }

    /// The same to its end.
    pub fn run(&self, uid: u32, words: &[&str]) -> Result<Outcome> {
        Running::start(self.command(uid, words)?, LIMIT)?.wait()
    }

    /// `exec` of a line of shell to its end.
    pub fn exec(&self, uid: u32, connector: &str, line: &str) -> Result<Outcome> {
        self.run(uid, &["exec", connector, "--", "/bin/bash", "-c", line])
    }

    /// A connector that does what it is told, line by line.
    pub fn shell(&self, uid: u32, connector: &str) -> Result<Talk> {
        let words = ["exec", connector, "--", "/bin/bash"];
        Talk::start(self.command(uid, &words)?)
    }

    /// What runs, as somebody sees it.
    pub fn ps(&self, uid: u32) -> Result<Vec<serde_json::Value>> {
        let said = self.run(uid, &["ps", "-o", "json"])?;
        ensure!(said.ok(), "{said:?}");
        Ok(serde_json::from_slice(&said.stdout)?)
    }

    /// Waits until somebody sees so many instances.
    pub fn wait_for(&self, uid: u32, count: usize) -> Result<Vec<serde_json::Value>> {
        let end = Instant::now() + LIMIT;
        loop {
            let rows = self.ps(uid)?;
            if rows.len() == count {
                return Ok(rows);
            }
            ensure!(Instant::now() < end, "{count} should run: {rows:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if self.running.is_some() {
            match self.end(Signal::SIGTERM) {
                Ok(said) if said.ok() => {}
                other => eprintln!("the daemon did not end well: {other:?}"),
            }
        }
    }
}

/// A shell under a connector, or anything else that answers lines.
pub struct Talk {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// What a line of shell left.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// What it printed, errors as well.
    pub text: String,
}

impl Talk {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut talk = Self { child, lines };
        talk.say(":")?;
        Ok(talk)
    }

    /// Runs a line of shell.
    pub fn say(&mut self, line: &str) -> Result<Said> {
        let stdin = self.child.stdin.as_mut().context("no stdin")?;
        writeln!(stdin, "{{ {line}; }} 2>&1; echo \"=done $?\"")?;
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                bail!("it ended; it said {text:?}");
            }
            if let Some((before, code)) = line.trim_end().split_once("=done ") {
                text.push_str(before);
                return Ok(Said {
                    code: code.parse()?,
                    text,
                });
            }
            text.push_str(&line);
        }
    }

    /// Whether it reaches a URL.
    pub fn reaches(&mut self, url: &str) -> Result<bool> {
        let said = self.say(&format!("curl -sS --max-time 5 -o /dev/null {url}"))?;
        ensure!([0, 6, 7].contains(&said.code), "{said:?}");
        Ok(said.code == 0)
    }

    /// Process of the client.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Closes its input and waits for its end.
    pub fn end(mut self) -> Result<i32> {
        drop(self.child.stdin.take());
        self.wait()
    }

    /// Waits for its end; a negative number is the signal that ended the client itself.
    pub fn wait(&mut self) -> Result<i32> {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.child.wait()?;
        Ok(status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or_default()))
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // One that has ended already is no error.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A policy that names its starters.
pub fn policy_for(connector: &str, uids: &[u32], allow: &[&str]) -> String {
    let users: Vec<String> = uids.iter().map(|uid| format!("\"{uid}\"")).collect();
    let users = users.join(", ");
    format!(
        "{}users: [{users}]\n",
        crate::agent::policy(connector, allow)
    )
}

/// The same for the usual user.
pub fn own_policy(connector: &str, allow: &[&str]) -> String {
    policy_for(connector, &[USER], allow)
}

/// Gives a file to a user.
pub fn give(path: &Path, uid: u32) -> Result<()> {
    Ok(std::os::unix::fs::chown(path, Some(uid), Some(uid))?)
}

/// A command whose standard input and output are the ends of a socket.
pub fn over_a_socket(mut command: Command) -> Result<(Child, std::os::unix::net::UnixStream)> {
    let (own, theirs) = std::os::unix::net::UnixStream::pair()?;
    let theirs = OwnedFd::from(theirs);
    let child = command.stdin(theirs.try_clone()?).stdout(theirs).spawn()?;
    Ok((child, own))
}
