//! Facts about processes, read from /proc at once and kept for a short while.
//!
//! A denied process is often gone a moment later, so its facts are read when the event
//! arrives. Two things may not happen meanwhile: the facts of another process that got the
//! same pid are attached, or a hostile process holds the stream up. Against the first,
//! start times are compared; against the second, a thread of its own reads and is given up
//! when it does not answer, and the number of reads is limited.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::Duration,
};

use crate::host::process::{self, Process, Stat};

/// Facts are read again after this. Boot clock, nanoseconds.
const FRESH_NS: u64 = 2_000_000_000;
/// Processes whose facts are kept.
const MAX_KEPT: usize = 2_048;
/// Parents that are named.
const MAX_PARENTS: usize = 8;
/// How long one read may take.
const READ_WAIT: Duration = Duration::from_millis(20);
/// Readers that may hang, each on a process that does not let itself be read.
const MAX_HUNG: usize = 4;
/// Reads a second, and at once.
const READS_PER_SECOND: u64 = 2_000;

/// Who called, as the kernel's record says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Caller {
    /// Process id; never 0.
    pub pid: u32,
    /// Real user id.
    pub uid: u32,
    /// Name of the calling thread, NUL-padded.
    pub comm: [u8; 16],
}

/// A process and its parents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The process.
    pub process: Process,
    /// Its parents, nearest first.
    pub parents: Vec<Stat>,
}

/// Where facts come from. Production code uses [`Proc`].
pub trait Source {
    /// Start of a process in clock ticks; `None`: it is gone. Never waits for the process.
    fn start(&mut self, pid: u32) -> Option<u64>;
    /// All facts of a process; `None`: gone, or not readable in time.
    fn read(&mut self, pid: u32) -> Option<Arc<Facts>>;
}

/// Facts that were read lately.
pub struct Cache {
    source: Box<dyn Source + Send>,
    /// `None`: there was nothing to read, which need not be tried again at once.
    kept: HashMap<Caller, Kept>,
    reads_left: u64,
    refilled_ns: u64,
}

struct Kept {
    facts: Option<Arc<Facts>>,
    read_ns: u64,
}

impl Cache {
    /// An empty cache.
    pub fn new(source: Box<dyn Source + Send>) -> Self {
        Self {
            source,
            kept: HashMap::new(),
            reads_left: READS_PER_SECOND,
            refilled_ns: 0,
        }
    }

    /// Facts of the process that called at `time_ns`. With a backlog of events only facts
    /// that are kept are used.
    pub fn facts(
        &mut self,
        caller: Caller,
        time_ns: u64,
        now_ns: u64,
        backlog: bool,
    ) -> Option<Arc<Facts>> {
        if let Some(kept) = self.kept.get(&caller)
            && now_ns.saturating_sub(kept.read_ns) < FRESH_NS
        {
            let same = backlog
                || match (&kept.facts, self.source.start(caller.pid)) {
                    (Some(facts), Some(start)) => facts.process.stat.start_ticks == start,
                    // It has ended; while it lived it was the one that is kept.
                    (_, None) => true,
                    (None, Some(_)) => false,
                };
            if same {
                return fitting(kept.facts.as_ref(), time_ns);
            }
        }
        if backlog || !self.may_read(now_ns) {
            return None;
        }
        let facts = self.source.read(caller.pid);
        self.keep(caller, facts.clone(), now_ns);
        fitting(facts.as_ref(), time_ns)
    }

    fn may_read(&mut self, now_ns: u64) -> bool {
        let passed = now_ns.saturating_sub(self.refilled_ns);
        let refill = passed.saturating_mul(READS_PER_SECOND) / 1_000_000_000;
        if refill > 0 {
            self.reads_left = self.reads_left.saturating_add(refill).min(READS_PER_SECOND);
            self.refilled_ns = now_ns;
        }
        let may = self.reads_left > 0;
        self.reads_left = self.reads_left.saturating_sub(1);
        may
    }

    fn keep(&mut self, caller: Caller, facts: Option<Arc<Facts>>, now_ns: u64) {
        if self.kept.len() >= MAX_KEPT {
            self.kept
                .retain(|_, kept| now_ns.saturating_sub(kept.read_ns) < FRESH_NS);
        }
        // A process can make up names without end; then all is forgotten and read again,
        // as far as the limit of reads goes.
        if self.kept.len() >= MAX_KEPT {
            self.kept.clear();
        }
        let read_ns = now_ns;
        self.kept.insert(caller, Kept { facts, read_ns });
    }
}

/// A process that started after the event is another one with the same pid.
fn fitting(facts: Option<&Arc<Facts>>, time_ns: u64) -> Option<Arc<Facts>> {
    facts
        .filter(|facts| facts.process.stat.started_by(time_ns))
        .cloned()
}

/// The /proc of this host, read by a thread that is given up when it hangs.
pub struct Proc {
    usable: bool,
    reader: Option<Reader>,
    hung: Vec<Reader>,
}

struct Reader {
    ask: Sender<u32>,
    answer: Receiver<Option<Arc<Facts>>>,
}

impl Proc {
    /// A source. In a pid namespace of its own it has no facts: the kernel reports the pids
    /// of the initial one, which are other processes here.
    pub fn new() -> Self {
        Self {
            usable: process::in_initial_pid_namespace(),
            reader: None,
            hung: Vec::new(),
        }
    }
}

impl Default for Proc {
    fn default() -> Self {
        Self::new()
    }
}

impl Source for Proc {
    fn start(&mut self, pid: u32) -> Option<u64> {
        if !self.usable {
            return None;
        }
        Stat::read(pid).map(|stat| stat.start_ticks)
    }

    fn read(&mut self, pid: u32) -> Option<Arc<Facts>> {
        if !self.usable {
            return None;
        }
        if self.reader.is_none() {
            self.reader = self.recover();
        }
        let reader = self.reader.as_ref()?;
        if reader.ask.send(pid).is_err() {
            self.reader = None;
            return None;
        }
        match reader.answer.recv_timeout(READ_WAIT) {
            Ok(facts) => facts,
            Err(RecvTimeoutError::Timeout) => {
                self.hung.extend(self.reader.take());
                None
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.reader = None;
                None
            }
        }
    }
}

impl Proc {
    /// A reader that has come back, or a new one while not too many hang.
    fn recover(&mut self) -> Option<Reader> {
        let back = self
            .hung
            .iter()
            .position(|reader| reader.answer.try_recv().is_ok());
        if let Some(back) = back {
            return Some(self.hung.swap_remove(back));
        }
        if self.hung.len() >= MAX_HUNG {
            return None;
        }
        Reader::start()
    }
}

impl Reader {
    fn start() -> Option<Self> {
        let (ask, asked) = channel::<u32>();
        let (reply, answer) = channel();
        std::thread::Builder::new()
            .name("proc-reader".into())
            .stack_size(128 * 1024)
            .spawn(move || {
                for pid in asked {
                    if reply.send(read(pid)).is_err() {
                        break;
                    }
                }
            })
            .ok()?;
        Some(Self { ask, answer })
    }
}

fn read(pid: u32) -> Option<Arc<Facts>> {
    let process = Process::read(pid)?;
    let parents = process.parents(MAX_PARENTS);
    Some(Arc::new(Facts { process, parents }))
}

#[cfg(test)]
#[path = "facts_tests.rs"]
pub(crate) mod tests;
