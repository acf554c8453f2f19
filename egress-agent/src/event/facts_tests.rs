//! Tests of the cache over a made-up /proc, and of the real one.

#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::*;
use crate::host::clock::boot_ns;

/// A /proc whose processes the test sets, and which counts how often it is read.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    processes: HashMap<u32, Arc<Facts>>,
    reads: u64,
}

impl Fake {
    pub(crate) fn set(&self, pid: u32, start_ticks: u64, exe: &str) {
        let stat = Stat {
            pid,
            ppid: 1,
            comm: "main".into(),
            start_ticks,
        };
        let parents = vec![Stat {
            pid: 1,
            ppid: 0,
            comm: "init".into(),
            start_ticks: 0,
        }];
        let process = Process {
            stat,
            uid: 7,
            exe: Some(exe.into()),
            cmdline: vec![exe.into()],
            cgroup: None,
        };
        self.lock()
            .processes
            .insert(pid, Arc::new(Facts { process, parents }));
    }

    pub(crate) fn end(&self, pid: u32) {
        self.lock().processes.remove(&pid);
    }

    pub(crate) fn reads(&self) -> u64 {
        self.lock().reads
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Fake {
    fn start(&mut self, pid: u32) -> Option<u64> {
        self.lock()
            .processes
            .get(&pid)
            .map(|facts| facts.process.stat.start_ticks)
    }

    fn read(&mut self, pid: u32) -> Option<Arc<Facts>> {
        let mut inner = self.lock();
        inner.reads += 1;
        inner.processes.get(&pid).cloned()
    }
}

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 100 * SECOND;

fn caller(pid: u32) -> Caller {
    Caller {
        pid,
        uid: 7,
        comm: [0; 16],
    }
}

fn cache() -> (Fake, Cache) {
    let fake = Fake::default();
    (fake.clone(), Cache::new(Box::new(fake)))
}

fn exe(facts: Option<Arc<Facts>>) -> Option<String> {
    facts.and_then(|facts| facts.process.exe.clone())
}

#[test]
fn read_once_while_fresh_then_again() {
    let (fake, mut cache) = cache();
    fake.set(5, 100, "/a");
    for _ in 0..10 {
        assert_eq!(exe(cache.facts(caller(5), NOW, NOW, false)).unwrap(), "/a");
    }
    assert_eq!(fake.reads(), 1);
    let later = NOW + FRESH_NS;
    fake.set(5, 100, "/b");
    assert_eq!(
        exe(cache.facts(caller(5), later, later, false)).unwrap(),
        "/b"
    );
}

#[test]
fn a_process_that_ended_keeps_its_facts_for_a_while() {
    let (fake, mut cache) = cache();
    fake.set(5, 100, "/a");
    cache.facts(caller(5), NOW, NOW, false).unwrap();
    fake.end(5);
    assert_eq!(
        exe(cache.facts(caller(5), NOW, NOW + 1, false)).unwrap(),
        "/a"
    );
    let later = NOW + FRESH_NS;
    assert_eq!(cache.facts(caller(5), NOW, later, false), None);
}

#[test]
fn another_process_with_the_same_pid() {
    let (fake, mut cache) = cache();
    fake.set(5, 100, "/a");
    cache.facts(caller(5), NOW, NOW, false).unwrap();
    fake.set(5, 9_000, "/b");
    assert_eq!(exe(cache.facts(caller(5), NOW, NOW, false)).unwrap(), "/b");
    // The event is older than the process that has the pid now.
    assert_eq!(cache.facts(caller(5), 10 * SECOND, NOW, false), None);
}

#[test]
fn a_backlog_reads_nothing() {
    let (fake, mut cache) = cache();
    fake.set(5, 100, "/a");
    assert_eq!(cache.facts(caller(5), NOW, NOW, true), None);
    assert_eq!(fake.reads(), 0);
    cache.facts(caller(5), NOW, NOW, false).unwrap();
    assert!(cache.facts(caller(5), NOW, NOW, true).is_some());
    assert_eq!(fake.reads(), 1);
}

#[test]
fn made_up_names_exhaust_neither_memory_nor_time() {
    let (fake, mut cache) = cache();
    fake.set(5, 100, "/a");
    for turn in 0u64..20_000 {
        let mut other = caller(5);
        other.comm[..8].copy_from_slice(&turn.to_ne_bytes());
        cache.facts(other, NOW, NOW, false);
    }
    assert!(fake.reads() <= READS_PER_SECOND, "{}", fake.reads());
    assert!(cache.kept.len() <= MAX_KEPT);
    let later = NOW + SECOND;
    assert!(cache.facts(caller(5), NOW, later, false).is_some());
}

#[test]
fn this_process_and_one_that_is_not() {
    let mut cache = Cache::new(Box::new(Proc::new()));
    let now = boot_ns();
    let own = cache.facts(caller(std::process::id()), now, now, false);
    if process::in_initial_pid_namespace() {
        let own = own.unwrap();
        assert!(!own.process.cmdline.is_empty());
        assert!(own.parents.len() <= MAX_PARENTS);
    } else {
        assert_eq!(own, None);
    }
    assert_eq!(cache.facts(caller(u32::MAX), now, now, false), None);
}

#[test]
fn a_reader_that_hangs_is_given_up_and_taken_back() {
    let mut source = Proc {
        usable: true,
        reader: None,
        hung: Vec::new(),
    };
    let mut replies = Vec::new();
    for hung in 1..=MAX_HUNG {
        let (ask, asked) = channel();
        let (reply, answer) = channel();
        source.reader = Some(Reader { ask, answer });
        replies.push((asked, reply));
        assert_eq!(source.read(1), None);
        assert_eq!(source.hung.len(), hung);
    }
    // No more threads for a process that lets nobody read it.
    assert_eq!(source.read(std::process::id()), None);
    assert!(source.reader.is_none());
    replies.first().unwrap().1.send(None).unwrap();
    assert_eq!(source.read(1), None);
    assert_eq!(source.hung.len(), MAX_HUNG);
}
