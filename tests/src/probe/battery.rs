//! Many vectors in one confinement, several at a time.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Company, LISTENING, MARK, UNTRIED, vector};
use crate::process::patience;

/// One vector.
const LIMIT: Duration = Duration::from_secs(8);

/// Tries each `VECTOR:KIND:TOKEN`, `width` at a time, those that go last one by one after the
/// others. Prints `#probe listening TOKEN PORT` when a vector waits for a call and
/// `#probe said TOKEN TEXT` when it ends.
pub(super) fn run(stage: &Path, width: usize, tries: &[&str]) -> Result<()> {
    let goes_last = |word: &&str| {
        let name = word.split(':').next().unwrap_or_default();
        vector(name).is_some_and(|vector| vector.company == Company::Last)
    };
    let (last, first): (Vec<&str>, Vec<&str>) = tries.iter().partition(|word| goes_last(word));
    for (tries, width) in [(first, width), (last, 1)] {
        let queue = Mutex::new(VecDeque::from(tries));
        let next = || {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.pop_front()
        };
        thread::scope(|scope| {
            for _ in 0..width {
                scope.spawn(|| {
                    while let Some(word) = next() {
                        let token = word.rsplit(':').next().unwrap_or_default();
                        let said = one(stage, word).unwrap_or_else(|error| {
                            format!("{UNTRIED} it cannot start: {error:#}")
                        });
                        println!("{MARK} said {token} {said}");
                    }
                });
            }
        });
    }
    Ok(())
}

/// Starts one vector and waits for what it says in the end.
fn one(stage: &Path, word: &str) -> Result<String> {
    let mut parts = word.splitn(3, ':');
    let mut part = || parts.next().context("a try is VECTOR:KIND:TOKEN");
    let (name, kind, token) = (part()?, part()?, part()?);
    let mut child = Command::new(std::env::current_exe()?)
        .args([name, kind, token])
        .arg(stage)
        .env("PROBE_BATTERY", std::process::id().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().context("stdout")?;
    let mut stderr = child.stderr.take().context("stderr")?;
    let owned = token.to_owned();
    let reader = thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(port) = line.strip_prefix(LISTENING) {
                println!("{MARK} {LISTENING} {owned} {}", port.trim());
            } else {
                last = line;
            }
        }
        last
    });
    let errors = thread::spawn(move || {
        let mut text = String::new();
        // What is no text is of no use in a table.
        drop(stderr.read_to_string(&mut text));
        text.lines().last().unwrap_or_default().to_owned()
    });
    let fatal = vector(name).is_some_and(|vector| vector.fatal);
    let end = wait(&mut child, fatal)?;
    if !end.is_empty() {
        // A descendant may hold the pipes open: its words are not waited for.
        return Ok(end);
    }
    let said = reader.join().unwrap_or_default();
    let complaint = errors.join().unwrap_or_default();
    Ok(if said.is_empty() { complaint } else { said })
}

/// How it ended, where it did not end well. That is a refusal for vectors that are ended by one;
/// otherwise it says nothing about the way that was to be tried.
fn wait(child: &mut Child, fatal: bool) -> Result<String> {
    let end = Instant::now() + LIMIT * patience();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(match status.signal() {
                _ if status.success() => String::new(),
                Some(libc::SIGSYS | libc::SIGKILL) if fatal => format!("REFUSED {status}"),
                _ => format!("{UNTRIED} {status}"),
            });
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Ok(format!("{UNTRIED} it hung"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}
