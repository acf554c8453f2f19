//! Lines from records, with a made-up /proc.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at its first fault"
)]

use super::*;
use crate::event::{decode::tests::sample, facts::tests::Fake};

pub(crate) struct Names;

impl Lookups for Names {
    fn connector(&self, id: u32) -> Option<String> {
        (id == 3).then(|| "postmark".into())
    }

    fn rule(&self, slot: u32) -> Option<String> {
        (slot == 8).then(|| "api.postmarkapp.com:443/tcp".into())
    }

    fn name(&self, connector: u32, addr: &Addr) -> Option<String> {
        (connector == 3 && *addr == Addr::from_v4(0xcb00_7107)).then(|| "giftshop.club".into())
    }

    fn ways(&self, index: u32, addr: IpAddr, user: u32) -> Option<Leaving> {
        let known = addr == IpAddr::from([203, 0, 113, 7]) && user == 1000;
        known.then(|| Leaving {
            by: format!("if{index}"),
            now: vec!["eth0".into(), "eth1".into()],
        })
    }
}

const NOW: u64 = 100_000_000_000;

/// A record without the name of a unix socket.
fn plain(event: &Event) -> Decoded {
    Decoded {
        event: *event,
        unix: None,
        sni: None,
    }
}

fn line(event: &Event, fake: &Fake) -> Denial {
    let mut enricher = Enricher::with_source("i1", Box::new(fake.clone()));
    match enricher
        .denial(&plain(event), &Names, 2, NOW, false)
        .unwrap()
        .body
    {
        Body::Denied(denial) => denial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_datagram_on_another_way_is_told_which_is_right() {
    let mut event = Event {
        tid: 7,
        reason: Reason::Interface.code(),
        ..sample()
    };
    let denial = line(&event, &Fake::default());
    let message = denial.message.unwrap();
    assert!(
        message.starts_with("by if7, but this host sends there by eth0 or eth1: "),
        "{message}"
    );
    event.reason = Reason::NoRule.code();
    assert_eq!(line(&event, &Fake::default()).message, None);
    let none = Leaving {
        by: "up1".into(),
        now: Vec::new(),
    };
    assert!(misled(&none).starts_with("by up1, but this host has no route there: "));
}

#[test]
fn everything_that_is_known() {
    let fake = Fake::default();
    fake.set(4242, 50, "/usr/bin/node");
    let denial = line(&sample(), &fake);
    assert_eq!(denial.connector.as_deref(), Some("postmark"));
    assert_eq!(denial.protocol, "tcp");
    assert_eq!(denial.destination.ip, Some("203.0.113.7".parse().unwrap()));
    assert_eq!(denial.destination.port, Some(443));
    assert_eq!(denial.destination.name.as_deref(), Some("giftshop.club"));
    assert_eq!((denial.count, denial.lost), (1, 2));
    assert_eq!(denial.family.as_deref(), Some("inet"));
    let process = denial.process.unwrap();
    assert_eq!((process.pid, process.uid), (4242, Some(1000)));
    assert_eq!(process.comm, "node");
    assert_eq!(process.exe.as_deref(), Some("/usr/bin/node"));
    assert_eq!(process.parents.first().unwrap().comm, "init");
}

#[test]
fn a_process_that_is_gone_keeps_what_the_kernel_said() {
    let process = line(&sample(), &Fake::default()).process.unwrap();
    assert_eq!((process.pid, process.uid), (4242, Some(1000)));
    assert_eq!(process.comm, "node");
    assert_eq!((process.exe, process.cmdline.len()), (None, 0));
}

#[test]
fn facts_of_a_younger_process_are_not_attached() {
    let fake = Fake::default();
    fake.set(4242, 5_000, "/usr/bin/other");
    assert_eq!(line(&sample(), &fake).process.unwrap().exe, None);
}

#[test]
fn what_a_hook_could_not_know() {
    let mut event = sample();
    event.pid = 0;
    assert_eq!(line(&event, &Fake::default()).process, None);
    let mut event = sample();
    (event.uid, event.comm) = (0, [0; 16]);
    let process = line(&event, &Fake::default()).process.unwrap();
    assert_eq!((process.uid, process.comm.as_str()), (None, ""));
    let fake = Fake::default();
    fake.set(4242, 50, "/x");
    let process = line(&event, &fake).process.unwrap();
    assert_eq!((process.uid, process.comm.as_str()), (Some(7), "main"));
}

#[test]
fn sockets_have_no_destination() {
    let mut event = sample();
    event.layer = Layer::Socket.code();
    event.reason = Reason::SocketType.code();
    event.addr = Addr { halves: [0, 0] };
    (event.protocol, event.port, event.family) = (0, 132, 10);
    let denial = line(&event, &Fake::default());
    assert_eq!(denial.protocol, "sctp");
    assert_eq!(denial.destination, Destination::default());
    assert_eq!(denial.family.as_deref(), Some("inet6"));
}

#[test]
fn rules_and_addresses() {
    for (slot, name) in [
        (0, None),
        (RULE_DOOR, Some("(dns-door)")),
        (8, Some("api.postmarkapp.com:443/tcp")),
        (9, Some("(slot 9)")),
    ] {
        assert_eq!(rule(slot, &Names).as_deref(), name);
    }
    assert_eq!(
        address(&Addr::from_v6(0x2001_0db8 << 32, 7)),
        Some("2001:db8::7".parse().unwrap())
    );
    assert_eq!(address(&Addr::from_v6(0, 1)), Some("::1".parse().unwrap()));
}

#[test]
fn bytes_that_are_no_text() {
    let mut event = sample();
    event.comm = *b"\xff\x1b[31mfull-name-";
    assert_eq!(
        line(&event, &Fake::default()).process.unwrap().comm,
        "\u{fffd}\x1b[31mfull-name-"
    );
}

#[test]
fn audited_records_say_so() {
    let mut event = sample();
    event.action = Action::Audit.code();
    let mut enricher = Enricher::with_source("i1", Box::new(Fake::default()));
    let record = enricher
        .denial(&plain(&event), &Names, 0, NOW, true)
        .unwrap();
    assert!(matches!(record.body, Body::WouldDeny(_)));
}

pub(crate) fn refusal() -> NameRefusal {
    NameRefusal {
        time_ns: 1_000_000_007,
        connector: "postmark".into(),
        name: "giftshop.club".into(),
        qtype: "AAAA".into(),
        rule: None,
        reason: Reason::NameNotAllowed,
        client: "127.0.0.1:40000".parse().unwrap(),
        protocol: 17,
        audited: false,
        pid: None,
        uid: None,
        address: None,
        message: None,
    }
}

#[test]
fn refused_names() {
    let fake = Fake::default();
    fake.set(77, 50, "/usr/bin/dig");
    let mut enricher = Enricher::with_source("i1", Box::new(fake));
    let record = enricher.refusal(&refusal(), 0, NOW, false);
    let Body::Denied(denial) = record.body else {
        panic!("{record:?}")
    };
    assert_eq!(denial.layer, Layer::Dns);
    assert_eq!(denial.protocol, "udp");
    assert_eq!(denial.destination.name.as_deref(), Some("giftshop.club"));
    assert_eq!(denial.destination.query.as_deref(), Some("AAAA"));
    assert_eq!((denial.destination.ip, denial.process), (None, None));
    let known = NameRefusal {
        pid: Some(77),
        audited: true,
        ..refusal()
    };
    let record = enricher.refusal(&known, 0, NOW, false);
    let Body::WouldDeny(denial) = record.body else {
        panic!("{record:?}")
    };
    let process = denial.process.unwrap();
    assert_eq!((process.pid, process.uid), (77, Some(7)));
    assert_eq!(
        (process.comm.as_str(), process.exe.as_deref()),
        ("main", Some("/usr/bin/dig"))
    );
}

#[test]
fn time_is_wall_time() {
    let mut enricher = Enricher::with_source("i1", Box::new(Fake::default()));
    let now = crate::host::boot_ns();
    let mut event = sample();
    event.time_ns = now;
    let record = enricher
        .denial(&plain(&event), &Names, 0, now, false)
        .unwrap();
    let gap = jiff::Timestamp::now().duration_since(record.time);
    assert!(gap.abs() < jiff::SignedDuration::from_secs(1), "{gap:?}");
}

#[test]
fn a_unix_socket_has_a_path_and_a_type() {
    let mut event = sample();
    event.layer = Layer::Unix.code();
    event.reason = Reason::UnixPath.code();
    event.addr = Addr { halves: [0, 0] };
    (event.protocol, event.family, event.port) = (0, 1, 5);
    let decoded = Decoded {
        event,
        unix: Some(b"/run/a\xff.sock".to_vec()),
        sni: None,
    };
    let mut enricher = Enricher::with_source("i1", Box::new(Fake::default()));
    let record = enricher.denial(&decoded, &Names, 0, NOW, true).unwrap();
    let Body::Denied(denial) = record.body else {
        panic!("{record:?}");
    };
    assert_eq!(denial.protocol, "seqpacket");
    assert_eq!(denial.family.as_deref(), Some("unix"));
    assert_eq!(denial.destination.port, None);
    assert_eq!(
        denial.destination.path.as_deref(),
        Some("/run/a\u{fffd}.sock")
    );
}
