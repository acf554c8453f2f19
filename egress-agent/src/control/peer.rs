//! Who is on the other side of a connection, as the kernel says.

use std::{io, os::fd::BorrowedFd};

use egress_sys::peer_groups;
use rustix::net::sockopt::socket_peercred;

/// The process that connected, with the rights that it had then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its number.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Asks the kernel (`SO_PEERCRED` and `SO_PEERGROUPS`, unix(7)).
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let who = socket_peercred(socket)?;
        Ok(Self {
            pid: who.pid.as_raw_pid().unsigned_abs(),
            uid: who.uid.as_raw(),
            gid: who.gid.as_raw(),
            groups: peer_groups(socket)?,
        })
    }

    /// Whether it is in a group.
    pub fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }

    /// Whether everything of the daemon is its business: root's, and that of the members of the
    /// operators' group.
    pub fn operates(&self, operators: Option<u32>) -> bool {
        self.uid == 0 || operators.is_some_and(|group| self.is_in(group))
    }
}
