//! Unix sockets: their names as records, and the verdict on them.
//!
//! The hooks see the name that a program wrote, not the socket it leads to. So a path is
//! compared byte by byte: a symbolic link, a relative path or another spelling of a
//! permitted socket is another name, and refused.

use crate::{
    abi::{OWN_FOLDER, RULE_NONE, RULE_OWN, UNIX_NAME_ROOM},
    decide::{Lookup, audited},
    event::Event,
    grant::Connector,
    verdict::{Reason, Verdict},
};

/// Key of a permitted or denied name: whose it is, and the name. 120 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct UnixKey {
    /// Connector id.
    pub connector: u32,
    /// [`UnixKey::PATH`] or [`UnixKey::ABSTRACT`].
    pub kind: u16,
    /// Bytes of `name` in use, at most [`crate::abi::UNIX_NAME_MAX`].
    pub len: u16,
    /// The path up to its NUL, or the abstract name without its leading NUL; then zeros.
    pub name: [u8; UNIX_NAME_ROOM],
}

impl UnixKey {
    /// A name in the file system.
    pub const PATH: u16 = 1;
    /// A name in the network namespace's table (`unix(7)`).
    pub const ABSTRACT: u16 = 2;
    /// No name that a program can write: the connector's temporary folder, with a slash at its
    /// end. What lies in it is led to [`crate::abi::OWN_TEMPORARY`].
    pub const FOLDER: u16 = 3;
}

/// Value of a name. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnixGrant {
    /// The rule that this entry comes from.
    pub rule: u32,
    /// [`UnixGrant::ALLOW`] or [`UnixGrant::DENY`]; anything else denies.
    pub effect: u32,
}

impl UnixGrant {
    /// The name is refused.
    pub const DENY: u32 = 0;
    /// The name is permitted while its rule is active.
    pub const ALLOW: u32 = 1;
}

/// A denial at a unix socket, as the ring carries it; told from [`Event`] by its length.
/// 192 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnixEvent {
    /// What every denial says. The address is zero, the port is the socket's type
    /// (`SOCK_STREAM` 1, `SOCK_DGRAM` 2, `SOCK_SEQPACKET` 5).
    pub event: Event,
    /// The name.
    pub key: UnixKey,
}

/// Key of the repeat limiter for unix sockets. 128 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnixRepeatKey {
    /// The name.
    pub key: UnixKey,
    /// [`crate::verdict::Reason`].
    pub reason: u32,
    /// Type of the socket.
    pub socket: u32,
}

/// Decides a unix socket's name. Total: every input has an answer, and every unclear one is
/// a refusal.
#[inline(always)]
pub fn decide<L: Lookup>(key: &UnixKey, lookup: &L) -> Verdict {
    let Some(connector) = lookup.connector(key.connector) else {
        return Verdict::deny(Reason::UnknownConnector, RULE_NONE);
    };
    let mode = connector.mode;
    if mode != Connector::ENFORCE && mode != Connector::AUDIT {
        return Verdict::deny(Reason::UnknownConnector, RULE_NONE);
    }
    let verdict = by_name(key, connector, lookup);
    if mode == Connector::AUDIT {
        return audited(verdict);
    }
    verdict
}

#[inline(always)]
fn by_name<L: Lookup>(key: &UnixKey, connector: &Connector, lookup: &L) -> Verdict {
    if let Some(grant) = lookup.unix(key) {
        if grant.effect != UnixGrant::ALLOW {
            return Verdict::deny(Reason::DenyRule, grant.rule);
        }
        if lookup.rule_active(grant.rule) {
            return Verdict::allow(grant.rule);
        }
        return Verdict::deny(Reason::Revoked, grant.rule);
    }
    if key.kind == UnixKey::PATH && connector.unix & Connector::OWN_PATHS != 0 && is_own(key) {
        return Verdict::allow(RULE_OWN);
    }
    if key.kind == UnixKey::ABSTRACT && connector.unix & Connector::OWN_ABSTRACT != 0 {
        return Verdict::allow(RULE_OWN);
    }
    Verdict::deny(Reason::UnixPath, RULE_NONE)
}

/// Whether a path lies below the folder that only the connector sees. The folder follows no
/// symbolic link, so a path in which no part begins with `..` cannot lead out of it.
#[inline(always)]
fn is_own(key: &UnixKey) -> bool {
    let prefix = OWN_FOLDER.as_bytes();
    if key.len as usize <= prefix.len() {
        return false;
    }
    // Loops of constant length that remember nothing: the verifier walks them in a line.
    for (have, want) in key.name.iter().zip(prefix) {
        if have != want {
            return false;
        }
    }
    for part in key.name.windows(3) {
        if matches!(part, [b'/', b'.', b'.']) {
            return false;
        }
    }
    true
}

/// Sockets that C libraries try before every look-up, on every host, and do without where
/// there is none: the cache daemon (glibc `nscd/nscd-client.h`) and the stub resolver's
/// (systemd `nss-resolve`). A look-up there would be made outside; the door answers instead.
const NAME_SERVICES: [&str; 2] = [
    "/var/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
];

/// Whether the name is a name service's, which is to look absent where it is refused: trying
/// it is no attempt to get out, and every program does.
#[inline(always)]
pub fn looks_absent(key: &UnixKey) -> bool {
    key.kind == UnixKey::PATH && (is(key, NAME_SERVICES[0]) || is(key, NAME_SERVICES[1]))
}

#[inline(always)]
fn is(key: &UnixKey, path: &str) -> bool {
    if key.len as usize != path.len() {
        return false;
    }
    for (have, want) in key.name.iter().zip(path.as_bytes()) {
        if have != want {
            return false;
        }
    }
    true
}
