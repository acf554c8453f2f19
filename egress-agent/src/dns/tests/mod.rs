//! The door against a stub upstream, over real sockets on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that panics has failed, which is what it is for"
)]

mod answers;
mod inspected;
pub(super) mod stub;
mod upstream;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use egress_common::{abi::TCP, verdict::Reason};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::stub::{
    Fixture, Zone, a, aaaa, cidr, cname, framed, host, now_ns, policy, query, query_edns,
    read_framed,
};
use super::{prefetch, refresh};
use crate::policy::model::{LOOKUPS_PER_MINUTE, Mode, Start, lookups_at_once};

const V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const HTTPS: &[(u16, u16)] = &[(443, 443)];

/// What a refusal looks like to a client: no such name.
fn refused() -> ResponseCode {
    ResponseCode::NXDomain
}

/// What it looks like where a name is permitted and its addresses are not.
fn withheld() -> ResponseCode {
    ResponseCode::NoError
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::A(a) => IpAddr::V4(a.0),
            RData::AAAA(aaaa) => IpAddr::V6(aaaa.0),
            other => panic!("unexpected record {other:?}"),
        })
        .collect()
}

async fn one_rule() -> Fixture {
    let fixture = Fixture::start(policy(vec![host("api.example.com", HTTPS)])).await;
    fixture.stub.a("api.example.com", &[V4]);
    fixture
}

#[tokio::test]
async fn a_permitted_name_is_granted_and_answered() {
    let fixture = one_rule().await;
    let before = now_ns();
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(addresses(&answer), [IpAddr::V4(V4)]);
    assert_eq!(answer.answers[0].ttl, 60);
    let grant = fixture.table.granted(V4, 443, TCP).unwrap();
    assert_eq!(grant.rule, 8);
    let lease = Duration::from_nanos(grant.expires_ns - before);
    assert!(
        lease >= Duration::from_secs(90) && lease < Duration::from_secs(92),
        "{lease:?}"
    );
    assert_eq!(fixture.table.len(), 1);
}

/// The client is a thread of its own: it sees the answer the moment it is sent, also while
/// the door's only thread is busy in the table.
#[tokio::test]
async fn the_answer_waits_for_the_grant() {
    let fixture = one_rule().await;
    fixture.table.slow.store(true, Ordering::SeqCst);
    let (door, puts) = (fixture.door, fixture.table.puts.clone());
    let client = tokio::task::spawn_blocking(move || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let asked = query("api.example.com", RecordType::A);
        socket.send_to(&asked, door).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        (
            puts.load(Ordering::SeqCst),
            Message::from_vec(&buffer[..length]).unwrap(),
        )
    });
    let (puts, answer) = client.await.unwrap();
    assert_eq!(addresses(&answer).len(), 1);
    assert_eq!(puts, 1);
}

#[tokio::test]
async fn another_name_is_refused_and_reported() {
    let mut fixture = one_rule().await;
    let answer = fixture.ask("GiftShop.club", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, refused());
    assert!(answer.answers.is_empty());
    assert_eq!(fixture.stub.asked(), 0);
    let refusal = fixture.refusals.try_recv().unwrap();
    assert_eq!(refusal.name, "giftshop.club");
    assert_eq!(refusal.qtype, "A");
    assert_eq!(refusal.reason, Reason::NameNotAllowed);
    assert!(!refusal.audited);
    assert_eq!(fixture.names.stats().refused(Reason::NameNotAllowed), 1);
}

#[tokio::test]
async fn reports_that_find_no_room_are_counted() {
    let fixture = one_rule().await;
    for _ in 0..20 {
        fixture.ask("giftshop.club", RecordType::TXT).await;
    }
    assert_eq!(fixture.names.stats().refused(Reason::NameNotAllowed), 20);
    assert_eq!(fixture.names.stats().lost(), 12);
}

#[tokio::test]
async fn other_records_of_a_permitted_name_are_empty() {
    let mut fixture = one_rule().await;
    for kind in [
        RecordType::TXT,
        RecordType::MX,
        RecordType::SRV,
        RecordType::HTTPS,
        RecordType::SVCB,
        RecordType::ANY,
        RecordType::NULL,
    ] {
        let answer = fixture.ask("api.example.com", kind).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{kind}"
        );
        assert!(
            answer.answers.is_empty() && answer.additionals.is_empty(),
            "{kind}"
        );
    }
    assert_eq!(fixture.stub.asked(), 0);
    // Each has its line, but for those that clients ask for by the way.
    for kind in ["TXT", "MX", "SRV", "ANY", "NULL"] {
        let refusal = fixture.refusal().await;
        let told = (refusal.reason, refusal.qtype.as_str());
        assert_eq!(told, (Reason::RecordType, kind));
    }
    assert!(fixture.refusals.try_recv().is_err());
}

#[tokio::test]
async fn letter_case_comes_back_and_never_goes_up() {
    let fixture = one_rule().await;
    let asked = query("aPi.ExAmPlE.cOm", RecordType::A);
    let answer = fixture.exchange_raw(&asked).await;
    assert_eq!(answer[12..asked.len()], asked[12..]);
    let seen = fixture.stub.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    for (bytes, _) in seen {
        assert!(bytes[12..].starts_with(b"\x03api\x07example\x03com\0"));
    }
}

#[tokio::test]
async fn edns_decides_where_answers_are_cut() {
    let fixture = one_rule().await;
    let many: Vec<Ipv4Addr> = (1..=31)
        .map(|host| Ipv4Addr::new(203, 0, 113, host))
        .collect();
    fixture.stub.a("api.example.com", &many);
    let plain = fixture.ask("api.example.com", RecordType::A).await;
    assert!(plain.metadata.truncation);
    assert!(
        plain.answers.len() == 29 && plain.edns.is_none(),
        "what fits 512 bytes"
    );
    let wide = query_edns("api.example.com", RecordType::A, 4096);
    let wide = fixture.exchange(&wide).await;
    assert!(!wide.metadata.truncation);
    assert_eq!(wide.answers.len(), 31);
    assert!(wide.edns.is_some());
    let mut stream = fixture.tcp().await;
    let asked = framed(&query("api.example.com", RecordType::A));
    stream.write_all(&asked).await.unwrap();
    assert_eq!(read_framed(&mut stream).await.answers.len(), 31);
}

#[tokio::test]
async fn pipelined_tcp_queries_have_their_own_verdicts() {
    let mut fixture = one_rule().await;
    fixture.stub.zone(
        "api.example.com",
        Zone {
            records: vec![a("api.example.com", V4, 60)],
            delay: Duration::from_millis(100),
            ..Zone::default()
        },
    );
    let mut burst = Vec::new();
    for (id, name) in [
        "api.example.com",
        "evil.example",
        "api.example.com",
        "x.evil.example",
    ]
    .iter()
    .enumerate()
    {
        let mut message = query(name, RecordType::A);
        message[1] = u8::try_from(id).unwrap();
        burst.extend(framed(&message));
    }
    let mut stream = fixture.tcp().await;
    // Cut inside a length prefix and inside a message.
    for part in [&burst[..1], &burst[1..40], &burst[40..]] {
        stream.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut codes = [None; 4];
    for _ in 0..4 {
        let answer = read_framed(&mut stream).await;
        codes[usize::from(answer.id & 0xff)] = Some(answer.metadata.response_code);
    }
    let (ok, no) = (Some(ResponseCode::NoError), Some(refused()));
    assert_eq!(codes, [ok, no, ok, no]);
    assert_eq!(fixture.refusal().await.name, "evil.example");
    assert_eq!(fixture.refusal().await.name, "x.evil.example");
}

#[tokio::test]
async fn more_pipelined_queries_than_places_are_all_answered() {
    let fixture = one_rule().await;
    let mut stream = fixture.tcp().await;
    let one = framed(&query("api.example.com", RecordType::A));
    stream.write_all(&one.repeat(100)).await.unwrap();
    for _ in 0..100 {
        assert_eq!(addresses(&read_framed(&mut stream).await).len(), 1);
    }
}

#[tokio::test]
async fn tcp_ends_where_framing_is_lost() {
    let mut fixture = one_rule().await;
    let mut stream = fixture.tcp().await;
    stream.write_all(&[0xff, 0xff, 1, 2, 3]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    assert_eq!(fixture.refusal().await.reason, Reason::NameMalformed);
    let mut stream = fixture.tcp().await;
    stream.write_all(&[0, 0]).await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn half_closed_tcp_still_gets_its_answers() {
    let fixture = one_rule().await;
    let mut stream = fixture.tcp().await;
    let asked = framed(&query("api.example.com", RecordType::A));
    stream.write_all(&asked).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(addresses(&read_framed(&mut stream).await), [IpAddr::V4(V4)]);
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_truncated_upstream_answer_is_fetched_over_tcp() {
    let fixture = one_rule().await;
    fixture.stub.zone(
        "api.example.com",
        Zone {
            records: vec![a("api.example.com", V4, 60)],
            truncate_udp: true,
            ..Zone::default()
        },
    );
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(V4)]);
    let seen = fixture.stub.seen.lock().unwrap();
    let a_questions = seen.iter().filter(|(bytes, _)| {
        Message::from_vec(bytes).unwrap().queries[0].query_type() == RecordType::A
    });
    let over: Vec<bool> = a_questions.map(|(_, tcp)| *tcp).collect();
    assert_eq!(over, [false, true]);
}

#[tokio::test]
async fn what_the_upstream_denies_is_passed_on() {
    let mut fixture = Fixture::start(policy(vec![
        host("gone.example.com", HTTPS),
        host("v4only.example.com", HTTPS),
        host("broken.example.com", HTTPS),
    ]))
    .await;
    fixture.stub.a("v4only.example.com", &[V4]);
    fixture.stub.zone(
        "broken.example.com",
        Zone {
            servfail: true,
            ..Zone::default()
        },
    );
    let code = |message: Message| message.metadata.response_code;
    let gone = fixture.ask("gone.example.com", RecordType::A).await;
    assert_eq!(code(gone), ResponseCode::NXDomain);
    let nodata = fixture.ask("v4only.example.com", RecordType::AAAA).await;
    assert_eq!(code(nodata), ResponseCode::NoError);
    let broken = fixture.ask("broken.example.com", RecordType::A).await;
    assert_eq!(code(broken), ResponseCode::ServFail);
    assert_eq!(fixture.names.stats().failed(), 1);
    assert!(fixture.refusals.try_recv().is_err());
    assert_eq!(fixture.table.len(), 0);
}

#[tokio::test]
async fn aliases_are_followed_to_their_end() {
    let fixture = one_rule().await;
    // Two hops in one answer, the third asked for.
    fixture.stub.zone(
        "api.example.com",
        Zone {
            records: vec![
                cname("api.example.com", "edge.cdn.example", 300),
                cname("edge.cdn.example", "pop7.cdn.example", 45),
            ],
            ..Zone::default()
        },
    );
    fixture.stub.zone(
        "pop7.cdn.example",
        Zone {
            records: vec![
                a("pop7.cdn.example", V4, 120),
                a("stranger.example", Ipv4Addr::new(203, 0, 113, 99), 120),
            ],
            ..Zone::default()
        },
    );
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(V4)]);
    assert_eq!(answer.answers[0].name.to_ascii(), "api.example.com.");
    assert_eq!(answer.answers[0].ttl, 45);
    assert_eq!(fixture.table.len(), 1);
}

#[tokio::test]
async fn aliases_in_a_circle_end() {
    let fixture = one_rule().await;
    for (from, to) in [
        ("api.example.com", "b.example"),
        ("b.example", "api.example.com"),
    ] {
        fixture.stub.zone(
            from,
            Zone {
                records: vec![cname(from, to, 60)],
                ..Zone::default()
            },
        );
    }
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn an_alias_to_a_denied_host_is_denied() {
    let mut rules = policy(vec![host("api.example.com", HTTPS)]);
    rules.deny = vec![host("*.tracker.example", &[(1, 65535)])];
    let mut fixture = Fixture::start(rules).await;
    fixture.stub.zone(
        "api.example.com",
        Zone {
            records: vec![
                cname("api.example.com", "x.tracker.example", 60),
                a("x.tracker.example", V4, 60),
            ],
            ..Zone::default()
        },
    );
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, withheld());
    let refusal = fixture.refusal().await;
    assert_eq!(refusal.reason, Reason::DenyRule);
    assert_eq!(refusal.rule.as_deref(), Some("*.tracker.example"));
    assert_eq!(fixture.table.len(), 0);
}

#[tokio::test]
async fn answers_that_point_inside_are_dropped() {
    let mut fixture = one_rule().await;
    let inside = [
        Ipv4Addr::new(127, 0, 0, 1),
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(10, 0, 0, 1),
    ];
    fixture.stub.a("api.example.com", &inside);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, withheld());
    assert_eq!(fixture.refusal().await.reason, Reason::PrivateAnswer);
    assert_eq!(fixture.table.len(), 0);
    // With one good address among them, that one is answered.
    fixture.names.forget();
    fixture
        .stub
        .a("api.example.com", &[inside[0], V4, inside[1]]);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(V4)]);
    assert_eq!(fixture.table.len(), 1);
}

#[tokio::test]
async fn mapped_addresses_are_no_way_round() {
    let fixture = one_rule().await;
    let mapped = [
        "::ffff:10.0.0.1",
        "::ffff:203.0.113.9",
        "64:ff9b::7f00:1",
        "::1",
    ];
    let records = mapped
        .iter()
        .map(|text| aaaa("api.example.com", text.parse().unwrap(), 60))
        .collect();
    fixture.stub.zone(
        "api.example.com",
        Zone {
            records,
            ..Zone::default()
        },
    );
    let answer = fixture.ask("api.example.com", RecordType::AAAA).await;
    assert_eq!(answer.metadata.response_code, withheld());
    assert_eq!(fixture.table.len(), 0);
}

#[tokio::test]
async fn a_private_rule_takes_private_answers() {
    let mut inside = host("db.example.com", &[(5432, 5433)]);
    inside.private = true;
    let fixture = Fixture::start(policy(vec![host("db.example.com", HTTPS), inside])).await;
    let db = Ipv4Addr::new(10, 1, 2, 3);
    fixture
        .stub
        .a("db.example.com", &[db, Ipv4Addr::new(169, 254, 169, 254)]);
    let answer = fixture.ask("db.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(db)]);
    // Only through the rule that says so.
    assert_eq!(fixture.table.granted(db, 5432, TCP).unwrap().rule, 9);
    assert!(fixture.table.granted(db, 5433, TCP).is_some());
    assert_eq!(fixture.table.len(), 2);
}

#[tokio::test]
async fn an_address_of_this_host_is_private_also_when_it_comes_later() {
    let mut inside = host("inside.example.com", HTTPS);
    inside.private = true;
    let rules = policy(vec![host("api.example.com", HTTPS), inside]);
    let mut fixture = Fixture::start(rules).await;
    let [own, later, other] = [240, 241, 242].map(|last| Ipv4Addr::new(203, 0, 113, last));
    stub::OWN.lock().unwrap().push(own.into());
    fixture.stub.a("api.example.com", &[own]);
    fixture.stub.a("inside.example.com", &[own]);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert!(answer.answers.is_empty());
    assert_eq!(fixture.refusal().await.reason, Reason::PrivateAnswer);
    let answer = fixture.ask("inside.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(own)]);

    fixture.names.forget();
    fixture.stub.a("api.example.com", &[later, other]);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer).len(), 2);
    stub::OWN.lock().unwrap().push(later.into());
    fixture.names.forget_own().unwrap();
    let granted = |address| fixture.table.granted(address, 443, TCP).is_some();
    assert!(!granted(later) && granted(other) && granted(own));
    // Nor is it told any more, though the answer is kept.
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(other)]);
}

#[tokio::test]
async fn a_denied_prefix_is_never_granted() {
    let mut rules = policy(vec![host("api.example.com", &[(80, 80), (443, 443)])]);
    rules.deny = vec![
        cidr("203.0.113.0/28", &[(80, 80)]),
        cidr("203.0.113.32/28", &[(1, 65535)]),
    ];
    let mut fixture = Fixture::start(rules).await;
    let gone = Ipv4Addr::new(203, 0, 113, 33);
    fixture.stub.a("api.example.com", &[V4, gone]);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(V4)]);
    assert!(fixture.table.granted(V4, 443, TCP).is_some());
    assert_eq!(fixture.table.len(), 1);
    fixture.names.forget();
    fixture.stub.a("api.example.com", &[gone]);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, withheld());
    assert_eq!(fixture.refusal().await.reason, Reason::DenyRule);
}

#[tokio::test]
async fn a_full_table_answers_nothing() {
    let mut fixture = one_rule().await;
    fixture.table.full.store(true, Ordering::SeqCst);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.answers.is_empty());
    assert_eq!(fixture.refusal().await.reason, Reason::TableFull);
}

#[tokio::test]
async fn a_slow_upstream_fails_in_time_and_holds_up_nobody() {
    let fixture = Fixture::start(policy(vec![
        host("slow.example.com", HTTPS),
        host("api.example.com", HTTPS),
    ]))
    .await;
    fixture.stub.a("api.example.com", &[V4]);
    fixture.stub.zone(
        "slow.example.com",
        Zone {
            delay: Duration::from_secs(30),
            ..Zone::default()
        },
    );
    let start = Instant::now();
    let slow = fixture.ask("slow.example.com", RecordType::A);
    let quick = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let start = Instant::now();
        fixture.ask("api.example.com", RecordType::A).await;
        start.elapsed()
    };
    let (slow, quick) = tokio::join!(slow, quick);
    assert_eq!(slow.metadata.response_code, ResponseCode::ServFail);
    // As long as a C library waits: two times 5 s.
    assert!(
        start.elapsed() < Duration::from_secs(11),
        "{:?}",
        start.elapsed()
    );
    assert!(quick < Duration::from_secs(1), "{quick:?}");
}

/// Names and kinds that the upstream was asked for, in their order.
fn asked(fixture: &Fixture) -> Vec<(String, RecordType)> {
    let seen = fixture.stub.seen.lock().unwrap();
    let questions = seen.iter().map(|(bytes, _)| {
        let question = Message::from_vec(bytes).unwrap().queries[0].clone();
        let name = question.name().to_ascii();
        (name.trim_end_matches('.').to_owned(), question.query_type())
    });
    questions.collect()
}

#[tokio::test]
async fn an_answer_is_kept_for_what_was_told_and_its_grant_is_not_longer() {
    let mut rules = policy(vec![host("*.example.com", HTTPS)]);
    rules.dns.ttl_floor = Duration::from_secs(2);
    rules.dns.grace = Duration::from_secs(1);
    let fixture = Fixture::start(rules).await;
    fixture.stub.zone(
        "api.example.com",
        Zone {
            records: vec![a("api.example.com", V4, 0)],
            ..Zone::default()
        },
    );
    let first = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(first.answers[0].ttl, 2);
    let until = fixture.table.granted(V4, 443, TCP).unwrap().expires_ns;
    let moved = Ipv4Addr::new(203, 0, 113, 8);
    fixture.stub.a("api.example.com", &[moved]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // Over TCP, in other letters, with EDNS: the same question.
    let mut stream = fixture.tcp().await;
    let again = query_edns("API.example.com", RecordType::A, 4096);
    stream.write_all(&framed(&again)).await.unwrap();
    let again = read_framed(&mut stream).await;
    assert_eq!(addresses(&again), [IpAddr::V4(V4)]);
    assert_eq!(again.answers[0].ttl, 1, "what is left");
    assert_eq!(
        fixture.table.granted(V4, 443, TCP).unwrap().expires_ns,
        until
    );
    assert_eq!(asked(&fixture).len(), 2);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let later = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&later), [IpAddr::V4(moved)]);
}

/// What is kept is judged anew each time.
#[tokio::test]
async fn a_kept_answer_gives_way_to_a_new_policy() {
    let mut fixture = one_rule().await;
    fixture.ask("api.example.com", RecordType::A).await;
    let denied = cidr("203.0.113.0/24", &[(1, 65535)]);
    replace(&fixture, |policy| policy.deny = vec![denied], &[8]);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert!(answer.answers.is_empty());
    assert_eq!(fixture.refusal().await.reason, Reason::DenyRule);
}

#[tokio::test]
async fn equal_questions_go_up_once() {
    let fixture = one_rule().await;
    let slow = Zone {
        records: vec![a("api.example.com", V4, 60)],
        delay: Duration::from_millis(200),
        ..Zone::default()
    };
    fixture.stub.zone("api.example.com", slow);
    let mut stream = fixture.tcp().await;
    let one = framed(&query("api.example.com", RecordType::A));
    stream.write_all(&one.repeat(10)).await.unwrap();
    let other = fixture.ask("api.example.com", RecordType::AAAA).await;
    assert!(other.answers.is_empty());
    for _ in 0..10 {
        assert_eq!(addresses(&read_framed(&mut stream).await), [IpAddr::V4(V4)]);
    }
    assert_eq!(asked(&fixture).len(), 2, "A and AAAA, each once");
}

/// The zone's owner reads the questions that reach it. Whatever a connector does, these are no more
/// than its budget: answers without a TTL, failures, names that do not exist, and either kind of
/// address by turns.
#[tokio::test]
async fn no_order_of_questions_says_more_than_the_budget() {
    let mut rules = policy(vec![
        host("api.example.com", HTTPS),
        host("*.wild.example", HTTPS),
    ]);
    rules.dns.ttl_floor = Duration::ZERO;
    rules.dns.grace = Duration::ZERO;
    let fixture = Fixture::start(rules).await;
    let mut names = vec!["api.example.com".to_owned()];
    names.extend((0..16).map(|number| format!("n{number:x}.wild.example")));
    for (number, name) in names.iter().enumerate() {
        let zone = match number % 4 {
            0 => Zone {
                servfail: true,
                ..Zone::default()
            },
            1 => continue,
            _ => Zone {
                records: vec![a(name, V4, 0)],
                ..Zone::default()
            },
        };
        fixture.stub.zone(name, zone);
    }
    let begin = Instant::now();
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    socket.connect(fixture.door).await.unwrap();
    let mut questions = 0_usize;
    while begin.elapsed() < Duration::from_secs(6) {
        for (number, name) in names.iter().enumerate() {
            let kind = [RecordType::A, RecordType::AAAA][(questions + number) % 2];
            socket.send(&query(name, kind)).await.unwrap();
            let mut buffer = [0; 600];
            let answered = tokio::time::timeout(Duration::from_secs(8), socket.recv(&mut buffer));
            answered.await.expect("no answer").unwrap();
        }
        questions += names.len();
    }
    let asked = asked(&fixture);
    assert!(questions > 500, "{questions}");
    let most = usize::try_from(lookups_at_once(LOOKUPS_PER_MINUTE)).unwrap() + 4;
    // The resolver asks a server that fails once more.
    let failing = |name: &str| names.iter().step_by(4).any(|each| each == name);
    for zone in [".wild.example", "api.example.com"] {
        let of_zone: Vec<_> = asked
            .iter()
            .filter(|(name, _)| name.ends_with(zone))
            .collect();
        for kind in [RecordType::A, RecordType::AAAA] {
            let mut looked_up = 0.0;
            for (name, _) in of_zone.iter().filter(|(_, asked)| *asked == kind) {
                looked_up += if failing(name) { 0.5 } else { 1.0 };
            }
            assert!(
                (3.0..=most as f64).contains(&looked_up),
                "{zone} {kind}: {looked_up}"
            );
        }
    }
}

#[tokio::test]
async fn malformed_messages_are_reported_and_do_no_harm() {
    let mut fixture = one_rule().await;
    let mut dotted = query("apixexample.com", RecordType::A);
    dotted[16] = b'.';
    let answer = fixture.exchange(&dotted).await;
    assert_eq!(answer.metadata.response_code, refused());
    let refusal = fixture.refusal().await;
    assert_eq!(refusal.reason, Reason::NameMalformed);
    assert_eq!(refusal.name, "api\\.example.com");
    let mut trailing = query("api.example.com", RecordType::A);
    trailing.push(0);
    let answer = fixture.exchange(&trailing).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer).len(), 1);
    assert_eq!(fixture.names.stats().refused(Reason::NameMalformed), 2);
}

#[tokio::test]
async fn a_wildcard_has_a_budget() {
    let mut fixture = Fixture::start(policy(vec![host("*.example.com", HTTPS)])).await;
    for number in 0..lookups_at_once(LOOKUPS_PER_MINUTE) {
        fixture
            .ask(&format!("n{number}.example.com"), RecordType::A)
            .await;
    }
    let asked = fixture.stub.asked();
    let answer = fixture.ask("one-more.example.com", RecordType::A).await;
    // Clients try again later after this, and give up after others.
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(fixture.stub.asked(), asked);
    let refusal = fixture.refusal().await;
    assert_eq!(refusal.reason, Reason::NameBudget);
    assert_eq!(refusal.rule.as_deref(), Some("*.example.com"));
    // A name asked before costs nothing, of whichever kind.
    let again = fixture.ask("n1.example.com", RecordType::AAAA).await;
    assert_eq!(again.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(fixture.stub.asked(), asked);
}

#[tokio::test]
async fn an_audited_policy_answers_and_reports() {
    let mut rules = policy(vec![host("api.example.com", HTTPS)]);
    rules.mode = Mode::Audit;
    let mut fixture = Fixture::start(rules).await;
    let inside = Ipv4Addr::new(127, 0, 0, 1);
    fixture.stub.a("api.example.com", &[inside]);
    fixture.stub.a("giftshop.club", &[V4]);
    let answer = fixture.ask("giftshop.club", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(V4)]);
    let refusal = fixture.refusal().await;
    assert!(refusal.audited);
    assert_eq!(refusal.reason, Reason::NameNotAllowed);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(inside)]);
    let refusal = fixture.refusal().await;
    assert!(refusal.audited);
    assert_eq!(refusal.reason, Reason::PrivateAnswer);
    assert_eq!(fixture.table.len(), 0);
}

#[tokio::test]
async fn exact_names_are_prefetched_and_refreshed() {
    let mut rules = policy(vec![
        host("api.example.com", HTTPS),
        host("gone.example.com", HTTPS),
        host("*.example.com", HTTPS),
    ]);
    rules.dns.ttl_floor = Duration::from_secs(1);
    rules.dns.grace = Duration::ZERO;
    let fixture = Fixture::start(rules).await;
    let v6: Ipv6Addr = "2001:db8::7".parse().unwrap();
    fixture.stub.zone(
        "api.example.com",
        Zone {
            records: vec![a("api.example.com", V4, 1), aaaa("api.example.com", v6, 1)],
            ..Zone::default()
        },
    );
    let prefetched = prefetch(&fixture.names, Start::Strict).await;
    let told: Vec<(String, Option<usize>)> = prefetched
        .iter()
        .map(|entry| (entry.name.to_string(), entry.result.as_ref().ok().copied()))
        .collect();
    let expected = [
        ("api.example.com".to_owned(), Some(2)),
        ("gone.example.com".to_owned(), None),
    ];
    assert_eq!(told, expected);
    // Both rules cover the name, the wildcard as well.
    assert_eq!(fixture.table.len(), 2);
    let moved = Ipv4Addr::new(203, 0, 113, 8);
    fixture.stub.a("api.example.com", &[moved]);
    fixture
        .stub
        .a("gone.example.com", &[Ipv4Addr::new(203, 0, 113, 9)]);
    let stop = fixture.shutdown.subscribe();
    let (_more, later) = tokio::sync::mpsc::channel(1);
    let task = tokio::spawn(refresh(fixture.names.clone(), prefetched, later, stop));
    tokio::time::sleep(Duration::from_millis(2300)).await;
    assert!(fixture.table.granted(moved, 443, TCP).is_some());
    let late = fixture
        .table
        .granted(Ipv4Addr::new(203, 0, 113, 9), 443, TCP);
    assert!(late.is_some());
    fixture.shutdown.send(true).unwrap();
    task.await.unwrap();
    fixture.served.await.unwrap().unwrap();
}

/// A policy with other rules takes the place of the first; rules keep the slots given.
fn replace(fixture: &Fixture, change: impl FnOnce(&mut crate::policy::Policy), slots: &[u32]) {
    let mut next = (*fixture.names.current().policy).clone();
    change(&mut next);
    let holder = super::lease::Holder {
        connector: stub::CONNECTOR,
        slots: slots.to_vec(),
        named: std::collections::BTreeSet::new(),
    };
    let ready = fixture.names.prepare(next.into(), holder);
    fixture.names.replace(ready);
}

#[tokio::test]
async fn a_replaced_policy_holds_for_what_is_under_way() {
    let fixture = one_rule().await;
    let slow = Zone {
        records: vec![a("api.example.com", V4, 60)],
        delay: Duration::from_millis(300),
        ..Zone::default()
    };
    fixture.stub.zone("api.example.com", slow);
    let asking = fixture.ask("api.example.com", RecordType::A);
    let replacing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        replace(
            &fixture,
            |policy| policy.deny = vec![cidr("203.0.113.0/24", &[(1, 65535)])],
            &[8],
        );
    };
    let (answer, ()) = tokio::join!(asking, replacing);
    assert_eq!(answer.metadata.response_code, withheld());
    assert_eq!(fixture.table.len(), 0);
}

#[tokio::test]
async fn new_names_are_fetched_and_old_ones_left_alone() {
    let mut rules = policy(vec![host("api.example.com", HTTPS)]);
    rules.dns.ttl_floor = Duration::from_secs(1);
    rules.dns.grace = Duration::ZERO;
    let fixture = Fixture::start(rules).await;
    fixture.stub.a("api.example.com", &[V4]);
    let next = Ipv4Addr::new(203, 0, 113, 9);
    fixture.stub.a("next.example.com", &[next]);
    let prefetched = prefetch(&fixture.names, Start::Strict).await;
    replace(
        &fixture,
        |policy| policy.allow = vec![host("next.example.com", HTTPS)],
        &[9],
    );
    let none = super::prefetch_for(&fixture.names, |slot| slot == 8).await;
    assert!(none.is_empty());
    let fetched = super::prefetch_for(&fixture.names, |slot| slot == 9).await;
    assert_eq!(
        fixture
            .table
            .granted(next, 443, TCP)
            .map(|grant| grant.rule),
        Some(9)
    );
    let (more, later) = tokio::sync::mpsc::channel(1);
    let stop = fixture.shutdown.subscribe();
    let task = tokio::spawn(refresh(fixture.names.clone(), prefetched, later, stop));
    more.send(fetched).await.unwrap();
    let asked = fixture.stub.asked();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(fixture.stub.asked(), asked);
    fixture.shutdown.send(true).unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn both_loopback_addresses_are_served_on_one_port() {
    let door = super::Door::bind().unwrap();
    let ports: Vec<u16> = door
        .addresses()
        .iter()
        .map(|address| address.port())
        .collect();
    assert!(ports.iter().all(|port| *port == door.port() && *port != 0));
    assert!(door.addresses()[0].is_ipv4());
    let fixture = one_rule().await;
    let (_shutdown, stop) = tokio::sync::watch::channel(false);
    let all = door.addresses().to_vec();
    tokio::spawn(door.serve(fixture.names.clone(), stop));
    for address in all {
        let any: IpAddr = if address.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        };
        let socket = tokio::net::UdpSocket::bind((any, 0)).await.unwrap();
        let asked = query("api.example.com", RecordType::A);
        socket.send_to(&asked, address).await.unwrap();
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(from, address);
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(addresses(&answer).len(), 1);
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(&framed(&asked)).await.unwrap();
        assert_eq!(addresses(&read_framed(&mut stream).await).len(), 1);
    }
}

#[tokio::test]
async fn a_dead_upstream_fails_at_once_and_ends_no_grant() {
    let mut rules = policy(vec![host("api.example.com", HTTPS)]);
    // A port that was free a moment ago.
    let free = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    rules.dns.servers = vec![free.local_addr().unwrap().into()];
    drop(free);
    let table = stub::FakeTable::default();
    let keeper = crate::grant::Keeper::new(Box::new(table.clone()));
    let (sender, _refusals) = tokio::sync::mpsc::channel(1);
    let names = super::Names::new(super::NamesConfig {
        holder: stub::holder(&rules),
        policy: rules.into(),
        keeper: keeper.into(),
        now_ns,
        is_own: stub::is_own,
        refusals: sender,
        files: std::sync::Arc::new(super::files::Files::of_host(u32::MAX)),
        carrier: None,
    });
    let names = std::sync::Arc::new(names);
    let start = Instant::now();
    let prefetched = prefetch(&names, Start::Strict).await;
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(prefetched[0].result.is_err());
    assert_eq!(table.len(), 0);
}

#[tokio::test]
async fn unusual_labels_are_asked_as_they_are() {
    let strange = [
        "_dmarc.a_b.example.com",
        "-a-.example.com",
        "xn--bcher-kva.example.com",
    ];
    let rules = strange.iter().map(|name| host(name, HTTPS)).collect();
    let fixture = Fixture::start(policy(rules)).await;
    for name in strange {
        let mut asked = query("x.example.com", RecordType::A)[..12].to_vec();
        for label in name.split('.') {
            asked.push(u8::try_from(label.len()).unwrap());
            asked.extend(label.bytes());
        }
        asked.extend([0, 0, 1, 0, 1]);
        let answer = fixture.exchange(&asked).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{name}"
        );
        let seen = fixture.stub.seen.lock().unwrap();
        let same = |seen: &&(Vec<u8>, bool)| seen.0.get(12..asked.len()) == Some(&asked[12..]);
        assert_eq!(seen.iter().filter(same).count(), 1, "{name}");
    }
}
