//! Which running flows a policy ends. Pure.
//!
//! The kernel itself refuses every packet under a rule that is switched off. What is left to
//! do is to tell the programs: a refused TCP packet is dropped in silence and the program
//! would wait. There is one case in which the kernel goes on by itself, see [`must_end`].

use egress_common::{
    abi::RULE_NONE,
    decide::{Flow, decide},
    verdict::{Action, Layer, Reason},
};

use crate::{host::records::Socket, policy::tables::Memory};

/// Whether a socket's flow has to end under the policy in `memory`. `tightened`: the policy
/// before refused nothing.
///
/// - *Its rule is not in force any more*: it ends, unless another rule permits it.
/// - *Its rule is in force*: the kernel does not look at denials again for an approved
///   socket, so one that a denial covers now ends. One whose grant has merely expired goes on.
/// - *No rule approved it*: it was there because nothing was refused.
pub fn must_end(socket: &Socket, memory: &Memory, tightened: bool) -> bool {
    if socket.port == 0 {
        return false;
    }
    let flow = Flow {
        addr: socket.addr,
        connector: socket.connector,
        port: socket.port,
        protocol: socket.protocol,
        layer: Layer::Packet,
        inbound: false,
        local_port: 0,
    };
    let verdict = decide(&flow, memory);
    if verdict.action != Action::Deny {
        return false;
    }
    if socket.rule == RULE_NONE {
        return tightened;
    }
    verdict.reason == Reason::DenyRule || !memory.active.contains(&socket.rule)
}
