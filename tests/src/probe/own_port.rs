//! Ports of the program's own on loopback, at which somebody outside listens when something is
//! delivered. In the control run that is the program itself: what it says to its own listener
//! arrives, and goes on to the declared address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use libc::{AF_INET, IPPROTO_TCP, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM};
use nix::errno::Errno;

use super::{
    Attempt, Job, Stop, Vector, squatter,
    sys::{self, address},
};
use crate::{process::patient, zone};

const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(50);

pub(super) const VECTORS: &[Vector] = &[
    Vector::new(
        "own-decoy4",
        "a connection of the program's own has the port at its end, another listens there",
        |job| {
            let other = Ipv4Addr::new(127, 0, 0, 9).into();
            decoy(job, Ipv4Addr::LOCALHOST.into(), other)
        },
    )
    .controlled(),
    Vector::new("own-decoy6", "the same over IPv6", |job| {
        decoy(job, Ipv6Addr::LOCALHOST.into(), zone::HOST6.into())
    })
    .controlled(),
    Vector::new(
        "own-backlog",
        "calls wait for a full queue; its listener closes, and another takes the port",
        backlog,
    )
    .controlled(),
    Vector::new(
        "own-fastopen",
        "a connect to an own listener that waits for the first data; then another listens",
        put_off,
    )
    .controlled(),
    Vector::new(
        "own-datagram-decoy",
        "a datagram socket of the program's own at the port of somebody else",
        |job| {
            let decoy = bound(SOCK_DGRAM, Ipv4Addr::LOCALHOST.into())?;
            let (port, third) = (port(&decoy)?, port(&bound(SOCK_DGRAM, LOCAL)?)?);
            sys::connect(&decoy, &address((Ipv4Addr::LOCALHOST, third))).map_err(Stop::set_up)?;
            let place = SocketAddr::new(LOCAL, port);
            listens_outside(job, place)?;
            let from = SocketAddr::new(Ipv4Addr::new(127, 0, 0, 9).into(), third);
            let out = match job.is_control() {
                true => sys::socket(AF_INET, SOCK_DGRAM, 0)?,
                false => sys::bound(SOCK_DGRAM, from)?,
            };
            datagram(job, &out, place)
        },
    )
    .controlled(),
    Vector::new(
        "own-broadcast",
        "a broadcast address of loopback, where the program listens too",
        |job| {
            let (out, place) = broadcaster(job)?;
            datagram(job, &out, place)
        },
    )
    .controlled(),
    Vector::new("own-broadcast-connected", "the same, connected", |job| {
        let (out, place) = broadcaster(job)?;
        let to = if job.is_control() {
            job.permitted.into()
        } else {
            place
        };
        sys::connect(&out, &address(to))?;
        sys::send(&out, job.bytes(), 0, &[])?;
        pause()
    })
    .controlled(),
];

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A socket of the program's own at a port that the kernel chooses.
fn bound(kind: i32, host: IpAddr) -> Result<OwnedFd, Stop> {
    sys::bound(kind, (host, 0).into()).map_err(Stop::set_up)
}

fn port(socket: &OwnedFd) -> Result<u16, Stop> {
    let place = sys::place_of(socket).map_err(Stop::set_up)?;
    Ok(place.port())
}

fn pause() -> Attempt {
    thread::sleep(patient(Duration::from_millis(300)));
    Ok(())
}

/// Somebody outside listens for datagrams at the place.
fn listens_outside(job: &Job, place: SocketAddr) -> Attempt {
    if job.is_control() {
        return Ok(());
    }
    squatter::ask(job, SOCK_DGRAM, place)?.is_there()
}

/// Datagrams to loopback need a rule; in the control run it is one to the declared address.
fn datagram(job: &Job, out: &OwnedFd, place: SocketAddr) -> Attempt {
    let to = if job.is_control() {
        job.permitted.into()
    } else {
        place
    };
    sys::send(out, job.bytes(), 0, &address(to))?;
    pause()
}

fn decoy(job: &Job, host: IpAddr, other: IpAddr) -> Attempt {
    let own = bound(SOCK_STREAM, host)?;
    sys::listen(&own).map_err(Stop::set_up)?;
    let far = port(&own)?;
    let decoy = bound(SOCK_STREAM, host)?;
    let place = SocketAddr::new(host, port(&decoy)?);
    sys::connect(&decoy, &address((host, far))).map_err(Stop::set_up)?;
    let _accepted = sys::accept(&own).map_err(Stop::set_up)?;
    squatter::ask(job, SOCK_STREAM, place)?.is_there()?;
    let mut attempt = Ok(());
    for source in [SocketAddr::new(host, 0), SocketAddr::new(other, far)] {
        let out = sys::bound(SOCK_STREAM, source)?;
        attempt = sys::connect(&out, &address(place))
            .and_then(|()| sys::send(&out, job.bytes(), 0, &[]))
            .map_err(Into::into);
    }
    pause()?;
    attempt
}

fn backlog(job: &Job) -> Attempt {
    let own = bound(SOCK_STREAM, LOCAL)?;
    sys::listen_for(&own, 0).map_err(Stop::set_up)?;
    let place = SocketAddr::new(LOCAL, port(&own)?);
    let call = || -> Result<OwnedFd, Stop> {
        let out = sys::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)?;
        match sys::connect(&out, &address(place)) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(out),
            Err(error) => Err(Stop::set_up(error)),
        }
    };
    let fill = (0..3).map(|_| call()).collect::<Result<Vec<_>, _>>()?;
    thread::sleep(patient(NAP * 4));
    let calls = (0..6).map(|_| call()).collect::<Result<Vec<_>, _>>()?;
    thread::sleep(patient(NAP * 4));
    // He tries until the port is free.
    let asked = squatter::ask(job, SOCK_STREAM, place)?;
    drop((own, fill));
    asked.is_there()?;
    let end = Instant::now() + patient(PATIENCE);
    let mut last = Err(Errno::ETIMEDOUT.into());
    while Instant::now() < end {
        for out in &calls {
            match sys::send(out, job.bytes(), 0, &[]) {
                Ok(()) => {
                    pause()?;
                    return Ok(());
                }
                // It waits, or the old listener had taken it.
                Err(Errno::EAGAIN | Errno::EPIPE | Errno::ECONNRESET) => {}
                Err(error) => last = Err(error.into()),
            }
        }
        thread::sleep(NAP);
    }
    last
}

fn put_off(job: &Job) -> Attempt {
    let own = bound(SOCK_STREAM, LOCAL)?;
    sys::listen(&own).map_err(Stop::set_up)?;
    let place = SocketAddr::new(LOCAL, port(&own)?);
    let out = waiting(AF_INET)?;
    sys::connect(&out, &address(place)).map_err(Stop::set_up)?;
    let asked = squatter::ask(job, SOCK_STREAM, place)?;
    drop(own);
    asked.is_there()?;
    sys::send(&out, job.bytes(), 0, &[])?;
    pause()
}

/// A stream socket whose `connect()` is done with the first data, with or without a cookie.
pub(super) fn waiting(domain: i32) -> Result<OwnedFd, Stop> {
    const NO_COOKIE: i32 = 34;
    let out = sys::socket(domain, SOCK_STREAM, 0)?;
    let on = 1i32.to_ne_bytes();
    for option in [libc::TCP_FASTOPEN_CONNECT, NO_COOKIE] {
        sys::set(&out, IPPROTO_TCP, option, &on).map_err(Stop::set_up)?;
    }
    Ok(out)
}

/// A socket that may broadcast, and where it is to send: the program listens there, too.
fn broadcaster(job: &Job) -> Result<(OwnedFd, SocketAddr), Stop> {
    let ear = bound(SOCK_DGRAM, Ipv4Addr::UNSPECIFIED.into())?;
    let port = port(&ear)?;
    listens_outside(job, (Ipv4Addr::UNSPECIFIED, port).into())?;
    let out = sys::socket(AF_INET, SOCK_DGRAM, 0)?;
    let on = 1i32.to_ne_bytes();
    sys::set(&out, libc::SOL_SOCKET, libc::SO_BROADCAST, &on)?;
    // Open as long as the program: what comes first is dealt to one of both, or copied to each.
    let _fd = std::mem::ManuallyDrop::new(ear).as_raw_fd();
    Ok((out, (Ipv4Addr::new(127, 255, 255, 255), port).into()))
}
