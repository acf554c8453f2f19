//! Descriptors made outside: no hook ever runs for them, so they must not come in.

use std::{
    fs,
    net::{TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
};

use anyhow::{Context, Result};
use libc::{AF_UNIX, SOCK_STREAM};
use nix::errno::Errno;

use super::{
    PORT, Stop, Vector,
    neighbour::{self, Victim},
    sys::{self, address},
};
use crate::zone;

const TCP: i32 = 210;
const UDP_CONNECTED: i32 = 211;
const UDP: i32 = 212;
const PACKET: i32 = 213;
const UNIX: i32 = 214;
const UNIX_LISTENER: i32 = 215;
const FOLDER: i32 = 216;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new(
        "inherited-tcp",
        "a connection open before the start",
        |job| Ok(sys::write(TCP, job.bytes())?),
    ),
    Vector::new(
        "inherited-udp-connected",
        "a connected datagram socket open before the start",
        |job| Ok(sys::write(UDP_CONNECTED, job.bytes())?),
    ),
    Vector::new(
        "inherited-udp",
        "a datagram socket open before the start",
        |job| {
            Ok(sys::send(
                &borrowed(UDP)?,
                job.bytes(),
                0,
                &address(job.target),
            )?)
        },
    ),
    Vector::new(
        "inherited-packet",
        "a packet socket open before the start",
        |job| super::packet::send_datagram(&borrowed(PACKET)?, job),
    ),
    Vector::new(
        "inherited-unix",
        "a unix connection open before the start",
        |job| Ok(sys::write(UNIX, job.bytes())?),
    ),
    Vector::new(
        "inherited-unix-listener",
        "a unix listener open before the start; a helper calls",
        |job| {
            let listener = borrowed(UNIX_LISTENER)?;
            // Calls of helpers that are gone wait in the queue, too.
            while sys::send(&sys::accept(&listener)?, job.bytes(), 0, &[]).is_err() {}
            Ok(())
        },
    ),
    Vector::new(
        "inherited-folder",
        "a folder open before the start, to a unix socket in it",
        |job| {
            let socket = sys::socket(AF_UNIX, SOCK_STREAM, 0)?;
            let path = format!("/proc/self/fd/{FOLDER}/stream.sock");
            sys::connect(&socket, &sys::unix_address(&path))?;
            Ok(sys::send(&socket, job.bytes(), 0, &[])?)
        },
    ),
    Vector::new(
        "scm-rights",
        "a connection received over a unix socket that a helper outside listens on",
        |job| {
            let socket = sys::socket(AF_UNIX, SOCK_STREAM, 0)?;
            let path = job.stage.join("giver.sock").display().to_string();
            sys::connect(&socket, &sys::unix_address(&path))?;
            let given = take(socket.as_raw_fd(), 0)?;
            Ok(sys::write(given.as_raw_fd(), job.bytes())?)
        },
    ),
    Vector::new(
        "scm-rights-stdin",
        "a connection received over standard input, where that is a unix socket",
        |job| {
            let given = take(0, libc::MSG_DONTWAIT)?;
            Ok(sys::write(given.as_raw_fd(), job.bytes())?)
        },
    ),
    Vector::new(
        "pidfd-getfd",
        "a connection taken out of a process of the same user",
        |job| {
            let victim = Victim::of(&job.stage)?;
            let process = sys::call_fd(libc::SYS_pidfd_open, &[victim.pid, 0])?;
            let arguments = [process.as_raw_fd() as usize, victim.socket, 0];
            let taken = sys::call_fd(libc::SYS_pidfd_getfd, &arguments)?;
            Ok(sys::write(taken.as_raw_fd(), job.bytes())?)
        },
    ),
    Vector::new(
        "proc-fd-pipe",
        "a pipe between processes of the same user, opened through /proc/PID/fd",
        |job| {
            let victim = Victim::of(&job.stage)?;
            let path = format!("/proc/{}/fd/{}", victim.pid, victim.pipe);
            let pipe = fs::File::options().write(true).open(path)?;
            Ok(sys::write(pipe.as_raw_fd(), job.bytes())?)
        },
    )
    .limit_without_landlock("without Landlock, /proc opens files of processes of the same user"),
    Vector::new(
        "proc-root-unix",
        "a unix socket through /proc/PID/root of a process of the same user",
        |job| {
            let victim = Victim::of(&job.stage)?;
            let socket = sys::socket(AF_UNIX, SOCK_STREAM, 0)?;
            let stage = job.stage.display();
            let path = format!("/proc/{}/root{stage}/stream.sock", victim.pid);
            sys::connect(&socket, &sys::unix_address(&path))?;
            Ok(sys::send(&socket, job.bytes(), 0, &[])?)
        },
    ),
];

/// A descriptor that should not be there.
fn borrowed(fd: i32) -> Result<OwnedFd, Errno> {
    sys::call_fd(libc::SYS_dup, &[fd as usize])
}

/// Receives one descriptor.
fn take(from: i32, flags: i32) -> Result<OwnedFd, Stop> {
    let mut data = [0_u8; 16];
    let mut control = [0_u64; 8];
    let part = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: msghdr is plain numbers and pointers, for which all zero means absent.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = (&raw const part).cast_mut();
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    let arguments = [from as usize, sys::place_mut(&mut header), flags as usize];
    sys::call(libc::SYS_recvmsg, &arguments)?;
    // cmsghdr: length, level and kind, then the descriptor.
    let rights = (libc::SOL_SOCKET as u64) | (libc::SCM_RIGHTS as u64) << 32;
    if control[0] < 20 || control[1] != rights {
        return Err(Stop::Refused("no descriptor came".to_owned()));
    }
    // SAFETY: the kernel just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd((control[2] & 0xffff_ffff) as i32) })
}

/// What `probe inherit` does: opens what a careless caller may have open, moves to the cgroup
/// that the connector's user owns, and becomes the command.
pub(super) fn open_and_become(stage: &Path, command: &[&str]) -> Result<()> {
    let tcp = TcpStream::connect((zone::STRANGER, PORT)).context("the stranger")?;
    let udp = UdpSocket::bind("0.0.0.0:0")?;
    let connected = UdpSocket::bind("0.0.0.0:0")?;
    connected.connect((zone::STRANGER, PORT))?;
    let packet = super::packet::socket(libc::SOCK_DGRAM)?;
    let unix = |name: &str| -> Result<OwnedFd> {
        let socket = sys::socket(AF_UNIX, SOCK_STREAM, 0)?;
        let path = stage.join(name).display().to_string();
        sys::connect(&socket, &sys::unix_address(&path))?;
        Ok(socket)
    };
    let listener = sys::socket(AF_UNIX, SOCK_STREAM, 0)?;
    let path = stage.join("inherited.sock");
    drop(fs::remove_file(&path));
    sys::bind(&listener, &sys::unix_address(&path.display().to_string()))?;
    sys::listen(&listener)?;
    let all: [(OwnedFd, i32); 8] = [
        (tcp.into(), TCP),
        (connected.into(), UDP_CONNECTED),
        (udp.into(), UDP),
        (packet, PACKET),
        (unix("stream.sock")?, UNIX),
        (listener, UNIX_LISTENER),
        (fs::File::open(stage)?.into(), FOLDER),
        (unix("giver.sock")?, 0),
    ];
    for (fd, number) in all {
        // dup3 without a flag: it stays open over exec.
        sys::call(
            libc::SYS_dup2,
            &[fd.into_raw_fd() as usize, number as usize],
        )?;
    }
    fs::write(neighbour::launcher(stage), std::process::id().to_string())?;
    let cgroup = fs::read_to_string(stage.join("cgroup")).context("cgroup")?;
    fs::write(Path::new(cgroup.trim()).join("launch/cgroup.procs"), "0").context("join")?;
    let [program, arguments @ ..] = command else {
        anyhow::bail!("no command");
    };
    Err(Command::new(program).args(arguments).exec().into())
}
