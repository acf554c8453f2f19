//! The verdict on names of unix sockets.

use std::path::{Component, Path};

use egress_agent::policy::tables::Memory;
use egress_common::{
    abi::{OWN_FOLDER, RULE_NONE, RULE_OWN, UNIX_NAME_MAX, UNIX_NAME_ROOM},
    grant::Connector,
    unix::{self, UnixGrant, UnixKey},
    verdict::{Action, Reason, Verdict},
};

use crate::draw::{Bytes, Draw};

/// Compares a few verdicts.
pub fn run(data: &[u8]) {
    compare(&mut Bytes(data), 8);
}

/// Draws names that are permitted, denied and asked for, and compares. Answers how many were
/// asked for.
pub fn compare(draw: &mut impl Draw, attempts: usize) -> u64 {
    let world = World::draw(draw);
    let memory = world.memory();
    for _ in 0..attempts {
        let asked = Name::draw(draw);
        let (found, expected) = (unix::decide(&asked.key(), &memory), world.verdict(&asked));
        assert_eq!(found, expected, "{asked:?} in {world:?}");
    }
    attempts as u64
}

/// A name that a program wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Name {
    connector: u32,
    kind: u16,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct World {
    mode: u16,
    own: u32,
    names: Vec<(Name, u32, u32)>,
    active: Vec<u32>,
}

impl Name {
    fn draw(draw: &mut impl Draw) -> Self {
        let mut bytes = draw.pick(&STARTS).to_vec();
        for _ in 0..draw.below(4) {
            match draw.below(4) {
                0 => bytes.push(draw.bits8()),
                _ => bytes.extend(draw.pick(&PARTS)),
            }
        }
        if draw.one_in(16) {
            bytes.resize(UNIX_NAME_MAX, b'a');
        }
        let kind = draw.pick(&[UnixKey::PATH, UnixKey::PATH, UnixKey::ABSTRACT, 0]);
        // A path ends at its first NUL.
        if kind != UnixKey::ABSTRACT
            && let Some(end) = bytes.iter().position(|&byte| byte == 0)
        {
            bytes.truncate(end);
        }
        bytes.truncate(UNIX_NAME_MAX);
        Self {
            connector: draw.pick(&[1, 1, 1, 2]),
            kind,
            bytes,
        }
    }

    fn key(&self) -> UnixKey {
        let mut name = [0; UNIX_NAME_ROOM];
        name[..self.bytes.len()].copy_from_slice(&self.bytes);
        UnixKey {
            connector: self.connector,
            kind: self.kind,
            len: self.bytes.len() as u16,
            name,
        }
    }
}

const STARTS: [&[u8]; 8] = [
    b"",
    b"/run/egress-agent/",
    b"/run/egress-agent",
    b"/run/egress-agentx/",
    b"/run/docker.sock",
    b"/tmp/a",
    b"run/egress-agent/a",
    b"/",
];

const PARTS: [&[u8]; 8] = [b"a", b"/", b"..", b"/..", b"/../", b".", b"/...", b"\0"];

impl World {
    fn draw(draw: &mut impl Draw) -> Self {
        let mut world = Self {
            mode: draw.pick(&[1, 1, 2, 0]),
            own: draw.below(4) as u32,
            names: Vec::new(),
            active: Vec::new(),
        };
        for rule in 8..12 {
            if !draw.one_in(3) {
                world.active.push(rule);
            }
        }
        for _ in 0..draw.below(4) {
            let name = Name::draw(draw);
            if !world.names.iter().any(|(other, ..)| *other == name) {
                let rule = draw.pick(&[8, 9, 10, 11]);
                world.names.push((name, rule, draw.pick(&[1, 1, 0, 2])));
            }
        }
        world
    }

    fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        let record = Connector {
            mode: self.mode,
            unix: self.own,
            ..crate::world::Member {
                id: 1,
                mode: self.mode,
                door: None,
            }
            .record()
        };
        memory.connectors.insert(1, record);
        memory.active = self.active.iter().copied().collect();
        for (name, rule, effect) in &self.names {
            let grant = UnixGrant {
                rule: *rule,
                effect: *effect,
            };
            memory.unix.insert(name.key(), grant);
        }
        memory
    }

    /// The verdict, by a reading of its own.
    fn verdict(&self, asked: &Name) -> Verdict {
        if asked.connector != 1 || !(self.mode == 1 || self.mode == 2) {
            return verdict(Action::Deny, Reason::UnknownConnector, RULE_NONE);
        }
        let refused = if self.mode == 2 {
            Action::Audit
        } else {
            Action::Deny
        };
        let named = self.names.iter().find(|(name, ..)| name == asked);
        if let Some(&(_, rule, effect)) = named {
            return match (effect, self.active.contains(&rule)) {
                (1, true) => verdict(Action::Allow, Reason::None, rule),
                (1, false) => verdict(refused, Reason::Revoked, rule),
                _ => verdict(refused, Reason::DenyRule, rule),
            };
        }
        let own = match asked.kind {
            UnixKey::PATH => self.own & Connector::OWN_PATHS != 0 && is_below_own(&asked.bytes),
            UnixKey::ABSTRACT => self.own & Connector::OWN_ABSTRACT != 0,
            _ => false,
        };
        if own {
            return verdict(Action::Allow, Reason::None, RULE_OWN);
        }
        verdict(refused, Reason::UnixPath, RULE_NONE)
    }
}

/// Whether a path lies below the own folder and surely stays there. The shared function also
/// refuses parts that only begin with `..`, which the kernel would take for names.
fn is_below_own(bytes: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(rest) = bytes.strip_prefix(OWN_FOLDER.as_bytes()) else {
        return false;
    };
    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    let climbs = path.components().any(|part| match part {
        Component::ParentDir => true,
        Component::Normal(name) => name.as_bytes().starts_with(b".."),
        _ => false,
    });
    !rest.is_empty() && !climbs
}

fn verdict(action: Action, reason: Reason, rule: u32) -> Verdict {
    Verdict {
        action,
        reason,
        rule,
    }
}
