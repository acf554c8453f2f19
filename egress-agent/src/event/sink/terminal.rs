//! Text lines to standard error, which somebody else may have stopped reading.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};

use super::{Sink, text};
use crate::event::model::Record;

/// Batches that wait for a reader; further lines are counted, not kept.
const MAX_WAITING: usize = 256;
/// How long closing waits for the reader.
const CLOSE_WAIT: Duration = Duration::from_millis(500);

/// Text lines, written by a thread of their own: a terminal that is stopped (Ctrl-S) or a
/// client that does not read its server's stderr must not hold the stream up, and stderr
/// cannot be made non-blocking because the connector has it too.
pub struct Terminal {
    color: bool,
    batch: String,
    lines: u64,
    send: Option<SyncSender<Batch>>,
    done: Receiver<()>,
    skipped: Arc<AtomicU64>,
}

struct Batch {
    text: String,
    lines: u64,
}

/// Whether to use colour, with the environment of this process.
pub fn use_color(color: text::Color, terminal: bool) -> bool {
    let read = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let (no_color, term) = (read("NO_COLOR"), read("TERM"));
    color.enabled(terminal, no_color.as_deref(), term.as_deref())
}

impl Terminal {
    /// Starts the thread that writes to `out`.
    pub fn start(out: impl Write + Send + 'static, color: bool) -> std::io::Result<Self> {
        let (send, receive) = sync_channel(MAX_WAITING);
        let (finished, done) = sync_channel(1);
        let skipped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&skipped);
        std::thread::Builder::new()
            .name("text-lines".into())
            .stack_size(128 * 1024)
            .spawn(move || {
                write_all(&receive, out, &counter);
                drop(finished);
            })?;
        Ok(Self {
            color,
            batch: String::new(),
            lines: 0,
            send: Some(send),
            done,
            skipped,
        })
    }
}

impl Sink for Terminal {
    fn push(&mut self, record: &Record, _: &[u8]) {
        self.batch.push_str(&text::line(record, self.color));
        self.batch.push('\n');
        self.lines += 1;
        if self.batch.len() >= 32 * 1024 {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let text = std::mem::take(&mut self.batch);
        let lines = std::mem::take(&mut self.lines);
        let Some(send) = &self.send else { return };
        match send.try_send(Batch { text, lines }) {
            Ok(()) => {}
            Err(TrySendError::Full(batch)) => {
                self.skipped.fetch_add(batch.lines, Ordering::Relaxed);
            }
            // Nobody reads it any more; the file has every line.
            Err(TrySendError::Disconnected(_)) => self.send = None,
        }
    }

    /// The text says itself what it left out; no file misses a line because of it.
    fn take_unwritten(&mut self) -> u64 {
        0
    }

    fn fault(&self) -> Option<String> {
        None
    }

    fn close(&mut self) {
        self.flush();
        self.send = None;
        // An answer never comes: the thread's end drops the other side.
        match self.done.recv_timeout(CLOSE_WAIT) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

fn write_all(receive: &Receiver<Batch>, mut out: impl Write, skipped: &AtomicU64) {
    for batch in receive {
        let written = out
            .write_all(batch.text.as_bytes())
            .and_then(|()| tell_skipped(&mut out, skipped))
            .and_then(|()| out.flush());
        // The reader went away; the file has every line.
        if written.is_err() {
            return;
        }
    }
    tell_skipped(&mut out, skipped).unwrap_or_default();
}

fn tell_skipped(out: &mut impl Write, skipped: &AtomicU64) -> std::io::Result<()> {
    let lines = skipped.swap(0, Ordering::Relaxed);
    if lines == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "egress-agent: {lines} lines came faster than they could be shown here; \
         `egress-agent events` has them"
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use std::{
        io,
        sync::{Mutex, mpsc},
        time::Instant,
    };

    use super::*;
    use crate::event::model::tests::every_kind;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Blocks at its first write until it is released.
    struct Stopped(Receiver<()>, Shared);

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.recv().unwrap_or_default();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_before_close_returns() {
        let out = Shared::default();
        let mut sink = Terminal::start(out.clone(), false).unwrap();
        for record in every_kind() {
            sink.push(&record, b"");
        }
        sink.close();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), every_kind().len());
    }

    #[test]
    fn a_reader_that_stopped_holds_nothing_up_and_is_told_later() {
        let out = Shared::default();
        let (release, wait) = mpsc::channel();
        let mut sink = Terminal::start(Stopped(wait, out.clone()), false).unwrap();
        let record = every_kind().remove(0);
        let start = Instant::now();
        for _ in 0..1000 {
            sink.push(&record, b"");
            sink.flush();
        }
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(release);
        sink.close();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let shown = text.lines().filter(|line| line.contains("denied")).count();
        let told = text
            .lines()
            .find(|line| line.starts_with("egress-agent: "))
            .unwrap();
        assert!(
            told.contains(&format!(" {} lines", 1000 - shown)),
            "{told}, {shown} shown"
        );
    }
}
