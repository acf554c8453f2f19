//! Services that are found by name (SRV records, RFC 2782): which names of services may be asked
//! for, and which of their targets are told. Pure.
//!
//! A target is told only where a rule permits it at its port, so such an answer names nobody whom
//! the connector could not call by itself. The question is the other side: it tells the name
//! servers of the domain what the connector chose. Below a wildcard that is counted and bounded as
//! every other name there. At an exact name the service must be one of a list, so that the choice
//! says little ([`SERVICES`]: not six bits), or have a rule of its own.

use egress_common::abi::{TCP, UDP};

use super::{opening::openings, verdict::covered_by};
use crate::policy::{cover::Cover, model::Policy, name::Name};

/// Most services of one answer.
pub const MAX_SERVICES: usize = 64;

/// Services that are asked for at exact names, as the registry of service names has them
/// (RFC 6335), and some that programs use without it.
pub const SERVICES: [&str; 47] = [
    "amqp",
    "amqps",
    "autodiscover",
    "caldav",
    "caldavs",
    "carddav",
    "carddavs",
    "etcd-client",
    "etcd-client-ssl",
    "ftp",
    "gc",
    "git",
    "grpclb",
    "http",
    "https",
    "imap",
    "imaps",
    "jmap",
    "kerberos",
    "kerberos-master",
    "kpasswd",
    "ldap",
    "ldaps",
    "matrix",
    "matrix-fed",
    "minecraft",
    "mongodb",
    "mqtt",
    "mysql",
    "ntp",
    "pop3",
    "pop3s",
    "postgresql",
    "secure-mqtt",
    "sip",
    "sips",
    "stun",
    "stuns",
    "submission",
    "submissions",
    "turn",
    "turns",
    "xmpp-client",
    "xmpp-server",
    "xmpps-client",
    "xmpps-server",
    "x-puppet",
];

/// Where a service is offered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Lower ones first.
    pub priority: u16,
    /// Among equal ones, how often.
    pub weight: u16,
    /// Port.
    pub port: u16,
    /// Host; as text where it is no host name.
    pub target: Result<Name, String>,
}

/// The parts of a name such as `_mongodb._tcp.cluster.example`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked<'a> {
    /// Without the underscore.
    pub service: &'a str,
    /// IP protocol number.
    pub protocol: u8,
    /// The name whose services are asked for.
    pub parent: Name,
}

impl<'a> Asked<'a> {
    /// Takes a name apart. `None`: it is no service of TCP or UDP.
    pub fn of(name: &'a Name) -> Option<Self> {
        let (service, rest) = name.as_str().split_once('.')?;
        let (protocol, parent) = rest.split_once('.')?;
        let protocol = match protocol {
            "_tcp" => TCP,
            "_udp" => UDP,
            _ => return None,
        };
        Some(Self {
            service: service.strip_prefix('_')?,
            protocol,
            parent: Name::from_ascii(parent.as_bytes()).ok()?,
        })
    }

    /// Whether it may be asked for at an exact name.
    pub fn is_listed(&self) -> bool {
        SERVICES.contains(&self.service)
    }
}

/// The services whose target a rule permits at its port, and those that none does.
pub fn permitted(
    policy: &Policy,
    protocol: u8,
    services: &[Service],
) -> (Vec<Service>, Vec<Service>) {
    let permits = |service: &Service| {
        let Ok(target) = &service.target else {
            return false;
        };
        let open = openings(policy, target);
        // A name that says too much could not be looked up either.
        !matches!(covered_by(policy, target, &open), Cover::TooLong(_))
            && open.iter().any(|opening| {
                opening.protocol == protocol
                    && opening.spans.iter().any(|span| span.holds(service.port))
            })
    };
    services.iter().cloned().partition(permits)
}

/// What to say of services that are not told.
pub fn advice(services: &[Service]) -> String {
    let shown: Vec<String> = services
        .iter()
        .take(3)
        .map(|service| match &service.target {
            Ok(name) => format!("{name}:{}", service.port),
            Err(text) => format!("{text}:{}", service.port),
        })
        .collect();
    let more = match services.len().saturating_sub(shown.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "left out of the answer: {}{more}; each needs a rule with its host and port",
        shown.join(", ")
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::dns::tests::stub::{host, policy};

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn names_of_services_are_taken_apart() {
        let mongo = name("_mongodb._tcp.cluster.example");
        let asked = Asked::of(&mongo).unwrap();
        assert_eq!((asked.service, asked.protocol), ("mongodb", TCP));
        assert_eq!(asked.parent, name("cluster.example"));
        assert_eq!(
            Asked::of(&name("_sip._udp.a.example")).unwrap().protocol,
            UDP
        );
        for other in [
            "mongodb._tcp.a.example",
            "_mongodb.tcp.a.example",
            "_mongodb._sctp.a.example",
            "_mongodb._tcp",
            "_tcp.a.example",
        ] {
            assert_eq!(Asked::of(&name(other)), None, "{other}");
        }
        assert!(SERVICES.len() < 64);
        let lawful = |service: &&str| service.len() <= 15 && Name::parse(service).is_ok();
        assert!(SERVICES.iter().all(lawful), "RFC 6335 section 5.1");
    }

    #[test]
    fn only_targets_with_a_rule_for_their_port_are_told() {
        let mut rules = policy(vec![
            host("a.example.com", &[(27017, 27017)]),
            host("*.wild.example", &[(1, 100)]),
            host("deny.example.com", &[(27017, 27017)]),
        ]);
        rules.deny = vec![host("deny.example.com", &[])];
        let service = |target: &str, port| Service {
            priority: 1,
            weight: 2,
            port,
            target: Ok(name(target)),
        };
        let told = [
            service("a.example.com", 27017),
            service("x.wild.example", 100),
        ];
        let left = [
            service("a.example.com", 27018),
            service("b.example.com", 27017),
            service("x.wild.example", 101),
            service("1.2.3.4.5.wild.example", 100),
            service("deny.example.com", 27017),
            Service {
                target: Err("odd\\032name.".to_owned()),
                ..service("a.example.com", 27017)
            },
        ];
        let all = [&told[..], &left[..]].concat();
        assert_eq!(permitted(&rules, TCP, &all), (told.to_vec(), left.to_vec()));
        assert_eq!(permitted(&rules, UDP, &all), (Vec::new(), all.clone()));
        let said = advice(&left);
        assert!(said.contains("a.example.com:27018") && said.ends_with("its host and port"));
    }
}
