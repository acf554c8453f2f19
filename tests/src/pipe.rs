//! The line to a helper process of this crate.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{namespaces::NETNS, process::patience, programs};

const ANSWER: Duration = Duration::from_secs(10);

/// A helper process of this crate that answers line by line, and ends when its input does.
pub(crate) struct Pipe {
    pub(crate) child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Pipe {
    pub(crate) fn start(namespace: &str, arguments: &[&str]) -> Result<Self> {
        let program = programs::own("embedded-internet")?;
        let mut child = Command::new("nsenter")
            .arg(format!("--net={NETNS}/{namespace}"))
            .arg("--")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("nsenter (util-linux)")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("no stdout")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            input,
            lines,
        })
    }

    pub(crate) fn ask(&self, line: &str) -> Result<String> {
        let mut input = self.input.as_ref().context("closed")?;
        writeln!(input, "{line}")?;
        self.ready()
    }

    pub(crate) fn ready(&self) -> Result<String> {
        let reply = self.lines.recv_timeout(ANSWER * patience());
        reply.context("the embedded internet does not answer; its error is above")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.input = None;
        let end = Instant::now() + Duration::from_secs(1);
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                drop(self.child.kill());
                drop(self.child.wait());
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
