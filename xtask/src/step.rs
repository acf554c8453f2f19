//! Runs commands so that somebody who watches knows what goes on and for how long.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// A command that is quiet for longer than this gets a line of progress.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// Lines of a failed command's output that are shown.
const TAIL: usize = 200;

/// Runs a command without its output, which is shown only when it fails; says what, why and
/// how long. Takes `name` as the mark of its lines, since steps may run side by side.
/// Answers the lines of both outputs.
pub(crate) fn quiet(name: &str, why: &str, command: &mut Command) -> Result<Vec<String>> {
    println!("{name}: {why}");
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} cannot be started", shown(command)))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let output = Mutex::new(Vec::new());
    let status = thread::scope(|scope| {
        scope.spawn(|| keep(stdout, &output));
        scope.spawn(|| keep(stderr, &output));
        let mut next = PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok::<_, std::io::Error>(status);
            }
            if started.elapsed() >= next {
                let last = locked(&output).last().cloned().unwrap_or_default();
                println!(
                    "{name}: {} so far: {}",
                    time(started.elapsed()),
                    last.trim()
                );
                next += PROGRESS;
            }
            thread::sleep(Duration::from_millis(50));
        }
    })?;
    let lines = output.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !status.success() {
        let tail = lines.get(lines.len().saturating_sub(TAIL)..);
        bail!(
            "{name} failed ({status}): {}\n  {}",
            shown(command),
            tail.unwrap_or_default().join("\n  ")
        );
    }
    println!("{name}: done in {}", time(started.elapsed()));
    Ok(lines)
}

/// Runs a command that shows its own output.
pub(crate) fn loud(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{} cannot be started", shown(command)))?;
    if !status.success() {
        bail!("failed ({status}): {}", shown(command));
    }
    Ok(())
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or(&program);
    let mut text = name.to_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// A duration for people.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 60 {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

fn keep(stream: Option<impl Read>, output: &Mutex<Vec<String>>) {
    let Some(stream) = stream else { return };
    // Bytes, not `lines()`: output that is no UTF-8 must not stop the reader, or the
    // command would hang on a full pipe.
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if !line.trim().is_empty() {
            locked(output).push(line);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
