//! Which running flows a policy ends. Pure.
//!
//! The kernel itself refuses every packet under a rule that is switched off. What is left to
//! do is to tell the programs: a refused TCP packet is dropped in silence and the program
//! would wait. There is one case in which the kernel goes on by itself, see [`must_end`].

use egress_common::{
    abi::{RULE_NONE, TCP},
    decide::{Flow, decide},
    verdict::{Action, Layer, Reason},
};

use crate::{host::records::Socket, policy::tables::Memory};

/// Whether a connector's socket has to end that was there `before` and is not permitted `now`.
///
/// - *Its rule is not in force any more*: it ends, unless another rule permits it.
/// - *Its rule is in force*: the kernel does not look at denials again for an approved
///   socket, so one that a denial covers now ends. One whose grant has merely expired goes on.
/// - *No rule approved it, or it is not known which*: it ends if the policy before let it
///   pass. A UDP flow whose grant had expired before is not found by that; its program is
///   told by the next `send()`.
pub fn must_end(socket: &Socket, connector: u32, before: &Memory, now: &Memory) -> bool {
    if socket.port == 0 {
        return false;
    }
    let flow = Flow {
        addr: socket.addr,
        connector,
        port: socket.port,
        protocol: socket.protocol,
        layer: Layer::Packet,
        // `accept()` makes sockets without a record.
        inbound: socket.protocol == TCP && socket.rule.is_none(),
        local_port: socket.local_port,
        ifindex: 0,
    };
    let verdict = decide(&flow, now);
    match verdict.action {
        Action::Deny => {}
        // The kernel asks a connection for its name once, and goes by the rule of that name:
        // what another rule would let the address do with a name is of no help to it.
        Action::Check => {
            return match socket.rule {
                None | Some(RULE_NONE) => {
                    !matches!(decide(&flow, before).action, Action::Deny | Action::Check)
                }
                Some(rule) => !now.active.contains(&rule),
            };
        }
        _ => return false,
    }
    match socket.rule {
        None | Some(RULE_NONE) => decide(&flow, before).action != Action::Deny,
        Some(rule) => verdict.reason == Reason::DenyRule || !now.active.contains(&rule),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use egress_common::{
        abi::{RULE_FIRST, RULE_OWN, UDP},
        grant::{Connector, Grant},
        key::{Addr, GrantKey},
    };

    use super::*;
    use crate::policy::{compile, parse};

    const CONNECTOR: u32 = 1;
    const MODE: Connector = Connector {
        door_v6: Addr { halves: [0, 0] },
        door_v4: 0,
        door_port: 0,
        mode: Connector::ENFORCE,
        unix: 0,
        flags: 0,
    };

    fn memory(rules: &str, mode: u16) -> Memory {
        let text = format!("version: 1\nconnector: test\n{rules}\n");
        let policy = parse(Path::new("test.yaml"), &text).unwrap();
        let tables = compile(&policy, CONNECTOR, RULE_FIRST).unwrap();
        let mut memory = Memory::default();
        memory.install(&tables, Connector { mode, ..MODE });
        memory.now_ns = 100;
        memory
    }

    fn enforced(rules: &str) -> Memory {
        memory(rules, Connector::ENFORCE)
    }

    fn ends(socket: &Socket, before: &Memory, now: &Memory) -> bool {
        must_end(socket, CONNECTOR, before, now)
    }

    const PREFIX: &str = "allow: ['203.0.113.7:443']";

    #[test]
    fn a_rule_that_is_gone_ends_its_flows_unless_another_permits_them() {
        let (before, nothing) = (enforced(PREFIX), enforced("allow: []"));
        let socket = Socket::to([203, 0, 113, 7], 443, TCP, Some(RULE_FIRST));
        assert!(ends(&socket, &before, &nothing));
        assert!(!ends(&socket, &before, &before));
        let mut other = enforced("allow: ['10.0.0.1:1', {cidr: 203.0.113.0/24, ports: [443]}]");
        other.active.remove(&RULE_FIRST);
        assert!(!ends(&socket, &before, &other));
        let unconnected = Socket::to([0, 0, 0, 0], 0, TCP, Some(RULE_FIRST));
        assert!(!ends(&unconnected, &before, &nothing));
    }

    #[test]
    fn an_expired_grant_ends_nothing_and_a_denial_does() {
        let rules = "allow: [a.example:443]";
        let mut now = enforced(rules);
        let socket = Socket::to([203, 0, 113, 7], 443, TCP, Some(RULE_FIRST));
        assert!(!ends(&socket, &now, &now), "swept");
        let key = GrantKey {
            addr: socket.addr,
            connector: CONNECTOR,
            port: 443,
            protocol: TCP,
            pad: 0,
        };
        let grant = Grant {
            expires_ns: 50,
            rule: RULE_FIRST,
            pad: 0,
        };
        now.grants.insert(key, grant);
        assert!(!ends(&socket, &now, &now), "expired");
        let mut denied = enforced(
            &format!("{rules}\ndeny: ['203.0.113.0/24']")
                .replace("'203.0.113.0/24'", "{cidr: 203.0.113.0/24}"),
        );
        assert!(ends(&socket, &now, &denied));
        denied.grants.insert(key, grant);
        assert!(ends(&socket, &now, &denied));
    }

    #[test]
    fn a_checked_flow_goes_by_the_rule_of_its_name() {
        let mut now = enforced("allow: [a.example:443, b.example:443]");
        let key = GrantKey {
            addr: Addr::from_v4(0xcb00_7107),
            connector: CONNECTOR,
            port: 443,
            protocol: TCP,
            pad: 0,
        };
        let grant = Grant {
            expires_ns: 0,
            rule: RULE_FIRST,
            pad: 0,
        };
        now.grants.insert(key, grant);
        let named = Socket::to([203, 0, 113, 7], 443, TCP, Some(RULE_FIRST + 1));
        assert!(!ends(&named, &now, &now));
        let before = now.clone();
        now.active.remove(&(RULE_FIRST + 1));
        assert!(ends(&named, &before, &now), "the address is granted still");
        let nameless = Socket::to([203, 0, 113, 7], 443, TCP, Some(RULE_NONE));
        assert!(
            !ends(&nameless, &before, &now),
            "it had nothing before, either"
        );
        let cidr = enforced("allow: [{cidr: 203.0.113.0/24, ports: [443]}]");
        assert!(
            ends(&nameless, &cidr, &before),
            "it was let pass without a name"
        );
    }

    #[test]
    fn without_a_known_rule_it_ends_where_it_was_let_pass() {
        let (before, nothing) = (enforced(PREFIX), enforced("allow: []"));
        let audited = memory("allow: []", Connector::AUDIT);
        let udp = Socket::to([203, 0, 113, 7], 443, UDP, None);
        assert!(
            !ends(&udp, &nothing, &nothing),
            "it sorts addresses, or has outlived its grant"
        );
        assert!(ends(&udp, &audited, &nothing));
        assert!(!ends(&udp, &nothing, &audited));
        let tcp = Socket::to([203, 0, 113, 7], 443, TCP, Some(RULE_NONE));
        assert!(ends(&tcp, &before, &nothing));
        assert!(ends(&tcp, &audited, &nothing));
        let caller = Socket::to([127, 0, 0, 1], 443, TCP, None);
        assert!(!ends(&caller, &audited, &nothing), "loopback may call in");
        let caller = Socket::to([203, 0, 113, 9], 443, TCP, None);
        assert!(ends(&caller, &audited, &nothing));
        let own = Socket::to([127, 0, 0, 1], 8080, TCP, Some(RULE_OWN));
        let mut now = nothing;
        now.active.insert(RULE_OWN);
        assert!(!ends(&own, &before, &now));
    }
}
