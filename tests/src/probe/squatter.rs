//! Somebody outside who takes a place on this host when asked to, as soon as it is free, and passes
//! on what he hears there. In the control run the program itself does that.
//!
//! He is asked by a file, since files are no network traffic: a hostile program finds such a helper
//! or waits for one.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use libc::{SOCK_DGRAM, SOCK_STREAM};

use super::{Job, Stop, accomplice, sys};
use crate::{process::patient, zone};

/// What a file begins with that asks for a place.
pub(super) const REQUEST: &str = "listen ";
/// A group that he joins where he listens for datagrams on every address.
pub(super) const GROUP: Ipv4Addr = Ipv4Addr::new(239, 7, 7, 7);
const NAP: Duration = Duration::from_millis(5);
/// He tries so long to get the place, and stays so long.
const LIMIT: Duration = Duration::from_secs(8);

/// A place that somebody was asked to take.
pub(super) struct Asked(PathBuf);

/// Asks for a place, `SOCK_STREAM` or `SOCK_DGRAM`. In the control run this program takes it itself,
/// and what it hears there goes on to the declared address.
pub(super) fn ask(job: &Job, kind: i32, place: SocketAddr) -> Result<Asked, Stop> {
    let file = job
        .stage
        .join(format!("box/{}-{}", job.token, place.port()));
    if job.is_control() {
        let permitted = job.permitted;
        let pass_on = move |data: &[u8]| {
            if let Ok(out) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
                drop(out.send_to(data, permitted));
            }
        };
        let file = job.stage.join("box/nothing");
        thread::spawn(move || take(kind, place, &pass_on, || {}));
        return Ok(Asked(file));
    }
    fs::write(&file, format!("{REQUEST}{kind} {place}")).map_err(Stop::set_up)?;
    Ok(Asked(file))
}

impl Asked {
    /// Waits until he is there.
    pub(super) fn is_there(&self) -> Result<(), Stop> {
        let end = Instant::now() + patient(LIMIT);
        while self.0.exists() {
            if Instant::now() > end {
                return Err(Stop::set_up("nobody took the place"));
            }
            thread::sleep(NAP);
        }
        // In the control run there is no file to tell.
        thread::sleep(patient(Duration::from_millis(100)));
        Ok(())
    }
}

/// What the accomplice does with a request: the file goes when he listens.
pub(super) fn start(request: &str, file: PathBuf) {
    let place = || -> Option<(i32, SocketAddr)> {
        let (kind, place) = request.split_once(' ')?;
        Some((kind.parse().ok()?, place.parse().ok()?))
    };
    let Some((kind, place)) = place() else {
        eprintln!("no place: {request}");
        return;
    };
    thread::spawn(move || {
        let done = || drop(fs::remove_file(&file));
        if let Err(error) = take(kind, place, &deliver, done) {
            eprintln!("{place}: {error:#}");
        }
    });
}

/// Passes on tokens, those too that were written backwards so that nobody on the wire knows them.
fn deliver(data: &[u8]) {
    accomplice::deliver(data);
    let back: Vec<u8> = data.iter().rev().copied().collect();
    accomplice::deliver(&back);
}

/// Takes a place as soon as it is free and hears what comes.
fn take(
    kind: i32,
    place: SocketAddr,
    heard: &(dyn Fn(&[u8]) + Sync),
    taken: impl Fn(),
) -> Result<()> {
    let end = Instant::now() + patient(LIMIT);
    let socket = loop {
        match open(kind, place) {
            Ok(socket) => break socket,
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => thread::sleep(NAP),
        }
    };
    taken();
    thread::scope(|scope| {
        while Instant::now() < end + patient(LIMIT) {
            if kind == SOCK_DGRAM {
                if let Ok(data) = sys::receive(&socket) {
                    heard(&data);
                }
            } else if let Ok(peer) = sys::accept(&socket) {
                scope.spawn(move || {
                    let waits = sys::set_patience(&peer);
                    while let Ok(data) = waits.and_then(|()| sys::receive(&peer))
                        && !data.is_empty()
                    {
                        heard(&data);
                    }
                });
            }
        }
    });
    Ok(())
}

fn open(kind: i32, place: SocketAddr) -> Result<OwnedFd> {
    let socket = sys::bound(kind, place)?;
    if kind == SOCK_STREAM {
        sys::listen(&socket)?;
    }
    if kind == SOCK_DGRAM && place.ip() == IpAddr::from(Ipv4Addr::UNSPECIFIED) {
        let group = [GROUP.octets(), zone::HOST.octets()].concat();
        let join = libc::IP_ADD_MEMBERSHIP;
        sys::set(&socket, libc::IPPROTO_IP, join, &group).context("the group")?;
    }
    Ok(socket)
}
