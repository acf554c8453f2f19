//! Rotation, whole lines, and the files of instances that ended.

#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use std::path::Path;

use super::*;
use crate::event::{
    model::{Body, Warning, tests::record},
    sink::json::push_line,
};

/// A sink in a folder, with a limit in bytes.
pub(crate) fn sink(folder: &Path, connector: &str, instance: &str, limit: u64) -> Jsonl {
    Jsonl::with_limit(Folder::open(folder).unwrap(), connector, instance, limit).unwrap()
}

/// Writes a line that carries `message`, at `second` of a minute.
pub(crate) fn push(sink: &mut Jsonl, connector: &str, second: i64, message: &str) {
    let mut record = record(Body::Warning(Warning {
        connector: Some(connector.into()),
        instance: "i".into(),
        topic: "t".into(),
        message: message.into(),
    }));
    record.time = jiff::Timestamp::from_second(1_700_000_000 + second).unwrap();
    let mut json = Vec::new();
    push_line(&record, &mut json).unwrap();
    sink.push(&record, &json);
}

fn lines(path: &Path) -> Vec<Record> {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn rotation_keeps_whole_lines_and_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), "postmark", "i1", 2000);
    let old = folder.path().join("postmark.i1.jsonl.1");
    for second in 0..100 {
        push(&mut sink, "postmark", second, "hello");
        sink.flush();
        let new = lines(&sink.path());
        let both = [lines(&old), new].concat();
        assert!(both.is_sorted_by_key(|record| record.time));
        assert_eq!(
            both.last().unwrap().time.as_second(),
            1_700_000_000 + second
        );
        for path in [&sink.path(), &old] {
            assert!(std::fs::metadata(path).map_or(0, |facts| facts.len()) <= 2000);
        }
    }
    assert!(old.exists());
    assert_eq!((sink.fault(), sink.take_unwritten()), (None, 0));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_burst_needs_few_writes_and_no_flush() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), "postmark", "i1", MAX_BYTES);
    for second in 0..1000 {
        push(&mut sink, "postmark", second, &"x".repeat(200));
    }
    let before = lines(&sink.path()).len();
    assert!(before > 100 && before < 1000, "{before}");
    sink.flush();
    assert_eq!(lines(&sink.path()).len(), 1000);
}

#[test]
fn a_rotation_that_fails_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), "postmark", "i1", 300);
    push(&mut sink, "postmark", 0, "first");
    sink.flush();
    // A folder in the way of the older half: rename cannot replace it.
    let block = folder.path().join("postmark.i1.jsonl.1");
    std::fs::create_dir(&block).unwrap();
    push(&mut sink, "postmark", 1, "second");
    sink.flush();
    assert!(
        sink.fault().unwrap().contains("rename"),
        "{:?}",
        sink.fault()
    );
    assert_eq!(lines(&sink.path()).len(), 1);
    std::fs::remove_dir(&block).unwrap();
    sink.flush();
    assert_eq!(sink.fault(), None);
    assert_eq!((lines(&sink.path()).len(), lines(&block).len()), (1, 1));
}

#[test]
fn a_file_that_somebody_removed_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), "postmark", "i1", 300);
    for second in 0..4 {
        push(&mut sink, "postmark", second, "text");
        sink.flush();
        std::fs::remove_file(sink.path()).unwrap();
    }
    push(&mut sink, "postmark", 5, "last");
    sink.flush();
    assert_eq!((sink.fault(), lines(&sink.path()).len()), (None, 1));
}

#[test]
fn names_that_would_lead_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    for (connector, instance) in [
        ("", "i"),
        ("../x", "i"),
        ("a/b", "i"),
        (".hidden", "i"),
        ("a", "i.j"),
        ("a", ""),
        ("a\n", "i"),
    ] {
        let opened = Folder::open(folder.path()).unwrap();
        assert!(matches!(
            Jsonl::create(opened, connector, instance),
            Err(SinkError::Name(_))
        ));
    }
    sink(folder.path(), "my.server", "i1", 1000);
    let opened = Folder::open(folder.path()).unwrap();
    assert!(Jsonl::create(opened, "my.server", "i1").is_err());
}

#[test]
fn ended_instances_are_removed_oldest_first_and_live_ones_never() {
    let folder = tempfile::tempdir().unwrap();
    let live = sink(folder.path(), "live", "i0", 1000);
    for number in 1..=5 {
        let mut ended = sink(folder.path(), "gone", &format!("i{number}"), 200);
        push(&mut ended, "gone", 0, "x");
        push(&mut ended, "gone", 0, "y");
        ended.close();
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::write(folder.path().join("other.txt"), "").unwrap();
    let opened = Folder::open(folder.path()).unwrap();
    assert_eq!(prune(&opened).unwrap(), 0);
    assert_eq!(prune_to(&opened, 2, Duration::ZERO).unwrap(), 3);
    let mut left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".1"))
        .collect();
    left.sort();
    assert_eq!(
        left,
        [
            "gone.i4.jsonl",
            "gone.i5.jsonl",
            "live.i0.jsonl",
            "other.txt"
        ]
    );
    drop(live);
    assert_eq!(prune_to(&opened, 0, Duration::ZERO).unwrap(), 3);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
