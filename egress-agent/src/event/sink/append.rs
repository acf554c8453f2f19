//! Appending whole lines to something that may be full.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::libc::O_NONBLOCK;

use super::{Sink, SinkError};
use crate::event::model::Record;

/// Bytes of lines that wait while nothing can be written; further lines are given up.
const MAX_WAITING: usize = 4 << 20;
/// Bytes that are written at once.
const CHUNK: usize = 64 << 10;
/// How long closing may try.
const CLOSE_WAIT: Duration = Duration::from_millis(200);

/// Lines on their way out.
///
/// A line that is begun is finished before anything else is written, however many attempts
/// it takes, so a reader never sees two lines run into one.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: Vec<u8>,
    sent: usize,
    given_up: u64,
}

impl Queue {
    /// Takes a line (with its line end), or gives it up where too much waits already.
    pub fn push(&mut self, line: &[u8]) {
        let waits = self.waiting.len().saturating_sub(self.sent);
        if waits.saturating_add(line.len()) > MAX_WAITING {
            self.given_up += 1;
        } else {
            self.waiting.extend_from_slice(line);
        }
    }

    /// Whether so much waits that it should be written.
    pub fn is_large(&self) -> bool {
        self.waiting.len().saturating_sub(self.sent) >= CHUNK
    }

    /// Whether the last line that was written from is not finished.
    pub fn is_inside_line(&self) -> bool {
        self.sent
            .checked_sub(1)
            .and_then(|last| self.waiting.get(last))
            .is_some_and(|&byte| byte != b'\n')
    }

    /// The next whole lines to write, about `CHUNK` bytes; empty: nothing waits.
    pub fn next(&self) -> &[u8] {
        let rest = self.waiting.get(self.sent..).unwrap_or_default();
        let Some(chunk) = rest.get(..CHUNK) else {
            return rest;
        };
        let end = chunk
            .iter()
            .rposition(|&byte| byte == b'\n')
            .or_else(|| rest.iter().position(|&byte| byte == b'\n'));
        end.and_then(|end| rest.get(..=end)).unwrap_or(rest)
    }

    /// So much of [`Queue::next`] was written.
    pub fn advance(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes).min(self.waiting.len());
        if self.sent == self.waiting.len() {
            self.waiting.clear();
            self.sent = 0;
        } else if self.sent > MAX_WAITING / 2 {
            // The last byte that was sent stays, so that an unfinished line is known.
            self.waiting.drain(..self.sent - 1);
            self.sent = 1;
        }
    }

    /// Writes until nothing waits or the writer refuses.
    pub fn write_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        while !self.next().is_empty() {
            match out.write(self.next()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => self.advance(bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lines given up since this was last asked.
    pub fn take_given_up(&mut self) -> u64 {
        std::mem::take(&mut self.given_up)
    }

    /// Gives up everything that waits.
    pub fn give_up(&mut self) {
        let rest = self.waiting.get(self.sent..).unwrap_or_default();
        let lines = rest.iter().filter(|&&byte| byte == b'\n').count();
        self.given_up += u64::try_from(lines).unwrap_or(u64::MAX);
        self.waiting.clear();
        self.sent = 0;
    }
}

/// A file that the user named: appended to, never rotated. It may be a pipe or a device.
pub struct UserFile {
    path: PathBuf,
    file: File,
    queue: Queue,
    fault: Option<String>,
}

impl UserFile {
    /// Opens the file, or makes it with mode 0640.
    pub fn open(path: &Path) -> Result<Self, SinkError> {
        let fail = |error| SinkError::io("open", path, error);
        // A pipe without a reader answers ENXIO instead of holding the start up, and a full
        // one EAGAIN instead of holding the stream up.
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(O_NONBLOCK)
            .open(path)
            .map_err(fail)?;
        let mut queue = Queue::default();
        let kind = file.metadata().map_err(fail)?;
        if !kind.file_type().is_fifo() && kind.is_file() && ends_inside_line(path, kind.len()) {
            queue.push(b"\n");
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            queue,
            fault: None,
        })
    }
}

/// Whether an earlier writer was cut off. A file that cannot be read is taken as whole.
fn ends_inside_line(path: &Path, length: u64) -> bool {
    let Some(last) = length.checked_sub(1) else {
        return false;
    };
    let mut byte = [b'\n'];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut byte, last))
        .is_ok_and(|()| byte != [b'\n'])
}

impl Sink for UserFile {
    fn push(&mut self, _: &Record, json: &[u8]) {
        self.queue.push(json);
        if self.queue.is_large() && self.fault.is_none() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.fault = self
            .queue
            .write_to(&mut self.file)
            .err()
            .map(|error| format!("cannot write {}: {error}", self.path.display()));
    }

    fn take_unwritten(&mut self) -> u64 {
        self.queue.take_given_up()
    }

    fn fault(&self) -> Option<String> {
        self.fault.clone()
    }

    fn close(&mut self) {
        close(self, |sink| sink.queue.give_up());
    }
}

/// Tries to hand over what waits for a moment, then gives it up.
pub(super) fn close<S: Sink>(sink: &mut S, give_up: impl FnOnce(&mut S)) {
    let start = Instant::now();
    sink.flush();
    while sink.fault().is_some() && start.elapsed() < CLOSE_WAIT {
        std::thread::sleep(Duration::from_millis(10));
        sink.flush();
    }
    give_up(sink);
}

#[cfg(test)]
#[path = "append_tests.rs"]
mod tests;
