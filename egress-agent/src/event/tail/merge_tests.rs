//! Merging, rotation, truncation and instances that come and go.

#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use std::fs;

use super::*;
use crate::event::sink::{
    Sink,
    jsonl::tests::{push, sink},
};

/// The messages of all lines that are there now.
fn messages(tail: &mut Tail) -> Vec<String> {
    let mut found = Vec::new();
    tail.read(|line| {
        let value: serde_json::Value = serde_json::from_str(&line.json).unwrap();
        found.push(value.get("message").unwrap().as_str().unwrap().to_owned());
        ControlFlow::<()>::Continue(())
    })
    .unwrap();
    found
}

#[test]
fn instances_are_merged_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (
        sink(folder.path(), "a.b", "i1", 1 << 20),
        sink(folder.path(), "c", "i2", 1 << 20),
    );
    for second in 0..6 {
        let (sink, name) = if second % 2 == 0 {
            (&mut a, "a.b")
        } else {
            (&mut b, "c")
        };
        push(sink, name, second, &second.to_string());
    }
    a.flush();
    b.flush();
    let mut tail = Tail::new(folder.path());
    assert_eq!(messages(&mut tail), ["0", "1", "2", "3", "4", "5"]);
    assert!(messages(&mut tail).is_empty());
}

#[test]
fn rotation_loses_and_repeats_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), "a", "i1", 1000);
    let mut tail = Tail::new(folder.path());
    let mut found = Vec::new();
    for second in 0..200 {
        push(&mut sink, "a", second, &second.to_string());
        sink.flush();
        if second % 3 == 0 {
            found.extend(messages(&mut tail));
        }
    }
    found.extend(messages(&mut tail));
    let expected: Vec<_> = (0..200).map(|second| second.to_string()).collect();
    assert_eq!(found, expected);
    assert_eq!(tail.take_faults(), Faults::default());
}

#[test]
fn being_overtaken_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), "a", "i1", 1000);
    let mut tail = Tail::new(folder.path());
    push(&mut sink, "a", 0, "first");
    sink.flush();
    assert_eq!(messages(&mut tail), ["first"]);
    for second in 1..100 {
        push(&mut sink, "a", second, &second.to_string());
        sink.flush();
    }
    let found = messages(&mut tail);
    assert_eq!(found.last().unwrap(), "99");
    assert!(found.len() < 99);
    assert_eq!(tail.take_faults().overtaken, 1);
}

#[test]
fn history_begins_with_the_older_half() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), "a", "i1", 1000);
    for second in 0..8 {
        push(&mut sink, "a", second, &second.to_string());
        sink.flush();
    }
    let old = folder.path().join("a.i1.jsonl.1");
    let all: String = [&old, &sink.path()]
        .map(|path| fs::read_to_string(path).unwrap())
        .concat();
    let mut tail = Tail::new(folder.path());
    assert_eq!(messages(&mut tail).len(), all.lines().count());
    assert_eq!(tail.take_faults(), Faults::default());
    // A crash between the two steps of a rotation leaves the older half alone.
    fs::remove_file(sink.path()).unwrap();
    assert!(!messages(&mut Tail::new(folder.path())).is_empty());
}

#[test]
fn instances_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("events");
    let mut tail = Tail::new(&place);
    assert!(!tail.has_folder());
    assert!(messages(&mut tail).is_empty());
    fs::create_dir(&place).unwrap();
    let mut late = sink(&place, "late", "i1", 1 << 20);
    push(&mut late, "late", 0, "here");
    late.flush();
    assert_eq!(messages(&mut tail), ["here"]);
    push(&mut late, "late", 1, "last");
    late.flush();
    fs::remove_file(late.path()).unwrap();
    assert_eq!(messages(&mut tail), ["last"]);
    assert!(messages(&mut tail).is_empty());
    assert!(tail.sources.is_empty());
}

#[test]
fn damaged_lines_are_counted_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), "a", "i1", 1 << 20);
    push(&mut sink, "a", 0, "good");
    sink.flush();
    let good = fs::read_to_string(sink.path()).unwrap();
    let newer = good.replace("\"warning\"", "\"from-the-future\"");
    fs::write(
        sink.path(),
        [
            b"{\"time\":\n\xff\xfe\nnull\n{}\n",
            newer.as_bytes(),
            good.as_bytes(),
            b"{\"half",
        ]
        .concat(),
    )
    .unwrap();
    let mut tail = Tail::new(folder.path());
    assert_eq!(messages(&mut tail), ["good", "good"]);
    assert_eq!(tail.take_faults().damaged, 4);
    assert_eq!(tail.take_faults().damaged, 0);
}

#[test]
fn an_emptied_file_is_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(folder.path(), "a", "i1", 1 << 20);
    let mut tail = Tail::new(folder.path());
    for second in 0..3 {
        push(&mut sink, "a", second, "before");
    }
    sink.flush();
    assert_eq!(messages(&mut tail).len(), 3);
    fs::write(sink.path(), "").unwrap();
    push(&mut sink, "a", 4, "after");
    sink.flush();
    assert_eq!(messages(&mut tail), ["after"]);
}
