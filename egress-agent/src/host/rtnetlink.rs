//! Asks the kernel of routes, and hears of changes (rtnetlink(7), `include/uapi/linux/rtnetlink.h`).

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
        socket,
    },
};
use tokio::io::unix::AsyncFd;

use super::netlink::{HEADER, Messages, array};

/// `RTM_GETROUTE`.
pub const GETROUTE: u16 = 26;
/// `RTM_GETRULE`.
pub const GETRULE: u16 = 34;
/// `RTM_GETNEXTHOP`, `include/uapi/linux/nexthop.h`.
pub const GETNEXTHOP: u16 = 106;
/// `RTM_F_FIB_MATCH`: the entry of the table that decides, and not what was chosen out of it.
pub const FIB_MATCH: u32 = 0x2000;
/// `RTA_DST`.
const DESTINATION: u16 = 1;
/// `RTA_UID`.
const USER: u16 = 25;
/// `RTA_IP_PROTO`.
const PROTOCOL: u16 = 27;
/// `NLM_F_REQUEST` and `NLM_F_DUMP`, `include/uapi/linux/netlink.h`.
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// `NLM_F_DUMP_INTR`: the tables changed while they were read.
const INTERRUPTED: u16 = 0x10;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// What the kernel answers at once is never longer (`netlink_dump()`, `net/netlink/af_netlink.c`).
const BUFFER: usize = 32 * 1024;
/// How often tables are read anew that change meanwhile.
const TRIES: usize = 8;

/// A question for one route.
#[derive(Clone, Copy, Default)]
pub struct Question {
    /// `rtm_flags`.
    pub flags: u32,
    /// Whose packets; `None`: of the asking user.
    pub user: Option<u32>,
    /// IP protocol number; 0: none in particular.
    pub protocol: u8,
}

/// A conversation with the kernel.
pub struct Rtnetlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Rtnetlink {
    /// Begins one, in the network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: open()?,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Asks for the route to an address. Answers the kernel's message from `struct rtmsg` on, or why
    /// there is no route.
    pub fn route(&mut self, to: IpAddr, question: Question) -> io::Result<Result<Vec<u8>, Errno>> {
        let (family, octets) = match to.to_canonical() {
            IpAddr::V4(v4) => (libc::AF_INET, v4.octets().to_vec()),
            IpAddr::V6(v6) => (libc::AF_INET6, v6.octets().to_vec()),
        };
        let bits = u8::try_from(octets.len() * 8).map_err(io::Error::other)?;
        let mut body = vec![byte(family)?, bits, 0, 0, 0, 0, 0, 0];
        body.extend(question.flags.to_ne_bytes());
        attribute(&mut body, DESTINATION, &octets)?;
        if let Some(user) = question.user {
            attribute(&mut body, USER, &user.to_ne_bytes())?;
        }
        if question.protocol != 0 {
            attribute(&mut body, PROTOCOL, &[question.protocol])?;
        }
        self.send(GETROUTE, REQUEST, &body)?;
        loop {
            let received = self.receive()?;
            let received = self.buffer.get(..received).unwrap_or_default();
            let mut messages = Messages(received);
            if let Some(message) = messages.find(|message| message.sequence == self.sequence) {
                return match message.kind {
                    ERROR => Ok(Err(errno(message.body)?)),
                    _ => Ok(Ok(message.body.to_vec())),
                };
            }
        }
    }

    /// Reads a whole table of one family. `head`: the length of the message's own structure,
    /// whose first byte is the family. Answers the bodies of the messages.
    pub fn dump(&mut self, kind: u16, family: i32, head: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut body = vec![0; head];
        if let Some(first) = body.first_mut() {
            *first = byte(family)?;
        }
        for _ in 0..TRIES {
            if let Some(table) = self.dump_once(kind, &body)? {
                return Ok(table);
            }
        }
        Err(io::Error::other("the kernel's tables change all the time"))
    }

    /// `None`: it changed meanwhile.
    fn dump_once(&mut self, kind: u16, body: &[u8]) -> io::Result<Option<Vec<Vec<u8>>>> {
        self.send(kind, REQUEST | DUMP, body)?;
        let (mut table, mut sound) = (Vec::new(), true);
        loop {
            let received = self.receive()?;
            let received = self.buffer.get(..received).unwrap_or_default();
            let messages = Messages(received);
            for message in messages.filter(|message| message.sequence == self.sequence) {
                sound &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    DONE => return Ok(sound.then_some(table)),
                    ERROR => return Err(errno(message.body)?.into()),
                    _ => table.push(message.body.to_vec()),
                }
            }
        }
    }

    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(
            self.socket.as_raw_fd(),
            &message,
            &kernel,
            MsgFlags::empty(),
        )?;
        Ok(())
    }

    /// One datagram into the buffer. The kernel has answered by the time a request is sent.
    fn receive(&mut self) -> io::Result<usize> {
        loop {
            let flags = MsgFlags::MSG_TRUNC;
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(io::Error::other("the kernel's answer is longer than any"));
                }
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => return Ok(length),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn byte(number: i32) -> io::Result<u8> {
    u8::try_from(number).map_err(io::Error::other)
}

/// Puts an attribute behind a message.
fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) -> io::Result<()> {
    let length = u16::try_from(4 + value.len()).map_err(io::Error::other)?;
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    Ok(())
}

/// Of `struct nlmsgerr`.
fn errno(body: &[u8]) -> io::Result<Errno> {
    let code = array::<4>(body, 0).map(i32::from_ne_bytes);
    let code = code.ok_or_else(|| io::Error::other("the kernel's error is cut short"))?;
    Ok(Errno::from_raw(code.saturating_neg()))
}

/// Numbers of multicast groups (`RTNLGRP_…`), and all that has to do with where packets go:
/// links, addresses, routes and rules of both families, next hops.
#[derive(Clone, Copy)]
pub struct Groups(u32);

impl Groups {
    /// Everything that decides where packets go, and which stay on this host.
    pub const ROUTES: Self = Self(of(1) | of(5) | of(7) | of(8) | of(9) | of(11) | of(19) | of(32));
}

/// The bit of a group in `struct sockaddr_nl`.
const fn of(group: u32) -> u32 {
    1 << (group - 1)
}

/// Tells when something changes.
pub struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Begins to listen, in the network namespace of this thread. Needs a tokio runtime with I/O.
    pub fn listen(groups: Groups) -> io::Result<Self> {
        let netlink = open()?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, groups.0))?;
        #[expect(
            deprecated,
            reason = "the successor is unsafe for types that may swap their descriptor; \
                      an owned one never does"
        )]
        let netlink = AsyncFd::new(netlink)?;
        Ok(Self(netlink))
    }

    /// Waits for the next change, or several. Safe to cancel.
    pub async fn next(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        self.take()?;
        ready.clear_ready();
        Ok(())
    }

    /// Takes what has come, for somebody who is about to look at everything.
    pub fn take(&self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        loop {
            match recv(
                self.0.get_ref().as_raw_fd(),
                &mut buffer,
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(_) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                // Some were lost, which is a change as well.
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    Ok(socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?)
}
