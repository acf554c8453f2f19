//! What the kernel answers for a listener to somebody whom nobody let in: time to live, traffic
//! class, segment size and window are the program's choice, so that any answer carries bytes. In
//! the control run the program calls itself, and what it hears goes on to the declared address.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use libc::{AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOCK_STREAM};

use super::{
    Attempt, Evidence, Job, Needs, Stop, Vector, listening,
    sys::{self, address},
};
use crate::process::patient;

/// Callers hang up before; the kernel answers for a closed port.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Values that no host has by itself.
const HOPS: i32 = 37;
const SEGMENT: i32 = 700;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("answer4", "to a call from outside", |job| {
        answer(job, Ipv4Addr::UNSPECIFIED.into(), 8, 0)
    })
    .with(Needs::Caller)
    .proven_by(Evidence::Answered)
    .controlled(),
    Vector::new("answer6", "to a call over IPv6", |job| {
        answer(job, Ipv6Addr::UNSPECIFIED.into(), 8, 0)
    })
    .with(Needs::Caller6)
    .proven_by(Evidence::Answered)
    .controlled(),
    Vector::new("answer-no-room4", "to a call without room for it", |job| {
        answer(job, Ipv4Addr::UNSPECIFIED.into(), 0, 0)
    })
    .with(Needs::Caller)
    .proven_by(Evidence::Answered)
    .controlled(),
    Vector::new("answer-no-room6", "the same over IPv6", |job| {
        answer(job, Ipv6Addr::UNSPECIFIED.into(), 0, 0)
    })
    .with(Needs::Caller6)
    .proven_by(Evidence::Answered)
    .controlled(),
    Vector::new(
        "answer-deferred",
        "to a call that is kept half open until data come",
        |job| answer(job, Ipv4Addr::UNSPECIFIED.into(), 8, 30),
    )
    .with(Needs::Caller)
    .proven_by(Evidence::Answered)
    .controlled(),
];

fn answer(job: &Job, any: IpAddr, room: i32, deferred: i32) -> Attempt {
    let listener = sys::bound(SOCK_STREAM, (any, 0).into()).map_err(Stop::set_up)?;
    let (level, option) = match any {
        IpAddr::V4(_) => (IPPROTO_IP, libc::IP_TTL),
        IpAddr::V6(_) => (IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    };
    sys::set(&listener, level, option, &HOPS.to_ne_bytes())?;
    let size = SEGMENT.to_ne_bytes();
    sys::set(&listener, IPPROTO_TCP, libc::TCP_MAXSEG, &size)?;
    if deferred > 0 {
        let seconds = deferred.to_ne_bytes();
        sys::set(&listener, IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)?;
    }
    sys::listen_for(&listener, room).map_err(Stop::set_up)?;
    let port = sys::place_of(&listener).map_err(Stop::set_up)?.port();
    if job.is_control() {
        return itself(job, &listener, (loopback(any), port).into());
    }
    listening(port)?;
    thread::sleep(patient(PATIENCE));
    Ok(())
}

fn loopback(any: IpAddr) -> IpAddr {
    match any {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

fn itself(job: &Job, listener: &OwnedFd, place: SocketAddr) -> Attempt {
    let domain = if place.is_ipv4() { AF_INET } else { AF_INET6 };
    let out = sys::socket(domain, SOCK_STREAM, 0)?;
    sys::connect(&out, &address(place))?;
    sys::send(&out, job.bytes(), 0, &[])?;
    let heard = sys::receive(&sys::accept(listener)?)?;
    UdpSocket::bind("0.0.0.0:0")?.send_to(&heard, job.permitted)?;
    Ok(())
}
