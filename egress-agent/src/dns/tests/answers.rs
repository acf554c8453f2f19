//! Answers of odd forms: long chains, many addresses, some that are left out, services.

use std::net::{IpAddr, Ipv4Addr};

use egress_common::{abi::TCP, verdict::Reason};
use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType, rdata::SRV},
};
use tokio::io::AsyncWriteExt as _;

use super::{
    HTTPS, V4, addresses, asked, cidr, cname, framed, host, one_rule, policy, query, read_framed,
    stub::{Fixture, Zone, a, aaaa, wire_name},
};
use crate::{
    dns::chain::MAX_ALIASES,
    policy::{
        model::{LOOKUPS_PER_MINUTE, Mode, lookups_at_once},
        name::HostPattern,
    },
};

fn zone(records: Vec<hickory_proto::rr::Record>) -> Zone {
    Zone {
        records,
        ..Zone::default()
    }
}

#[tokio::test]
async fn chains_of_aliases_are_followed_as_far_as_any_resolver_does() {
    for (length, code) in [
        (20, ResponseCode::NoError),
        (MAX_ALIASES, ResponseCode::NoError),
        (MAX_ALIASES + 1, ResponseCode::ServFail),
    ] {
        let fixture = one_rule().await;
        let name = |number: usize| match number {
            0 => "api.example.com".to_owned(),
            number => format!("c{number}.cdn.example"),
        };
        let mut records: Vec<_> = (0..length)
            .map(|number| cname(&name(number), &name(number + 1), 60))
            .collect();
        records.push(a(&name(length), V4, 60));
        fixture.stub.zone("api.example.com", zone(records));
        let answer = fixture.ask("api.example.com", RecordType::A).await;
        assert_eq!(answer.metadata.response_code, code, "{length}");
        let found = addresses(&answer);
        assert_eq!(found.len(), usize::from(code == ResponseCode::NoError));
    }
}

/// A server that tells one alias at a time.
#[tokio::test]
async fn aliases_told_one_by_one_are_followed() {
    let fixture = one_rule().await;
    let name = |number: usize| match number {
        0 => "api.example.com".to_owned(),
        number => format!("c{number}.cdn.example"),
    };
    for number in 0..16 {
        let alias = cname(&name(number), &name(number + 1), 60);
        fixture.stub.zone(&name(number), zone(vec![alias]));
    }
    fixture.stub.a(&name(16), &[V4]);
    let answer = fixture.ask("api.example.com", RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(V4)]);
}

#[tokio::test]
async fn hundreds_of_addresses_are_granted_and_told() {
    let fixture = one_rule().await;
    let many: Vec<Ipv4Addr> = (0..=499_u16)
        .map(|number| Ipv4Addr::from(0xc633_6400 | u32::from(number)))
        .collect();
    fixture.stub.a("api.example.com", &many);
    fixture.stub.zone(
        "api.example.com",
        Zone {
            truncate_udp: true,
            records: many
                .iter()
                .map(|v4| a("api.example.com", *v4, 60))
                .collect(),
            ..Zone::default()
        },
    );
    let short = fixture.ask("api.example.com", RecordType::A).await;
    assert!(short.metadata.truncation && !short.answers.is_empty());
    let mut stream = fixture.tcp().await;
    let whole = framed(&query("api.example.com", RecordType::A));
    stream.write_all(&whole).await.unwrap();
    assert_eq!(addresses(&read_framed(&mut stream).await).len(), 500);
    assert_eq!(fixture.table.len(), 500);
    for v4 in many {
        assert!(fixture.table.granted(v4, 443, TCP).is_some(), "{v4}");
    }
}

/// Each line names the address that is left out, and the key that would permit it.
#[tokio::test]
async fn what_is_left_out_is_named_with_the_key_that_permits_it() {
    for (address, reason, words) in [
        (
            "10.1.2.3",
            Reason::PrivateAnswer,
            &["10.0.0.0/8", "`private: true`"][..],
        ),
        (
            "198.18.0.21",
            Reason::PrivateAnswer,
            &["198.18.0.0/15", "`private: true`", "VPN or proxy"],
        ),
        (
            "127.0.0.1",
            Reason::PrivateAnswer,
            &["loopback", "`private: true`"],
        ),
        (
            "169.254.169.254",
            Reason::PrivateAnswer,
            &["metadata", "`cidr`"],
        ),
        ("0.0.0.0", Reason::PrivateAnswer, &["leads nowhere"]),
        (
            "64:ff9b::a01:203",
            Reason::PrivateAnswer,
            &["translated to 10.1.2.3", "`private: true`"],
        ),
        (
            "::1",
            Reason::PrivateAnswer,
            &["loopback", "`private: true`"],
        ),
        ("64:ff9b::cb00:7163", Reason::DenyRule, &["`deny`"]),
        ("203.0.113.99", Reason::DenyRule, &["`deny`"]),
        (
            "203.0.113.244",
            Reason::PrivateAnswer,
            &["an address of this host", "`private: true`"],
        ),
    ] {
        super::stub::OWN
            .lock()
            .unwrap()
            .push(IpAddr::from([203, 0, 113, 244]));
        let mut rules = policy(vec![host("api.example.com", HTTPS)]);
        rules.deny = vec![cidr("203.0.113.99/32", &[(1, 65535)])];
        let mut fixture = Fixture::start(rules).await;
        let address: IpAddr = address.parse().unwrap();
        let (record, kind) = match address {
            IpAddr::V4(v4) => (a("api.example.com", v4, 60), RecordType::A),
            IpAddr::V6(v6) => (aaaa("api.example.com", v6, 60), RecordType::AAAA),
        };
        fixture
            .stub
            .zone("api.example.com", zone(vec![record.clone()]));
        let answer = fixture.ask("api.example.com", kind).await;
        assert!(answer.answers.is_empty(), "{address}");
        let refusal = fixture.refusal().await;
        let message = refusal.message.unwrap();
        assert_eq!((refusal.reason, refusal.address), (reason, Some(address)));
        let rule = if reason == Reason::DenyRule {
            "203.0.113.99/32"
        } else {
            "api.example.com"
        };
        assert_eq!(refusal.rule.as_deref(), Some(rule));
        for word in words {
            assert!(message.contains(word), "{address}: {message}");
        }
        assert!(message.starts_with(&address.to_string()), "{message}");
        // Beside a good one it is left out with a line as well, and one is enough.
        let good = match kind {
            RecordType::A => a("api.example.com", V4, 60),
            _ => aaaa("api.example.com", "2001:db8::9".parse().unwrap(), 60),
        };
        fixture.names.forget();
        fixture
            .stub
            .zone("api.example.com", zone(vec![record, good]));
        for _ in 0..3 {
            let answer = fixture.ask("api.example.com", kind).await;
            assert_eq!(answer.answers.len(), 1);
        }
        let refusal = fixture.refusal().await;
        assert_eq!((refusal.reason, refusal.address), (reason, Some(address)));
        assert!(fixture.refusals.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_rule_for_the_internet_is_no_place_for_the_key() {
    let mut rule = host("x.example", HTTPS);
    rule.target = crate::policy::model::Target::Host(HostPattern::Public);
    let mut fixture = Fixture::start(policy(vec![rule])).await;
    fixture
        .stub
        .a("api.example.com", &[Ipv4Addr::new(192, 168, 1, 1)]);
    fixture.ask("api.example.com", RecordType::A).await;
    let message = fixture.refusal().await.message.unwrap();
    assert!(message.contains("`host` rule of its own"), "{message}");
}

const MONGO: &[(u16, u16)] = &[(27017, 27017)];

fn srv(name: &str, port: u16, target: &str) -> hickory_proto::rr::Record {
    let data = SRV::new(1, 2, port, wire_name(target));
    hickory_proto::rr::Record::from_rdata(wire_name(name), 60, RData::SRV(data))
}

fn targets(message: &hickory_proto::op::Message) -> Vec<String> {
    let each = message.answers.iter().map(|record| match &record.data {
        RData::SRV(srv) => format!("{}{}", srv.target, srv.port),
        other => panic!("unexpected record {other:?}"),
    });
    each.collect()
}

const CLUSTER: &str = "_mongodb._tcp.cluster.example";

async fn cluster() -> Fixture {
    let fixture = Fixture::start(policy(vec![
        host("cluster.example", MONGO),
        host("shard-00.store.example", MONGO),
        host("*.wild.example", MONGO),
    ]))
    .await;
    let records = [
        ("shard-00.store.example", 27017),
        ("shard-00.store.example", 27018),
        ("stranger.example", 27017),
        ("s1.wild.example", 27017),
    ];
    for name in [CLUSTER, "_mongodb._tcp.a.wild.example"] {
        let records = records.map(|(target, port)| srv(name, port, target));
        fixture.stub.zone(name, zone(records.to_vec()));
    }
    fixture
}

#[tokio::test]
async fn services_are_told_with_permitted_targets_alone() {
    let mut fixture = cluster().await;
    for name in [CLUSTER, "_mongodb._tcp.a.wild.example"] {
        let answer = fixture.ask(name, RecordType::SRV).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        let told = ["shard-00.store.example.27017", "s1.wild.example.27017"];
        assert_eq!(targets(&answer), told, "{name}");
        assert!(answer.additionals.is_empty());
        let refusal = fixture.refusal().await;
        assert_eq!(refusal.reason, Reason::ServiceTarget);
        assert_eq!(
            (refusal.name.as_str(), refusal.qtype.as_str()),
            (name, "SRV")
        );
        let message = refusal.message.unwrap();
        assert!(message.contains("shard-00.store.example:27018, stranger.example:27017"));
    }
    // Such an answer grants nothing: the targets are asked for by their names.
    assert_eq!(fixture.table.len(), 0);
    // It is kept.
    let before = fixture.stub.asked();
    fixture.ask(CLUSTER, RecordType::SRV).await;
    assert_eq!(fixture.stub.asked(), before);
}

#[tokio::test]
async fn services_of_others_are_never_asked_for() {
    let mut fixture = cluster().await;
    for (name, reason) in [
        // A stranger's; one that is no service of the list at an exact name; another protocol.
        ("_mongodb._tcp.stranger.example", Reason::NameNotAllowed),
        ("_c2vjcmv0._tcp.cluster.example", Reason::NameNotAllowed),
        (
            "_mongodb._tcp.below.cluster.example",
            Reason::NameNotAllowed,
        ),
        ("_mongodb._sctp.cluster.example", Reason::NameNotAllowed),
        ("_mongodb.cluster.example", Reason::NameNotAllowed),
        ("cluster.example", Reason::RecordType),
        ("_a._tcp.b.c.d.wild.example", Reason::NameBudget),
    ] {
        let answer = fixture.ask(name, RecordType::SRV).await;
        assert!(answer.answers.is_empty(), "{name}");
        let refusal = fixture.refusal().await;
        assert_eq!((refusal.name.as_str(), refusal.reason), (name, reason));
    }
    for kind in [RecordType::TXT, RecordType::MX, RecordType::A] {
        fixture.ask(CLUSTER, kind).await;
        assert_eq!(fixture.refusal().await.reason, Reason::NameNotAllowed);
    }
    for kind in [RecordType::TXT, RecordType::MX] {
        fixture.ask("cluster.example", kind).await;
        let refusal = fixture.refusal().await;
        assert_eq!(refusal.reason, Reason::RecordType);
        assert!(refusal.message.is_some(), "{kind}");
    }
    assert_eq!(fixture.stub.asked(), 0);
}

/// A rule may name a service whole, whatever it is called; nobody looks for its addresses then.
#[tokio::test]
async fn a_rule_may_name_a_service() {
    let name = "_own-thing._udp.cluster.example";
    let mut target = host("a.example.com", &[(700, 700)]);
    target.protocols.udp = true;
    target.protocols.tcp = false;
    let rules = policy(vec![host(name, &[(1, 1)]), target]);
    let mut fixture = Fixture::start(rules).await;
    let records = vec![
        srv(name, 700, "a.example.com"),
        srv(name, 701, "a.example.com"),
    ];
    fixture.stub.zone(name, zone(records));
    let start = crate::policy::model::Start::Lenient;
    let prefetched = super::prefetch(&fixture.names, start).await;
    assert_eq!(prefetched.len(), 1, "{prefetched:?}");
    let answer = fixture.ask(name, RecordType::SRV).await;
    assert_eq!(targets(&answer), ["a.example.com.700"]);
    assert_eq!(fixture.refusal().await.reason, Reason::ServiceTarget);
}

#[tokio::test]
async fn services_obey_deny_and_what_their_aliases_are() {
    let deny = |name: &str| host(name, &[(1, 65535)]);
    for (denied, reason) in [
        ("cluster.example", Reason::DenyRule),
        (CLUSTER, Reason::DenyRule),
        ("elsewhere.example", Reason::DenyRule),
        ("shard-00.store.example", Reason::ServiceTarget),
    ] {
        let mut rules = policy(vec![
            host("cluster.example", MONGO),
            host("shard-00.store.example", MONGO),
        ]);
        rules.deny = vec![deny(denied)];
        let mut fixture = Fixture::start(rules).await;
        let records = vec![
            cname(CLUSTER, "elsewhere.example", 60),
            srv("elsewhere.example", 27017, "shard-00.store.example"),
        ];
        fixture.stub.zone(CLUSTER, zone(records));
        let answer = fixture.ask(CLUSTER, RecordType::SRV).await;
        assert!(answer.answers.is_empty(), "{denied}");
        assert_eq!(fixture.refusal().await.reason, reason, "{denied}");
    }
}

#[tokio::test]
async fn services_are_counted_as_other_names_are() {
    let fixture = cluster().await;
    let services = crate::dns::service::SERVICES;
    let names =
        |round: usize| format!("_{}._tcp.cluster.example", services[round % services.len()]);
    for round in 0..3 * services.len() {
        // What does not exist is kept for a while, too.
        if round % services.len() == 0 {
            fixture.names.forget();
        }
        fixture.ask(&names(round), RecordType::SRV).await;
    }
    let most = usize::try_from(lookups_at_once(LOOKUPS_PER_MINUTE)).unwrap() + 2;
    assert!(asked(&fixture).len() <= most, "{}", fixture.stub.asked());
    assert!(fixture.names.stats().refused(Reason::NameBudget) > 0);
}

#[tokio::test]
async fn an_audited_policy_tells_all_services_and_reports() {
    let mut rules = policy(vec![host("cluster.example", MONGO)]);
    rules.mode = Mode::Audit;
    let mut fixture = Fixture::start(rules).await;
    for (name, reason) in [
        (CLUSTER, Reason::ServiceTarget),
        ("_mongodb._tcp.stranger.example", Reason::NameNotAllowed),
    ] {
        fixture
            .stub
            .zone(name, zone(vec![srv(name, 27017, "x.example")]));
        let answer = fixture.ask(name, RecordType::SRV).await;
        assert_eq!(targets(&answer), ["x.example.27017"]);
        let refusal = fixture.refusal().await;
        assert!(refusal.audited && refusal.reason == reason, "{refusal:?}");
    }
}

/// A server that is silent to questions for one kind of address keeps nobody from starting.
#[tokio::test]
async fn one_kind_that_is_silent_makes_no_name_late() {
    let fixture = one_rule().await;
    let mut slow = zone(vec![a("api.example.com", V4, 60)]);
    slow.silent = Some(RecordType::AAAA);
    fixture.stub.zone("api.example.com", slow);
    let begin = std::time::Instant::now();
    let start = crate::policy::model::Start::Lenient;
    let prefetched = super::prefetch(&fixture.names, start).await;
    assert!(begin.elapsed() < std::time::Duration::from_secs(4));
    assert!(matches!(prefetched[0].result, Ok(1)), "{prefetched:?}");
    assert!(fixture.table.granted(V4, 443, TCP).is_some());
}

/// Names of exact rules, which nobody keeps while their servers say that there are none: either
/// kind by turns, and the cache emptied each time, as if nothing was kept.
#[tokio::test]
async fn exact_names_have_one_budget_together() {
    let names: Vec<String> = (0..40).map(|n| format!("n{n}.example.com")).collect();
    let rules = names.iter().map(|name| host(name, HTTPS)).collect();
    let fixture = Fixture::start(policy(rules)).await;
    for round in 0..4 {
        fixture.names.forget();
        for (number, name) in names.iter().enumerate() {
            let kind = [RecordType::A, RecordType::AAAA][(round + number) % 2];
            fixture.ask(name, kind).await;
        }
    }
    let asked = asked(&fixture);
    let most = usize::try_from(lookups_at_once(LOOKUPS_PER_MINUTE)).unwrap() + 2;
    for kind in [RecordType::A, RecordType::AAAA] {
        let of_kind = asked.iter().filter(|(_, asked)| *asked == kind).count();
        assert!((64..=most).contains(&of_kind), "{kind}: {of_kind}");
    }
    assert!(fixture.names.stats().refused(Reason::NameBudget) > 0);
}
