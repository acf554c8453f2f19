//! Names whose requests are judged: who is told what, and who is granted what.

use std::net::{IpAddr, Ipv4Addr};

use egress_common::{
    abi::{RULE_INSPECTED, TCP},
    key::{Addr, GrantKey},
};
use egress_envelope::{
    judge::{Inspect, Limits, Mode, OnViolation, Recipients, Unlisted},
    service::Service,
};
use hickory_proto::{op::ResponseCode, rr::RecordType};
use tokio::sync::mpsc;

use super::{
    HTTPS, V4, addresses,
    stub::{CONNECTOR, Fixture, cidr, host, policy},
    withheld,
};
use crate::{
    dns::{
        Carrier,
        inspected::Inspected,
        stand::{Learn, What},
    },
    policy::{
        model::{Policy, Rule},
        name::Name,
    },
};

const PROCESS: u32 = 8;
const NET: Ipv4Addr = Ipv4Addr::new(127, 64, 16, 0);
const STANDS: Ipv4Addr = Ipv4Addr::new(127, 64, 16, 2);
const JUDGED: &str = "mail.example.com";
const PLAIN: &str = "plain.example.com";

fn judged(name: &str) -> Rule {
    let inspect = Inspect {
        service: Service::default(),
        recipients: Recipients::FromCall,
        listed: Vec::new(),
        unlisted: Unlisted::Refuse,
        mode: Mode::Enforce,
        limits: Limits {
            body: 1024,
            ..Limits::default()
        },
        content: None,
        on_violation: OnViolation::Refuse,
        shape: egress_envelope::shape::Shape::Off,
    };
    Rule {
        tls: true,
        inspect: Some(Box::new(inspect)),
        ..host(name, HTTPS)
    }
}

/// A door whose process is the receiver.
async fn door(policy: Policy) -> (Fixture, mpsc::Receiver<Learn>) {
    let (told, heard) = mpsc::channel(8);
    let inspected = Inspected::new(&policy, NET, told, PROCESS);
    let carrier = Carrier::Envelope(inspected.into());
    let fixture = Fixture::carried(policy, Some(carrier)).await;
    fixture.stub.a(JUDGED, &[V4]);
    (fixture, heard)
}

fn two() -> Policy {
    policy(vec![judged(JUDGED), host(PLAIN, HTTPS)])
}

/// A process that learns everything at once. Answers what it was told, when the door is gone.
fn learning(mut heard: mpsc::Receiver<Learn>) -> mpsc::UnboundedReceiver<What> {
    let (note, noted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Learn { what, done }) = heard.recv().await {
            note.send(what).unwrap();
            done.send(()).unwrap();
        }
    });
    noted
}

fn rule(fixture: &Fixture, connector: u32, address: Ipv4Addr) -> Option<u32> {
    let key = GrantKey {
        addr: Addr::from_v4(address.into()),
        connector,
        port: 443,
        protocol: TCP,
        pad: 0,
    };
    let grants = fixture.table.grants.lock().unwrap();
    grants.get(&key).map(|grant| grant.rule)
}

#[tokio::test]
async fn the_process_has_the_real_address_and_the_connector_what_stands_for_it() {
    let (fixture, heard) = door(two()).await;
    let mut noted = learning(heard);
    let answer = fixture.ask(JUDGED, RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(STANDS)]);
    assert_eq!(rule(&fixture, CONNECTOR, STANDS), Some(8));
    assert_eq!(rule(&fixture, PROCESS, V4), Some(RULE_INSPECTED));
    assert_eq!(rule(&fixture, CONNECTOR, V4), None);
    assert_eq!(fixture.table.len(), 2);
    let name = Name::parse(JUDGED).unwrap();
    assert_eq!(
        noted.try_recv().unwrap(),
        What::Stands(STANDS, name.clone())
    );
    assert_eq!(noted.try_recv().unwrap(), What::IsAt(name, vec![V4.into()]));
    let answer = fixture.ask(JUDGED, RecordType::AAAA).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn another_name_goes_its_own_way_and_never_to_what_stands_for_one() {
    let (fixture, heard) = door(two()).await;
    let _noted = learning(heard);
    let other = Ipv4Addr::new(203, 0, 113, 8);
    fixture.stub.a(PLAIN, &[other]);
    fixture.ask(JUDGED, RecordType::A).await;
    let answer = fixture.ask(PLAIN, RecordType::A).await;
    assert_eq!(addresses(&answer), [IpAddr::V4(other)]);
    assert_eq!(rule(&fixture, CONNECTOR, other), Some(9));
    assert_eq!(rule(&fixture, PROCESS, other), None);

    let mut inside = two();
    inside.allow[1].private = true;
    let (fixture, heard) = door(inside).await;
    let _noted = learning(heard);
    fixture.stub.a(PLAIN, &[STANDS]);
    fixture.ask(PLAIN, RecordType::A).await;
    assert_eq!(fixture.table.len(), 0);
}

#[tokio::test]
async fn nothing_is_answered_before_the_process_knows() {
    let (fixture, mut heard) = door(two()).await;
    let hearing = tokio::spawn(async move { heard.recv().await });
    let answer = fixture.ask(JUDGED, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(hearing.await.unwrap().is_some());
    assert_eq!(fixture.table.len(), 0);
}

#[tokio::test]
async fn an_address_inside_is_granted_to_nobody() {
    let (fixture, heard) = door(two()).await;
    let mut noted = learning(heard);
    fixture.stub.a(JUDGED, &[Ipv4Addr::LOCALHOST]);
    let answer = fixture.ask(JUDGED, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, withheld());
    assert!(answer.answers.is_empty());
    assert_eq!(fixture.table.len(), 0);
    assert!(matches!(noted.try_recv().unwrap(), What::Stands(STANDS, _)));
    let name = Name::parse(JUDGED).unwrap();
    assert_eq!(noted.try_recv().unwrap(), What::IsAt(name, Vec::new()));
}

#[tokio::test]
async fn no_other_name_leads_to_where_a_judged_one_is() {
    for judged_first in [true, false] {
        let (fixture, heard) = door(two()).await;
        let _noted = learning(heard);
        let other = Ipv4Addr::new(203, 0, 113, 8);
        fixture.stub.a(PLAIN, &[V4, other]);
        let order = if judged_first {
            [JUDGED, PLAIN]
        } else {
            [PLAIN, JUDGED]
        };
        for name in order {
            fixture.ask(name, RecordType::A).await;
        }
        assert_eq!(rule(&fixture, CONNECTOR, V4), None, "{judged_first}");
        assert_eq!(rule(&fixture, CONNECTOR, other), Some(9));
        assert_eq!(rule(&fixture, PROCESS, V4), Some(RULE_INSPECTED));
        if judged_first {
            let answer = fixture.ask(PLAIN, RecordType::A).await;
            assert_eq!(addresses(&answer), [IpAddr::V4(other)]);
        }
    }
}

#[tokio::test]
async fn a_rule_about_addresses_does_not_lead_round() {
    let mut policy = two();
    policy.allow.push(cidr("203.0.113.0/24", HTTPS));
    let (fixture, heard) = door(policy).await;
    let _noted = learning(heard);
    let answer = fixture.ask(JUDGED, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(fixture.table.len(), 0);
}
