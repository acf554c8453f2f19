//! A confined shell that does one thing at a time, when the test says so.

use std::{
    io::Write,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    agent::{Agent, Confined, Report},
    process::patience,
};

const LOOP: &str =
    r##"n=0; while IFS= read -r line; do n=$((n+1)); eval "$line" 2>&1; echo "#done $n $?"; done"##;
/// One command; the first waits for the agent's start, and several may start at once.
const STEP: Duration = Duration::from_secs(60);

/// The shell and its agent.
pub struct Shell {
    /// The run.
    pub confined: Confined,
    steps: u32,
    seen: usize,
}

/// What one command said.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output and error.
    pub text: String,
    /// Duration, the shell's included.
    pub took: Duration,
}

impl Agent<'_> {
    /// Starts a shell instead of a connector.
    pub fn shell(self) -> Result<Shell> {
        Shell::over(self.start(&["/bin/bash", "-c", LOOP])?)
    }

    /// The same with a policy file as it is.
    pub fn shell_with_file(self, file: &Path) -> Result<Shell> {
        Shell::over(self.start_with_file(file, &["/bin/bash", "-c", LOOP])?)
    }
}

impl Shell {
    fn over(confined: Confined) -> Result<Self> {
        let mut shell = Self {
            confined,
            steps: 0,
            seen: 0,
        };
        shell.run("true")?;
        Ok(shell)
    }

    /// Runs one line of shell. Errors: the shell is gone or the command takes too long.
    pub fn run(&mut self, line: &str) -> Result<Said> {
        let start = Instant::now();
        self.steps += 1;
        writeln!(self.confined.agent.stdin()?, "{line}").context("the shell is gone")?;
        let mark = format!("#done {} ", self.steps);
        loop {
            let all = String::from_utf8_lossy(&self.confined.agent.stdout()).into_owned();
            let new = all.get(self.seen..).unwrap_or_default();
            if let Some((text, rest)) = new.split_once(&mark)
                && let Some((code, _)) = rest.split_once('\n')
            {
                let (code, text) = (code.parse()?, text.to_owned());
                self.seen = all.len();
                return Ok(Said {
                    code,
                    text,
                    took: start.elapsed(),
                });
            }
            let why = || format!("{line}: {}{}", new, self.confined.agent.stderr());
            let limit = STEP * patience();
            ensure!(start.elapsed() < limit, "it takes too long: {}", why());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends the shell.
    pub fn end(self) -> Result<Report> {
        self.confined.wait()
    }
}
