//! `events` over files that live sinks write.

#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

use clap::Parser;

use super::*;
use crate::event::sink::{
    Sink,
    jsonl::tests::{push, sink},
};

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.text().contains(text) {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{text}: {}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that went away.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: EventsArgs,
}

fn args(words: &[&str]) -> EventsArgs {
    Command::try_parse_from(["x"].iter().chain(words))
        .unwrap()
        .args
}

fn shown(folder: &Path, words: &[&str]) -> (String, String) {
    let (mut out, mut notes) = (Screen::default(), Screen::default());
    let code = show(&args(words), folder, false, &mut out, &mut notes, || true).unwrap();
    assert_eq!(code, 0);
    (out.text(), notes.text())
}

fn two_connectors(folder: &Path) {
    let mut a = sink(folder, "a", "i1", 1 << 20);
    let mut b = sink(folder, "b", "i2", 1 << 20);
    for second in 0..10 {
        push(&mut a, "a", second * 2, &format!("a{second}"));
        push(&mut b, "b", second * 2 + 1, &format!("b{second}"));
    }
    a.close();
    b.close();
}

fn last_words(text: &str) -> Vec<&str> {
    text.lines()
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect()
}

#[test]
fn everything_or_a_choice_of_it() {
    let folder = tempfile::tempdir().unwrap();
    two_connectors(folder.path());
    let (all, notes) = shown(folder.path(), &[]);
    assert_eq!(last_words(&all).len(), 20);
    assert_eq!(last_words(&all).get(..4).unwrap(), ["a0", "b0", "a1", "b1"]);
    assert_eq!(notes, "");
    let (one, _) = shown(folder.path(), &["--connector", "b", "-n", "2"]);
    assert_eq!(last_words(&one), ["b8", "b9"]);
    let time = Timestamp::from_second(1_700_000_017).unwrap().to_string();
    let (late, _) = shown(folder.path(), &["--since", &time]);
    assert_eq!(last_words(&late), ["b8", "a9", "b9"]);
    let (tail, _) = shown(folder.path(), &["-f"]);
    assert_eq!(last_words(&tail).len(), BEFORE_FOLLOWING);
    let (none, _) = shown(folder.path(), &["-n", "0"]);
    assert_eq!(none, "");
}

#[test]
fn json_is_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    two_connectors(folder.path());
    let (json, _) = shown(folder.path(), &["-o", "json", "--connector", "a"]);
    let file = std::fs::read_to_string(folder.path().join("a.i1.jsonl")).unwrap();
    assert_eq!(json, file);
}

#[test]
fn lines_of_another_version_are_shown_as_far_as_they_are_known() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.i.jsonl"),
        "{\"time\":\"2026-03-04T05:06:07Z\",\"kind\":\"new\\u001b[2J\",\"connector\":\"a\"}\nbroken\n",
    )
    .unwrap();
    let (text, notes) = shown(folder.path(), &[]);
    assert!(
        text.starts_with("2026-03-04T05:06:07.000Z  new\\x1b[2J  a  ("),
        "{text}"
    );
    assert!(notes.contains("1 lines could not be read"), "{notes}");
}

#[test]
fn following_sees_connectors_that_start_later_and_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let place: PathBuf = folder.path().join("events");
    let (out, notes) = (Screen::default(), Screen::default());
    let stop = Arc::new(Mutex::new(false));
    let (mut screen, mut beside) = (out.clone(), notes.clone());
    let (stopped, at) = (Arc::clone(&stop), place.clone());
    let follower = std::thread::spawn(move || {
        show(&args(&["-f"]), &at, false, &mut screen, &mut beside, || {
            *stopped.lock().unwrap()
        })
        .unwrap()
    });
    notes.wait_for("waiting");
    std::fs::create_dir(&place).unwrap();
    let mut first = sink(&place, "a", "i1", 2000);
    push(&mut first, "a", 0, "begin");
    first.flush();
    out.wait_for("begin");
    let start = Instant::now();
    for second in 1..40 {
        push(&mut first, "a", second, &format!("line-{second}."));
        first.flush();
        out.wait_for(&format!("line-{second}."));
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(place.join("a.i1.jsonl.1").exists());
    let mut second = sink(&place, "b", "i2", 2000);
    push(&mut second, "b", 50, "later");
    second.flush();
    out.wait_for("later");
    *stop.lock().unwrap() = true;
    assert_eq!(follower.join().unwrap(), 0);
    assert_eq!(out.text().lines().count(), 41);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    two_connectors(folder.path());
    for words in [&[][..], &["-f"]] {
        let mut notes = Screen::default();
        let code = show(
            &args(words),
            folder.path(),
            false,
            &mut Gone,
            &mut notes,
            || false,
        );
        assert_eq!(code.unwrap(), 0);
    }
}

#[test]
fn nothing_has_run_yet() {
    let (text, notes) = shown(Path::new("/no/such/folder"), &[]);
    assert_eq!(text, "");
    assert!(notes.contains("no connector has run"), "{notes}");
}

#[test]
fn times_and_ages() {
    assert_eq!(
        since("2026-03-04T05:06:07Z").unwrap().as_second(),
        1_772_600_767
    );
    let age = Timestamp::now().duration_since(since("15m").unwrap());
    assert!((899..=901).contains(&age.as_secs()), "{age:?}");
    assert!(since("yesterday-ish").unwrap_err().contains("15m"));
}
