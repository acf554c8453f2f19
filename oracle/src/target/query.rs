//! What a client sends to the DNS door, and what the door writes back.

use std::{path::Path, sync::LazyLock};

use egress_agent::{
    dns::{
        answer::{self, Code, Record},
        service::SERVICES,
        verdict::{Verdict, judge},
        wire::{self, MAX_QUERY, MAX_SHOWN},
    },
    policy::{self, Policy},
};
use hickory_proto::op::{Message, MessageType, ResponseCode};

/// What is taken for a query is one to two other readers as well, about the same name; only
/// permitted names are resolved; every answer can be read and belongs to its query.
pub fn run(data: &[u8]) {
    let query = match wire::read(data) {
        Ok(query) => query,
        Err(malformed) => {
            assert!(malformed.shown.len() <= MAX_SHOWN && malformed.shown.is_ascii());
            assert!(!malformed.shown.contains(char::is_control));
            if let Some((echo, code)) = malformed.reply {
                let bytes = answer::write(&echo, code, &[], 0, echo.udp_limit());
                assert_eq!(bytes[..2], data[..2]);
                assert!(bytes.len() <= echo.udp_limit() && bytes[2] & 0x80 != 0);
            }
            return;
        }
    };
    assert!(data.len() <= MAX_QUERY);
    let (name, kind, end) = naive(data);
    assert_eq!((query.name.as_str(), query.kind), (name.as_str(), kind));
    // Without the OPT record: its options go nowhere, and hickory is strict about some.
    let mut plain = data[..end].to_vec();
    plain[11] = 0;
    let other = Message::from_vec(&plain).expect("hickory reads it too");
    assert_eq!(other.metadata.message_type, MessageType::Query);
    let [asked] = &other.queries[..] else {
        panic!("{} questions", other.queries.len());
    };
    let labels: Vec<&[u8]> = asked.name().iter().collect();
    assert_eq!(labels.join(&b'.').to_ascii_lowercase(), name.as_bytes());
    assert_eq!(u16::from(asked.query_type()), kind);
    judged(&name, &query);
    written(&query, data);
}

/// Permits one name and what is below another.
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let text = "version: 1\nconnector: x\nallow: [\"api.example.com:443\", \"*.cdn.example.org:443\"]\n\
                deny:\n  - host: bad.cdn.example.org\n";
    policy::parse(Path::new("p.yaml"), text).expect("a policy")
});

fn judged(name: &str, query: &wire::Query) {
    let permitted = name == "api.example.com"
        || (name.ends_with(".cdn.example.org") && name != "bad.cdn.example.org");
    match judge(&POLICY, &query.name, query.kind) {
        Verdict::Resolve { .. } if query.kind == 33 => {
            let exact = ["tcp", "udp"].iter().any(|protocol| {
                let parent = format!("._{protocol}.api.example.com");
                name.strip_suffix(&parent).is_some_and(|service| {
                    let listed = |known: &&str| service == format!("_{known}");
                    SERVICES.iter().any(listed)
                })
            });
            let parent = name
                .splitn(3, '.')
                .nth(2)
                .expect("a service, a protocol, a name");
            let below = name.ends_with(".cdn.example.org") && parent != "bad.cdn.example.org";
            assert!(exact || below, "{name} resolved");
        }
        Verdict::Resolve { wildcard, .. } => {
            assert!(permitted && matches!(query.kind, 1 | 28), "{name} resolved");
            assert_eq!(wildcard, name != "api.example.com");
        }
        Verdict::Empty => assert!(permitted, "{name} is not permitted"),
        Verdict::Refuse(_) => assert_ne!(name, "api.example.com"),
    }
}

fn written(query: &wire::Query, data: &[u8]) {
    let target = query.name.clone();
    let records = [
        Record::Address([203, 0, 113, 7].into()),
        Record::Address([0x2001; 8].into()),
        Record::Service {
            priority: 1,
            weight: 2,
            port: 443,
            target,
        },
    ];
    let limit = query.echo.udp_limit();
    for code in [
        Code::NoError,
        Code::Refused,
        Code::Withheld,
        Code::NxDomain,
        Code::ServFail,
    ] {
        let given = if code == Code::NoError {
            &records[..]
        } else {
            &[]
        };
        let bytes = answer::write(&query.echo, code, given, 60, limit);
        assert!(bytes.len() <= limit);
        let answer = Message::from_vec(&bytes).expect("hickory reads the answer");
        assert_eq!(bytes[..2], data[..2]);
        assert_eq!(answer.queries.len(), 1);
        let truncated = answer.metadata.truncation;
        // A long name's service does not fit; what does is told.
        let left_out = given.len() - answer.answers.len();
        assert_eq!(truncated, left_out > 0);
        assert!(left_out <= 1, "addresses always fit");
        let plain = answer.metadata.response_code == ResponseCode::NoError;
        assert!(code != Code::NoError || plain);
    }
}

/// The name and type of the one question and its end, by walking its labels.
fn naive(data: &[u8]) -> (String, u16, usize) {
    let mut labels: Vec<String> = Vec::new();
    let mut at = 12;
    while data[at] != 0 {
        let length = usize::from(data[at]);
        assert!(length < 64, "a pointer in a question");
        let label = &data[at + 1..at + 1 + length];
        assert!(!label.contains(&b'.'), "a dot in a label");
        labels.push(String::from_utf8(label.to_ascii_lowercase()).expect("host names are text"));
        at += 1 + length;
    }
    let kind = u16::from_be_bytes([data[at + 1], data[at + 2]]);
    assert_eq!(data[at + 3..at + 5], [0, 1], "class IN");
    (labels.join("."), kind, at + 5)
}
