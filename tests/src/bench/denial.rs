//! From a refused connect to its line in the file of events.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use serde_json::Value;

use super::{
    job::Job,
    number::Spread,
    plan::Extent,
    report::{Bar, Cell, Report, Table},
    scene::{AGENT, Scene},
    worker::boot_ns,
};
use crate::{event, zone};

/// Microseconds.
const BAR: f64 = 1000.0;
/// Between two denials: the agent is idle when one comes.
const PAUSE: Duration = Duration::from_millis(5);
const FIRST_PORT: u16 = 20_000;
/// How long the last line may take.
const LATE: Duration = Duration::from_secs(5);

/// Measures; adds a table and a bar.
pub(super) fn measure(scene: &mut Scene, extent: &Extent, report: &mut Report) -> Result<()> {
    let wrong = refused(scene)?;
    let about = "refusals of what the policy permits".to_owned();
    report.bars.push(Bar::at_most(about, wrong as f64, 0.0, ""));
    let count = u16::try_from(extent.scale(400))?;
    let mut tail = Tail::open(&scene.events)?;
    let worker = &mut scene.lanes[AGENT].worker;
    worker.begin(&Job::Denied {
        ip: zone::STRANGER.into(),
        first: FIRST_PORT,
        count,
        pause: PAUSE,
    })?;
    let end = Instant::now() + LATE + PAUSE * 3 * u32::from(count);
    let ports = FIRST_PORT..FIRST_PORT + count;
    let mut seen = BTreeMap::new();
    while seen.len() < usize::from(count) {
        ensure!(
            Instant::now() < end,
            "only {} of {count} lines came",
            seen.len()
        );
        let (text, now) = tail.read()?;
        let ports_now = text.lines().filter_map(port);
        seen.extend(
            ports_now
                .filter(|port| ports.contains(port))
                .map(|port| (port, now)),
        );
    }
    let done = worker.end_job()?;
    let late = done.each.iter().zip(ports).map(|(before, port)| {
        let line = seen.get(&port).copied().unwrap_or(u64::MAX);
        line.saturating_sub(*before) as f64 / 1e3
    });
    let spread = Spread::of(late).context("no denial")?;
    let mut table = Table::new(
        "From a refused connect() to its JSON line, agent idle",
        "us",
        &["p50", "p99"],
    );
    table.row(
        "call begun to line read by another process",
        vec![Cell::of(Some(spread)), Cell::plain(Some(spread.p99))],
    );
    report.tables.push(table);
    let about = "denial to JSON line, p50".to_owned();
    report
        .bars
        .push(Bar::at_most(about, spread.median, BAR, "us"));
    Ok(())
}

/// Denials before this measurement makes any: there should be none, for everything else here is
/// permitted, and a segment that is refused and sent again spoils what was measured.
fn refused(scene: &Scene) -> Result<u64> {
    let events = event::read(&scene.events)?;
    let denied = events.iter().filter(|event| event.kind == "denied");
    Ok(denied.filter_map(|event| event.count).sum())
}

/// The destination port of a denial; `None`: something else.
fn port(line: &str) -> Option<u16> {
    let event: Value = serde_json::from_str(line).ok()?;
    if event["kind"] != "denied" {
        return None;
    }
    u16::try_from(event["destination"]["port"].as_u64()?).ok()
}

/// Reads what is appended to a file, as soon as it is.
struct Tail {
    file: File,
    changes: Inotify,
    rest: String,
}

impl Tail {
    /// From the end of the file as it is now.
    fn open(path: &Path) -> Result<Self> {
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        changes.add_watch(path, AddWatchFlags::IN_MODIFY)?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file,
            changes,
            rest: String::new(),
        })
    }

    /// Waits a moment for more; whole lines, and the boot clock when they were read.
    fn read(&mut self) -> Result<(String, u64)> {
        let mut waits = [PollFd::new(self.changes.as_fd(), PollFlags::POLLIN)];
        poll(&mut waits, PollTimeout::from(100_u8))?;
        // What changed is known; an empty list only means that time was over.
        drop(self.changes.read_events());
        self.file.read_to_string(&mut self.rest)?;
        let now = boot_ns()?;
        let end = self.rest.rfind('\n').map_or(0, |end| end + 1);
        Ok((self.rest.drain(..end).collect(), now))
    }
}
