//! A record of the ring, from its bytes to the lines that a person and a program read.

use std::{net::IpAddr, sync::Arc};

use egress_agent::event::{
    Enricher, Lookups, Record, decode,
    decode::Stranger,
    enrich::Leaving,
    facts::{Facts, Source},
    sink::{json, text},
};
use egress_common::{key::Addr, unix::UnixKey};

/// What is accepted says what the bytes say, and is one plain line in both forms.
pub fn run(data: &[u8]) {
    let Ok(decoded) = decode(data) else {
        return;
    };
    let word = |at: usize| u32::from_ne_bytes(std::array::from_fn(|byte| data[at + byte]));
    let event = &decoded.event;
    assert_eq!(event.connector, word(24));
    assert_eq!((event.pid, event.count), (word(28), word(44)));
    assert_eq!(event.port.to_ne_bytes(), data[48..50]);
    assert_eq!(event.comm, data[56..72]);
    match (&decoded.unix, &decoded.sni) {
        (None, None) => assert_eq!(data.len(), 72),
        (Some(name), None) => named(data, name),
        (None, Some(stranger)) => said(data, stranger),
        both => panic!("{both:?} in one record"),
    }

    let mut enricher = Enricher::with_source("fuzzed-1-1", Box::new(Nobody));
    let Some(record) = enricher.denial(&decoded, &Nothing, 0, event.time_ns, true) else {
        panic!("no record of {decoded:?}");
    };
    let mut line = Vec::new();
    json::push_line(&record, &mut line).expect("a record can be written");
    let (end, start) = line.split_last().expect("a line");
    assert_eq!(*end, b'\n');
    assert!(is_plain(str::from_utf8(start).expect("UTF-8")));
    let back: Record = serde_json::from_slice(start).expect("a line can be read");
    assert_eq!(back, record);
    let shown = text::line(&record, false);
    assert!(is_plain(&shown), "{shown:?}");
}

/// Whether nothing in a line moves the cursor, the reading direction or the line's end.
fn is_plain(line: &str) -> bool {
    let hidden = |char: char| matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !line.contains(|char: char| char.is_control() || hidden(char))
}

fn named(data: &[u8], name: &[u8]) {
    assert_eq!(data.len(), 192);
    let length = usize::from(u16::from_ne_bytes([data[78], data[79]]));
    let bytes = &data[80..80 + length];
    if u16::from_ne_bytes([data[76], data[77]]) == UnixKey::ABSTRACT {
        assert_eq!(name, [b"@", bytes].concat());
    } else {
        assert_eq!(name, bytes);
    }
}

/// A name in TLS, which stands back to front.
fn said(data: &[u8], stranger: &Stranger) {
    assert_eq!(data.len(), 360);
    let length = usize::from(u16::from_ne_bytes([data[98], data[99]]));
    let mut name = stranger.name.clone();
    name.reverse();
    assert_eq!(name, data[106..106 + length]);
    assert_eq!(stranger.cookie.to_ne_bytes(), data[72..80]);
    assert_eq!(stranger.source_port.to_ne_bytes(), data[96..98]);
}

/// No process is left to ask.
struct Nobody;

impl Source for Nobody {
    fn start(&mut self, _pid: u32) -> Option<u64> {
        None
    }

    fn read(&mut self, _pid: u32) -> Option<Arc<Facts>> {
        None
    }
}

/// Hostile names for everything.
struct Nothing;

impl Lookups for Nothing {
    fn connector(&self, id: u32) -> Option<String> {
        (id != 0).then(|| format!("c\n\u{1b}[2J{id}"))
    }

    fn rule(&self, slot: u32) -> Option<String> {
        slot.is_multiple_of(2).then(|| "a\u{202e}:443".to_owned())
    }

    fn name(&self, _connector: u32, _addr: &Addr) -> Option<String> {
        None
    }

    fn ways(&self, index: u32, _addr: IpAddr, _user: u32) -> Option<Leaving> {
        Some(Leaving {
            by: format!("i\n{index}"),
            now: vec!["\u{1b}[2J".to_owned()],
        })
    }
}
