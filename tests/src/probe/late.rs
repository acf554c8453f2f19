//! Flows that are approved in time and opened when their grant has ended. In the control run the
//! destination is declared for good.

use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    thread,
    time::Duration,
};

use libc::{AF_INET, AF_INET6, SOCK_DGRAM};

use super::{
    Attempt, BRIEF, Job, PORT, Stop, Vector, own_port,
    sys::{self, address},
};
use crate::process::patient;

/// Longer than a grant of [`BRIEF`] and its grace.
const WAIT: Duration = Duration::from_millis(3500);

pub(super) const VECTORS: &[Vector] = &[
    Vector::new(
        "late-fastopen",
        "a connect that waits for the first data",
        |job| {
            let to = brief(job, "stream", job.permitted.into())?;
            stream(job, AF_INET, to)
        },
    )
    .controlled(),
    Vector::new("late-fastopen6", "the same over IPv6", |job| {
        let to = brief(job, "stream6", job.permitted6.into())?;
        stream(job, AF_INET6, to)
    })
    .controlled(),
    Vector::new("late-datagram", "a connected datagram socket", |job| {
        let to = brief(job, "datagram", job.permitted.into())?;
        datagram(job, AF_INET, to)
    })
    .controlled(),
    Vector::new("late-datagram6", "the same over IPv6", |job| {
        let to = brief(job, "datagram6", job.permitted6.into())?;
        datagram(job, AF_INET6, to)
    })
    .controlled(),
    Vector::new(
        "late-cork",
        "a datagram with an address, held back by its socket",
        |job| {
            let to = brief(job, "cork", job.permitted.into())?;
            cork(job, AF_INET, to)
        },
    )
    .controlled(),
    Vector::new("late-cork6", "the same over IPv6", |job| {
        let to = brief(job, "cork6", job.permitted6.into())?;
        cork(job, AF_INET6, to)
    })
    .controlled(),
];

/// An address that is permitted for a moment. Looking it up is part of the attempt: who permits
/// nothing by its name has nothing to revoke.
fn brief(job: &Job, label: &str, permitted: SocketAddr) -> Result<SocketAddr, Stop> {
    if job.is_control() {
        return Ok(permitted);
    }
    let name = format!("{label}.{BRIEF}");
    let found = (name.as_str(), PORT).to_socket_addrs()?.next();
    found.ok_or_else(|| Stop::set_up(format!("{name} has no address")))
}

fn stream(job: &Job, domain: i32, to: SocketAddr) -> Attempt {
    let out = own_port::waiting(domain)?;
    sys::connect(&out, &address(to))?;
    thread::sleep(patient(WAIT));
    sys::send(&out, job.bytes(), 0, &[])?;
    Ok(sys::receive(&out).map(drop)?)
}

fn datagram(job: &Job, domain: i32, to: SocketAddr) -> Attempt {
    let out = sys::socket(domain, SOCK_DGRAM, 0)?;
    sys::connect(&out, &address(to))?;
    sys::send(&out, b".", 0, &[])?;
    thread::sleep(patient(WAIT));
    // Where nobody listens the first one came back as an error, which the next call is told of.
    let sent = sys::send(&out, job.bytes(), 0, &[]);
    Ok(sent.or_else(|_| sys::send(&out, job.bytes(), 0, &[]))?)
}

fn cork(job: &Job, domain: i32, to: SocketAddr) -> Attempt {
    let out = sys::socket(domain, SOCK_DGRAM, 0)?;
    let cork = |on: i32| sys::set(&out, libc::SOL_UDP, libc::UDP_CORK, &on.to_ne_bytes());
    // The first one has been approved, and so has where the second one goes.
    sys::send(&out, b".", 0, &address(to))?;
    cork(1)?;
    sys::send(&out, job.bytes(), 0, &address(to))?;
    thread::sleep(patient(WAIT));
    Ok(cork(0)?)
}
