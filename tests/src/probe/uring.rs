//! io_uring: sockets, connections and messages without the system calls that a filter knows.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    thread,
    time::Duration,
};

use libc::{AF_INET, AF_UNIX, SOCK_DGRAM, SOCK_STREAM};
use nix::errno::Errno;

use super::{
    Attempt, Job, Stop, Vector, accomplice,
    ring::{Request, Ring},
    since,
    sys::{self, address},
};

const SENDMSG: u8 = 9;
const CONNECT: u8 = 16;
const SEND: u8 = 26;
const SOCKET: u8 = 45;
const SEND_ZC: u8 = 47;
const SENDMSG_ZC: u8 = 48;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("uring-tcp", "socket, connect and send by io_uring", |job| {
        stream(&ring(false)?, job)
    }),
    Vector::new(
        "uring-tcp-polled",
        "the same with a polling kernel thread: no system call per request",
        |job| stream(&ring(true)?, job),
    ),
    Vector::new("uring-udp-sendmsg", "sendmsg by io_uring", |job| {
        message(job, SENDMSG, false)
    }),
    Vector::new(
        "uring-udp-sendmsg-polled",
        "sendmsg by a polling kernel thread",
        |job| message(job, SENDMSG, true),
    ),
    Vector::new(
        "uring-udp-sendmsg-zc",
        "sendmsg without a copy, by io_uring",
        |job| {
            since(6, 1, "such requests of io_uring")?;
            message(job, SENDMSG_ZC, false)
        },
    ),
    Vector::new(
        "uring-udp-send",
        "send with an address, by io_uring",
        |job| {
            since(6, 1, "addresses in such requests of io_uring")?;
            datagram(job, SEND)
        },
    ),
    Vector::new(
        "uring-udp-send-zc",
        "send without a copy, by io_uring",
        |job| {
            since(6, 0, "such requests of io_uring")?;
            datagram(job, SEND_ZC)
        },
    ),
    Vector::new(
        "uring-fastopen",
        "data in the first segment, by io_uring",
        |job| {
            since(6, 1, "addresses in such requests of io_uring")?;
            let ring = ring(false)?;
            let socket = socket(&ring, AF_INET, SOCK_STREAM)?;
            let to = address(job.target);
            ring.ask(&send(SEND, &socket, job.bytes(), &to, libc::MSG_FASTOPEN))?;
            thread::sleep(Duration::from_millis(200));
            Ok(())
        },
    ),
    Vector::new("uring-unix", "a unix socket outside, by io_uring", |job| {
        let ring = ring(false)?;
        let socket = socket(&ring, AF_UNIX, SOCK_STREAM)?;
        let path = job.stage.join("stream.sock").display().to_string();
        connect(&ring, &socket, &sys::unix_address(&path))?;
        ring.ask(&send(SEND, &socket, job.bytes(), &[], 0))?;
        Ok(())
    }),
    Vector::new(
        "uring-abstract",
        "an abstract unix socket outside, by io_uring",
        |job| {
            let ring = ring(false)?;
            let socket = socket(&ring, AF_UNIX, SOCK_STREAM)?;
            connect(&ring, &socket, &sys::unix_address(accomplice::ABSTRACT))?;
            ring.ask(&send(SEND, &socket, job.bytes(), &[], 0))?;
            Ok(())
        },
    ),
];

/// A machine may have it switched off for everybody: io_uring_disabled, sysctl(2).
fn ring(polled: bool) -> Result<Ring, Stop> {
    if polled {
        // Before, it took capabilities and files that were registered.
        since(5, 11, "polling of io_uring for everybody")?;
    }
    match Ring::new(polled) {
        Err(Errno::ENOSYS) => super::missing("this kernel has no io_uring"),
        ring => Ok(ring?),
    }
}

/// By io_uring where it can (Linux 5.19), otherwise by the classic call.
fn socket(ring: &Ring, domain: i32, kind: i32) -> Result<OwnedFd, Errno> {
    if sys::kernel() < (5, 19) {
        return sys::socket(domain, kind, 0);
    }
    let fd = ring.ask(&Request {
        operation: SOCKET,
        fd: domain,
        offset: kind as u64,
        ..Request::default()
    })?;
    // SAFETY: the kernel just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn connect(ring: &Ring, socket: &OwnedFd, to: &[u8]) -> Result<(), Errno> {
    let request = Request {
        operation: CONNECT,
        fd: socket.as_raw_fd(),
        address: to.as_ptr() as u64,
        offset: to.len() as u64,
        ..Request::default()
    };
    ring.ask(&request).map(drop)
}

fn send(operation: u8, socket: &OwnedFd, data: &[u8], to: &[u8], flags: i32) -> Request {
    Request {
        operation,
        fd: socket.as_raw_fd(),
        address: data.as_ptr() as u64,
        length: data.len() as u32,
        flags: flags as u32,
        offset: if to.is_empty() { 0 } else { to.as_ptr() as u64 },
        other: to.len() as u32,
    }
}

fn stream(ring: &Ring, job: &Job) -> Attempt {
    let socket = socket(ring, AF_INET, SOCK_STREAM)?;
    connect(ring, &socket, &address(job.target))?;
    ring.ask(&send(SEND, &socket, job.bytes(), &[], 0))?;
    thread::sleep(Duration::from_millis(200));
    Ok(())
}

fn datagram(job: &Job, operation: u8) -> Attempt {
    let ring = ring(false)?;
    let socket = socket(&ring, AF_INET, SOCK_DGRAM)?;
    let to = address(SocketAddr::from(job.target));
    ring.ask(&send(operation, &socket, job.bytes(), &to, 0))?;
    Ok(())
}

fn message(job: &Job, operation: u8, polled: bool) -> Attempt {
    let ring = ring(polled)?;
    let socket = socket(&ring, AF_INET, SOCK_DGRAM)?;
    let to = address(job.target);
    let part = libc::iovec {
        iov_base: job.bytes().as_ptr().cast_mut().cast(),
        iov_len: job.bytes().len(),
    };
    // SAFETY: msghdr is plain numbers and pointers, for which all zero means absent.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = (&raw const part).cast_mut();
    header.msg_iovlen = 1;
    header.msg_name = to.as_ptr().cast_mut().cast();
    header.msg_namelen = to.len() as libc::socklen_t;
    ring.ask(&Request {
        operation,
        fd: socket.as_raw_fd(),
        address: (&raw const header) as u64,
        length: 1,
        ..Request::default()
    })?;
    Ok(())
}
