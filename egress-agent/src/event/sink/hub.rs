//! Lines on their way to whoever listens at the daemon: kept for a while, and passed on.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use super::Sink;
use crate::event::model::Record;

/// Lines that are kept for those who come later.
const KEPT: usize = 4096;
/// Lines that a listener may be behind; it is told how many it has missed beyond them.
const BEHIND: usize = 1024;

/// A line, and whose it is.
#[derive(Debug)]
pub struct HubLine {
    /// Counts all lines from 1.
    pub number: u64,
    /// The user who started the instance.
    pub caller: u32,
    /// JSON with its line end.
    pub json: String,
}

/// Where lines come together.
#[derive(Clone)]
pub struct Hub {
    sender: broadcast::Sender<Arc<HubLine>>,
    past: Arc<Mutex<Past>>,
}

#[derive(Default)]
struct Past {
    count: u64,
    lines: VecDeque<Arc<HubLine>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(BEHIND),
            past: Arc::default(),
        }
    }
}

impl Hub {
    /// A sink for the lines of an instance that `caller` started.
    pub fn sink(&self, caller: u32) -> HubSink {
        HubSink {
            hub: self.clone(),
            caller,
        }
    }

    /// Lines that come from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<HubLine>> {
        self.sender.subscribe()
    }

    /// The last so many lines that are wanted.
    pub fn last(&self, count: usize, wants: impl Fn(&HubLine) -> bool) -> Vec<Arc<HubLine>> {
        let past = self.past();
        let wanted = past.lines.iter().rev().filter(|line| wants(line));
        let mut last: Vec<_> = wanted.take(count).cloned().collect();
        last.reverse();
        last
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One instance's way to the hub. Nobody who listens holds it up.
pub struct HubSink {
    hub: Hub,
    caller: u32,
}

impl Sink for HubSink {
    fn push(&mut self, _record: &Record, json: &[u8]) {
        let mut past = self.hub.past();
        past.count = past.count.saturating_add(1);
        let line = Arc::new(HubLine {
            number: past.count,
            caller: self.caller,
            json: String::from_utf8_lossy(json).into_owned(),
        });
        if past.lines.len() >= KEPT {
            past.lines.pop_front();
        }
        past.lines.push_back(Arc::clone(&line));
        // Under the lock, so that they are passed on in their order.
        let _nobody_listens = self.hub.sender.send(line);
    }

    fn flush(&mut self) {}

    fn take_unwritten(&mut self) -> u64 {
        0
    }

    fn fault(&self) -> Option<String> {
        None
    }

    fn close(&mut self) {}
}
