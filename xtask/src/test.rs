//! Every test: the unprivileged ones, and those of the tests crate, which confine real
//! programs with the real kernel and therefore run as root.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{build, host, setup, step};

/// The package whose tests need root.
const KERNEL_TESTS: &str = "egress-tests";

/// What `test` takes.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// Only tests that need no root
    #[arg(long)]
    unprivileged: bool,
}

/// What the test programs reported, added up.
#[derive(PartialEq, Eq, Debug, Default)]
struct Total {
    programs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Those that failed.
    failures: Vec<Failure>,
    /// Which of them libtest tells about in the next line.
    told: Option<usize>,
}

/// A test that failed.
#[derive(PartialEq, Eq, Debug)]
struct Failure {
    name: String,
    /// How it said so, in short.
    reason: String,
}

/// So much of a reason is repeated at the end, in characters.
const REASON: usize = 400;

/// Sets up, builds, tests; ends with the total of all test programs, and answers it.
pub(crate) fn run(options: &Options) -> Result<String> {
    let started = Instant::now();
    setup::run(if options.unprivileged {
        setup::Extent::Build
    } else {
        setup::Extent::Everything
    })?;
    // Tests start the built programs, which `cargo test` alone does not always build.
    build::programs()?;

    let mut total = Total::default();
    let mut complete = true;
    for mut command in commands(options)? {
        complete &= follow(&mut command, &mut total)?;
    }
    println!();
    for failure in &total.failures {
        println!("failed: {}: {}", failure.name, failure.reason);
    }
    println!(
        "total: {} passed, {} failed, {} ignored in {} test programs, {}",
        total.passed,
        total.failed,
        total.ignored,
        total.programs,
        step::time(started.elapsed())
    );
    if total.failed > 0 || !complete {
        bail!("not every test passed");
    }
    if total.passed == 0 {
        bail!("no test ran; is the filter right?");
    }
    Ok(format!(
        "all {} tests of {} test programs pass",
        total.passed, total.programs
    ))
}

/// One cargo for everything where this is root already; otherwise the kernel tests are
/// built by the user and only run by root, so that no file of the build becomes root's.
fn commands(options: &Options) -> Result<Vec<Command>> {
    let base = || {
        let mut cargo = host::cargo();
        cargo.args(["test", "--no-fail-fast"]);
        cargo
    };
    let mut commands = Vec::new();
    if host::is_root() && !options.unprivileged {
        let mut all = base();
        all.arg("--workspace");
        commands.push(all);
    } else {
        let mut own = base();
        own.args(["--workspace", "--exclude", KERNEL_TESTS]);
        commands.push(own);
        if !options.unprivileged {
            let mut kernel = base();
            kernel.args(["--package", KERNEL_TESTS, "--config"]);
            kernel.arg(runner()?);
            commands.push(kernel);
        }
    }
    if let Some(filter) = &options.filter {
        for command in &mut commands {
            command.arg(filter);
        }
    }
    Ok(commands)
}

/// Cargo's setting that has root run the test programs, with this PATH.
fn runner() -> Result<String> {
    let mut words = host::root_prefix()?;
    words.extend(["--preserve-env", "env"].map(str::to_owned));
    words.push(format!("PATH={}", env::var("PATH").context("PATH")?));
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    Ok(format!("target.'cfg(all())'.runner=[{}]", words.join(", ")))
}

/// Passes a run's output on and adds up its results. Answers whether cargo was content.
fn follow(command: &mut Command, total: &mut Total) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo cannot be started")?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cargo's output broke off")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            total.add(&line);
        }
    }
    Ok(child
        .wait()
        .context("cargo cannot be waited for")?
        .success())
}

impl Total {
    /// Adds what libtest says of a failed test and in its closing line; other lines are none
    /// of its business.
    fn add(&mut self, line: &str) {
        let test = line.strip_prefix("test ");
        if let Some(name) = test.and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(Failure {
                name: name.to_owned(),
                reason: String::new(),
            });
        }
        self.explain(line);
        let Some(rest) = line.strip_prefix("test result: ") else {
            return;
        };
        self.programs += 1;
        let parts = rest.split(['.', ';']).map(str::trim);
        for (number, what) in parts.filter_map(|part| part.split_once(' ')) {
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Keeps the first line of what a failed test printed: where it ends with an error, or
    /// panics, mostly the reason.
    fn explain(&mut self, line: &str) {
        let told = self.told.take();
        if let Some(failure) = told.and_then(|index| self.failures.get_mut(index)) {
            failure.reason = line.chars().take(REASON).collect();
        }
        let head = line.strip_prefix("---- ");
        if let Some(name) = head.and_then(|rest| rest.strip_suffix(" stdout ----")) {
            let known = |failure: &Failure| failure.name == name;
            self.told = self.failures.iter().rposition(known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut total = Total::default();
        for line in [
            "running 3 tests",
            "test names::cname ... FAILED",
            "test names::plain ... ok",
            "---- names::cname stdout ----",
            "Error: no answer",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s",
            "test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.10s",
        ] {
            total.add(line);
        }
        let expected = Total {
            programs: 2,
            passed: 3,
            failed: 3,
            ignored: 1,
            failures: vec![Failure {
                name: "names::cname".to_owned(),
                reason: "Error: no answer".to_owned(),
            }],
            told: None,
        };
        assert_eq!(total, expected);
    }
}
