//! The stream from bytes to lines.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at its first fault"
)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use super::*;
use crate::event::{
    decode::tests::{encode, sample},
    enrich::tests::{Names, refusal},
    facts::tests::Fake,
    sink::{Folder, Jsonl, UserFile},
};

#[derive(Clone, Default)]
struct Memory {
    lines: Arc<Mutex<Vec<Record>>>,
    flushes: Arc<Mutex<u64>>,
    fault: Arc<Mutex<Option<String>>>,
}

impl Sink for Memory {
    fn push(&mut self, record: &Record, json: &[u8]) {
        assert_eq!(serde_json::from_slice::<Record>(json).unwrap(), *record);
        self.lines.lock().unwrap().push(record.clone());
    }

    fn flush(&mut self) {
        *self.flushes.lock().unwrap() += 1;
    }

    fn take_unwritten(&mut self) -> u64 {
        0
    }

    fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap().clone()
    }

    fn close(&mut self) {}
}

fn stream() -> (Memory, Stream) {
    let memory = Memory::default();
    let enricher = Enricher::with_source("i1", Box::new(Fake::default()));
    (
        memory.clone(),
        Stream::new(enricher, vec![Box::new(memory)]),
    )
}

fn exact(denied: u64, lost: u64) -> Exact {
    Exact {
        denied: BTreeMap::from([(Reason::NoRule, denied)]),
        lost,
    }
}

#[test]
fn denials_refusals_and_losses() {
    let (memory, mut stream) = stream();
    stream.open(3, Some("postmark"), Exact::default());
    stream.record(&encode(&sample()), &Names, false).unwrap();
    stream.refusal(3, &refusal(), false);
    stream.counters(3, exact(5, 4));
    stream.record(&encode(&sample()), &Names, false).unwrap();
    stream.flush();
    let lines = memory.lines.lock().unwrap();
    let lost: Vec<_> = lines
        .iter()
        .map(|line| match &line.body {
            Body::Denied(denial) => denial.lost,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lost, [0, 0, 4]);
    drop(lines);
    stream.counters(3, exact(6, 4));
    let tally = stream.tally(3);
    assert_eq!(
        tally.denied(),
        BTreeMap::from([(Reason::NoRule, 6), (Reason::NameNotAllowed, 1)])
    );
    assert_eq!(tally.not_shown(), BTreeMap::from([(Reason::NoRule, 4)]));
}

#[test]
fn records_that_cannot_be_read_are_counted() {
    let (memory, mut stream) = stream();
    assert!(stream.record(b"short", &Names, false).is_err());
    assert!(memory.lines.lock().unwrap().is_empty());
    assert_eq!(stream.book(0).say().malformed, 1);
}

#[test]
fn a_fault_is_told_once_and_again_when_it_comes_back() {
    let (memory, mut stream) = stream();
    let topics = |memory: &Memory| memory.lines.lock().unwrap().len();
    *memory.fault.lock().unwrap() = Some("no space left on device".into());
    stream.flush();
    stream.flush();
    assert_eq!(topics(&memory), 1);
    *memory.fault.lock().unwrap() = None;
    stream.flush();
    *memory.fault.lock().unwrap() = Some("no space left on device".into());
    stream.flush();
    assert_eq!(topics(&memory), 2);
}

#[test]
fn lines_of_a_full_disk_end_up_in_the_books() {
    let full = UserFile::open(std::path::Path::new("/dev/full")).unwrap();
    let enricher = Enricher::with_source("i1", Box::new(Fake::default()));
    let mut stream = Stream::new(enricher, vec![Box::new(full)]);
    stream.open(3, Some("postmark"), Exact::default());
    stream.record(&encode(&sample()), &Names, false).unwrap();
    stream.close();
    // The denial and the warning about the file.
    assert_eq!(stream.tally(3).lines_unwritten(), 2);
}

#[test]
fn a_burst_keeps_up_and_every_line_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = Jsonl::create(Folder::open(folder.path()).unwrap(), "postmark", "i1").unwrap();
    let path = file.path();
    let mut stream = Stream::new(Enricher::new("i1"), vec![Box::new(file)]);
    let bytes = encode(&sample());
    let start = Instant::now();
    for _ in 0..10_000 {
        stream.record(&bytes, &Names, true).unwrap();
    }
    stream.flush();
    let took = start.elapsed();
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 10_000);
    // Unoptimised and on a busy machine; a release build is many times faster.
    assert!(took.as_secs() < 5, "{took:?}");
}

#[test]
fn a_single_denial_is_in_the_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = Jsonl::create(Folder::open(folder.path()).unwrap(), "postmark", "i1").unwrap();
    let path = file.path();
    let mut stream = Stream::new(Enricher::new("i1"), vec![Box::new(file)]);
    let bytes = encode(&sample());
    let mut times = Vec::new();
    for turn in 1..=101 {
        let start = Instant::now();
        stream.record(&bytes, &Names, false).unwrap();
        stream.flush();
        times.push(start.elapsed());
        assert_eq!(
            std::fs::read_to_string(&path).unwrap().lines().count(),
            turn
        );
    }
    times.sort();
    let median = times.get(50).unwrap();
    assert!(median.as_millis() < 5, "{median:?}");
}

#[test]
fn a_stream_can_live_on_a_thread_of_its_own() {
    fn is_send<T: Send>() {}
    is_send::<Stream>();
}

#[test]
fn a_stream_that_fell_behind_reads_nothing_slow() {
    let fake = Fake::default();
    let now = boot_ns();
    fake.set(4242, 1, "/usr/bin/node");
    let enricher = Enricher::with_source("i1", Box::new(fake.clone()));
    let mut stream = Stream::new(enricher, Vec::new());
    let mut event = sample();
    event.time_ns = now.saturating_sub(10 * BEHIND_NS);
    stream.record(&encode(&event), &Names, false).unwrap();
    assert_eq!(fake.reads(), 0);
    event.time_ns = boot_ns();
    stream.record(&encode(&event), &Names, false).unwrap();
    assert_eq!(fake.reads(), 1);
}
