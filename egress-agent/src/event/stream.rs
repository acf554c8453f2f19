//! The stream of one instance: records in, lines out, and the books that compare the two.

use std::collections::HashMap;

use egress_common::verdict::Reason;
use jiff::Timestamp;

use super::{
    call::RefusedCall,
    decode::{DecodeError, Decoded, decode},
    enrich::{Enricher, Lookups, NameRefusal},
    model::{Body, Record, Warning},
    sink::{Sink, json},
    tally::{Exact, Tally},
};
use crate::host::clock::boot_ns;

/// Lines are handed over at least this often while more keep coming. Nanoseconds.
const HAND_OVER_NS: u64 = 2_000_000;
/// A record that is read so long after it was written has others behind it. Nanoseconds.
const BEHIND_NS: u64 = 20_000_000;

/// The stream of one instance.
///
/// It belongs on a thread of its own, not in an async task: reading /proc and writing files
/// block, for a bounded time. The owner calls [`Stream::record`] for what the ring holds and [`Stream::flush`] once it
/// is empty: a single denial is on its way at once, and a burst needs few system calls.
/// About once a second it calls [`Stream::counters`] for each connector, after the ring was
/// read empty.
pub struct Stream {
    enricher: Enricher,
    sinks: Vec<Box<dyn Sink>>,
    books: HashMap<u32, Book>,
    json: Vec<u8>,
    waiting_since: Option<u64>,
    faulty: bool,
}

#[derive(Default)]
struct Book {
    name: Option<String>,
    tally: Tally,
}

impl Stream {
    /// A stream over sinks.
    pub fn new(enricher: Enricher, sinks: Vec<Box<dyn Sink>>) -> Self {
        Self {
            enricher,
            sinks,
            books: HashMap::new(),
            json: Vec::new(),
            waiting_since: None,
            faulty: false,
        }
    }

    /// Begins the books of a connector. `baseline`: its counters now, which are not zero
    /// where a running connector is adopted. Id 0 has the books of processes without one.
    pub fn open(&mut self, connector: u32, name: Option<&str>, baseline: Exact) {
        let book = Book {
            name: name.map(str::to_owned),
            tally: Tally::new(baseline),
        };
        self.books.insert(connector, book);
    }

    /// One record of the ring. `backlog`: more wait behind it, where the caller knows; that
    /// the stream has fallen behind it sees itself, and then reads nothing slow. A record that cannot be read
    /// is counted, and reported by the next [`Stream::counters`] of connector 0. Answers what
    /// was read.
    pub fn record(
        &mut self,
        bytes: &[u8],
        lookups: &dyn Lookups,
        backlog: bool,
    ) -> Result<Decoded, DecodeError> {
        match decode(bytes) {
            Ok(decoded) => {
                self.decoded(&decoded, lookups, backlog);
                Ok(decoded)
            }
            Err(error) => {
                self.malformed();
                Err(error)
            }
        }
    }

    /// A record that cannot be read.
    pub fn malformed(&mut self) {
        self.book(0).malformed();
    }

    /// A name that the DNS door refused.
    pub fn refusal(&mut self, connector: u32, refusal: &NameRefusal, backlog: bool) {
        let tally = self.book(connector);
        tally.refused(refusal.reason, 1);
        let lost = tally.take_lost();
        let now = boot_ns();
        let backlog = backlog || is_behind(refusal.time_ns, now);
        let record = self.enricher.refusal(refusal, lost, now, backlog);
        self.emit(&record);
    }

    /// A system call that the filter refused.
    pub fn call(&mut self, connector: u32, call: &RefusedCall, backlog: bool) {
        let book = self.books.entry(connector).or_default();
        book.tally.refused(call.reason, call.count);
        let lost = book.tally.take_lost();
        let name = book.name.clone().unwrap_or_default();
        let now = boot_ns();
        let backlog = backlog || is_behind(call.time_ns, now);
        let record = self.enricher.call(name, call, lost, now, backlog);
        self.emit(&record);
    }

    /// Something that happened now.
    pub fn note(&mut self, body: Body) {
        self.emit(&Record::new(Timestamp::now(), body));
    }

    /// The exact counters of a connector. Writes a line where something that was not shown
    /// has to be said.
    pub fn counters(&mut self, connector: u32, exact: Exact) {
        self.collect_unwritten();
        let tally = self.book(connector);
        tally.kernel(exact);
        if let Some(report) = tally.report(boot_ns()) {
            let name = self
                .books
                .get(&connector)
                .and_then(|book| book.name.clone());
            self.note(Body::Lost(super::model::Lost {
                connector: name,
                instance: self.enricher.instance().to_owned(),
                ..report
            }));
        }
    }

    /// The books of a connector, for its summary. Give the last counters first.
    pub fn tally(&mut self, connector: u32) -> &Tally {
        self.collect_unwritten();
        self.book(connector)
    }

    /// Hands over what waits. Call it when the ring is empty.
    pub fn flush(&mut self) {
        self.waiting_since = None;
        for sink in &mut self.sinks {
            sink.flush();
        }
        self.report_faults();
    }

    /// The last flush; waits a bounded time for sinks that do not take their lines.
    pub fn close(&mut self) {
        self.flush();
        for sink in &mut self.sinks {
            sink.close();
        }
    }

    /// The instance whose stream this is.
    pub fn instance(&self) -> &str {
        self.enricher.instance()
    }

    /// One record of the ring that was read; see [`Stream::record`].
    pub fn decoded(&mut self, decoded: &Decoded, lookups: &dyn Lookups, backlog: bool) {
        let event = &decoded.event;
        let count = u64::from(event.count);
        let lost = self.book(event.connector).take_lost();
        let now = boot_ns();
        let backlog = backlog || is_behind(event.time_ns, now);
        let record = self.enricher.denial(decoded, lookups, lost, now, backlog);
        let (Some(record), Some(reason)) = (record, Reason::from_code(event.reason)) else {
            return;
        };
        self.book(event.connector).shown(reason, count);
        self.emit(&record);
    }

    fn emit(&mut self, record: &Record) {
        self.json.clear();
        if json::push_line(record, &mut self.json).is_err() {
            self.book(0).unwritten(1);
            return;
        }
        for sink in &mut self.sinks {
            sink.push(record, &self.json);
        }
        let now = boot_ns();
        let since = *self.waiting_since.get_or_insert(now);
        if now.saturating_sub(since) >= HAND_OVER_NS {
            self.flush();
        }
    }

    fn book(&mut self, connector: u32) -> &mut Tally {
        &mut self.books.entry(connector).or_default().tally
    }

    /// Lines that a sink gave up are in the books of the only connector, or in those of
    /// none where there are several.
    fn collect_unwritten(&mut self) {
        let unwritten = self
            .sinks
            .iter_mut()
            .map(|sink| sink.take_unwritten())
            .sum();
        if unwritten == 0 {
            return;
        }
        let mut named = self.books.keys().copied().filter(|&id| id != 0);
        let owner = match (named.next(), named.next()) {
            (Some(only), None) => only,
            _ => 0,
        };
        self.book(owner).unwritten(unwritten);
    }

    /// One warning when lines begin to wait; the sinks that work carry it.
    fn report_faults(&mut self) {
        let fault = self.sinks.iter().find_map(|sink| sink.fault());
        let new = fault.is_some() && !self.faulty;
        self.faulty = fault.is_some();
        if let Some(fault) = fault.filter(|_| new) {
            let instance = self.enricher.instance().to_owned();
            self.note(Body::Warning(Warning {
                connector: None,
                instance,
                topic: "events-unwritten".into(),
                message: format!(
                    "{fault}; lines wait, and those that do not fit are counted: make room"
                ),
            }));
            for sink in &mut self.sinks {
                sink.flush();
            }
        }
    }
}

fn is_behind(time_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(time_ns) > BEHIND_NS
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
