//! Tests of the queue over writers that are full, and of the user's file.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test stops at its first fault"
)]

use proptest::prelude::*;

use super::*;
use crate::event::{model::tests::every_kind, sink::json::push_line};

/// Takes so many bytes at each call as the list says, then all; 0 stands for a full disk.
struct Full {
    taken: Vec<u8>,
    steps: Vec<usize>,
}

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.steps.pop().unwrap_or(usize::MAX).min(bytes.len());
        if size == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        self.taken.extend(&bytes[..size]);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn lines_stay_whole_and_in_order(
        lines in proptest::collection::vec("[a-z]{0,40}", 1..40),
        steps in proptest::collection::vec(0usize..30, 0..60),
    ) {
        let mut out = Full { taken: Vec::new(), steps };
        let mut queue = Queue::default();
        let mut all = String::new();
        for line in &lines {
            queue.push(format!("{line}\n").as_bytes());
            all += &format!("{line}\n");
            let written = queue.write_to(&mut out).is_ok();
            prop_assert!(!written || out.taken == all.as_bytes());
            prop_assert_eq!(queue.is_inside_line(), out.taken.last().is_some_and(|&byte| byte != b'\n') && !written);
            prop_assert!(all.as_bytes().starts_with(&out.taken));
        }
        while queue.write_to(&mut out).is_err() {}
        prop_assert_eq!(out.taken, all.as_bytes());
        prop_assert_eq!(queue.take_given_up(), 0);
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let mut queue = Queue::default();
    let line = [vec![b'x'; 1023], vec![b'\n']].concat();
    for _ in 0..5000 {
        queue.push(&line);
    }
    assert_eq!(queue.take_given_up(), 5000 - 4096);
    let mut out = Vec::new();
    queue.write_to(&mut out).unwrap();
    assert_eq!(out.len(), MAX_WAITING);
    queue.push(&line);
    queue.push(&line);
    queue.give_up();
    assert_eq!((queue.take_given_up(), queue.next().len()), (2, 0));
}

#[test]
fn chunks_end_at_lines() {
    let mut queue = Queue::default();
    let line = [vec![b'x'; 999], vec![b'\n']].concat();
    for _ in 0..100 {
        queue.push(&line);
    }
    assert!(queue.is_large());
    assert_eq!(queue.next().len(), 65_000);
    let mut queue = Queue::default();
    queue.push(&[vec![b'x'; 2 * CHUNK], b"\ny\n".to_vec()].concat());
    assert_eq!(queue.next().len(), 2 * CHUNK + 1);
}

fn push_all(sink: &mut impl Sink) -> String {
    let mut all = Vec::new();
    for record in every_kind() {
        let mut json = Vec::new();
        push_line(&record, &mut json).unwrap();
        sink.push(&record, &json);
        all.extend(json);
    }
    sink.flush();
    String::from_utf8(all).unwrap()
}

#[test]
fn the_users_file_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, "cut off").unwrap();
    let mut sink = UserFile::open(&path).unwrap();
    let all = push_all(&mut sink);
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        format!("cut off\n{all}")
    );
    sink.close();
    let mut sink = UserFile::open(&path).unwrap();
    push_all(&mut sink);
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        format!("cut off\n{all}{all}")
    );
    assert_eq!((sink.fault(), sink.take_unwritten()), (None, 0));
}

#[test]
fn a_full_device_is_reported_and_counted() {
    let mut sink = UserFile::open(Path::new("/dev/full")).unwrap();
    push_all(&mut sink);
    assert!(
        sink.fault().unwrap().contains("/dev/full"),
        "{:?}",
        sink.fault()
    );
    assert_eq!(sink.take_unwritten(), 0);
    sink.close();
    assert_eq!(sink.take_unwritten(), every_kind().len() as u64);
}

#[test]
fn a_file_that_cannot_be_opened() {
    let error = UserFile::open(Path::new("/no/such/folder/x"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("/no/such/folder/x"), "{error}");
}

#[test]
fn a_pipe_without_reader_does_not_hold_the_start_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(UserFile::open(&path).is_err());
}
