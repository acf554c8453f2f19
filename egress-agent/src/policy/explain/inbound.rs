//! May this address call that port of the connector?

use std::net::IpAddr;

use egress_common::{
    abi::TCP,
    decide::{Flow, decide},
    verdict::Layer,
};

use super::{
    dest::{Place, number, place},
    story::{Answer, CONNECTOR, Case, Explanation, answer, canonical},
};
use crate::policy::{
    fault::{Complaint, Faults, quote},
    model::{Listen, Mode, Policy, PortSpan},
    special::{self, Block},
};

/// A call from outside, by TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// Who calls, in the form the data plane decides by.
    pub from: IpAddr,
    /// The connector's port.
    pub port: u16,
}

impl Call {
    /// Reads the port, as `:8080` or `8080`, and the caller's address.
    pub fn parse(port: &str, from: &str) -> Result<Self, Complaint> {
        let digits = port.strip_suffix("/tcp").unwrap_or(port);
        let digits = digits.strip_prefix(':').unwrap_or(digits);
        let port = number(digits).map_err(|complaint| {
            Complaint::new(
                complaint.message,
                "with “--from”, write the connector's own TCP port, such as “:8080”",
            )
        })?;
        match place(from) {
            Ok(Place::Addr(from)) => Ok(Self { from, port }),
            _ => Err(Complaint::new(
                format!("{} is no address", quote(from)),
                "write the caller's address, such as “--from 10.20.0.7”",
            )),
        }
    }
}

/// Explains a call. Fails where the policy does not fit the data plane.
pub fn explain_call(policy: &Policy, call: &Call) -> Result<Explanation, Faults> {
    let case = Case::new(policy)?;
    let flow = Flow {
        addr: canonical(call.from),
        connector: CONNECTOR,
        // The caller's port is of its own choice; no rule speaks of port 0.
        port: 0,
        protocol: TCP,
        layer: Layer::Packet,
        inbound: true,
        local_port: call.port,
        ifindex: 0,
    };
    let verdict = decide(&flow, &case.memory(true));
    let stage = case.stage(Layer::Packet, verdict, None);
    let answer = Answer {
        direction: "in",
        ..answer(
            format!("{} to port {}/tcp", call.from, call.port),
            vec![stage],
        )
    };
    let mut hints = Vec::new();
    if policy.mode == Mode::Audit {
        hints.push("the policy is in audit mode: what it refuses passes and is reported".into());
    }
    hints.extend(if answer.is_allowed() {
        call.from
            .is_loopback()
            .then(|| "callers on loopback are always let in".to_owned())
            .into_iter()
            .collect()
    } else {
        near(policy, call)
    });
    Ok(Explanation::new(policy, vec![answer], hints))
}

/// Rules that come close to a refused call.
fn near(policy: &Policy, call: &Call) -> Vec<String> {
    if policy.listen.is_empty() {
        return vec!["nobody but loopback may call: the policy has no “listen”".into()];
    }
    let rules = policy.listen.iter();
    rules.filter_map(|rule| kin(rule, call)).collect()
}

fn kin(rule: &Listen, call: &Call) -> Option<String> {
    let id = quote(&rule.id);
    let takes = rule.ports.iter().any(|span| span.holds(call.port));
    let net = rule.from.iter().find(|net| net.contains(&call.from));
    match (takes, net) {
        (true, None) => Some(format!(
            "rule {id} lets others call that port, not {}",
            call.from
        )),
        (false, Some(_)) => {
            let ports: Vec<String> = rule.ports.iter().map(PortSpan::to_string).collect();
            Some(format!(
                "rule {id} lets {} call port {}",
                call.from,
                ports.join(", ")
            ))
        }
        (true, Some(_)) => special::around(&Block::of(&call.from.into())).map(|special| {
            format!(
                "rule {id} is too wide to take {} along; name the address itself",
                special.what
            )
        }),
        (false, None) => None,
    }
}
