//! `probe hellos FILE FROM WIDTH TARGET`: says each first flight of a file on a connection of its
//! own, from a local port of its own, so that the receiver's log tells which of them arrived.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use libc::{AF_INET, SOCK_STREAM};
use nix::errno::Errno;

use super::{PORT, sys};
use crate::{
    hello::build::{Hello, SERVER_NAME, server_name},
    process::patient,
};

/// An answer, or the end of the connection, comes within this time.
const PATIENCE: Duration = Duration::from_millis(900);

/// A round trip over a long way, in microseconds: TCP sends no more than two segments at once.
pub const FAR: u64 = 10_000;

/// `tcpi_rtt` in the words of [`sys::tcp_info`].
const ROUND_TRIP: usize = 17;

/// Flights one behind the other, each after its length, four octets.
pub fn pack(flights: &[Vec<u8>]) -> Vec<u8> {
    let packed = flights.iter().flat_map(|flight| {
        let length = u32::try_from(flight.len())
            .unwrap_or_default()
            .to_be_bytes();
        length.into_iter().chain(flight.iter().copied())
    });
    packed.collect()
}

/// Prints `PORT answered|refused|silent` for each; the port is `from` and the flight's number.
pub(super) fn main(file: &str, from: u16, width: usize, target: SocketAddr) -> Result<()> {
    let packed = fs::read(file).context(file.to_owned())?;
    let mut flights = Vec::new();
    let mut rest = packed.as_slice();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        let (flight, behind) = behind.split_at(length);
        flights.push(flight);
        rest = behind;
    }
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..width {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(flight) = flights.get(index) else {
                        return;
                    };
                    let port = from + u16::try_from(index).unwrap_or_default();
                    match say(port, target, flight) {
                        Ok(word) => println!("{port} {word}"),
                        Err(error) => println!("{port} unsaid {error}"),
                    }
                }
            });
        }
    });
    println!("said {}", flights.len());
    Ok(())
}

/// `probe hello COUNT (TARGET NAME)…`: says each name to its target, in turns, so many times, and
/// prints for each connection the name, how it ended and how long the whole took, connect
/// included. Microseconds.
pub(super) fn in_turns(count: usize, pairs: &[&str]) -> Result<()> {
    for _ in 0..count {
        for pair in pairs.chunks(2) {
            let [target, name] = pair else {
                bail!("each target has a name");
            };
            let target: SocketAddr = target.parse()?;
            let hello = Hello::named(name).record();
            let start = Instant::now();
            let mut stream = TcpStream::connect(target)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(&hello)?;
            let word = match stream.read(&mut [0; 64]) {
                Ok(0) => "ended".to_owned(),
                Ok(_) => "answered".to_owned(),
                Err(error) => {
                    let errno = error.raw_os_error().map(Errno::from_raw);
                    errno.map_or_else(|| error.to_string(), |errno| format!("{errno:?}"))
                }
            };
            println!("{name} {word} {}", start.elapsed().as_micros());
        }
    }
    Ok(())
}

/// `probe far TARGET NAME LENGTH`: a hello of this length, its name at the end, to a target whose
/// answers wait behind echoes. Prints how it ended and the round trip in microseconds.
pub(super) fn far(target: SocketAddr, name: &str, length: usize) -> Result<()> {
    let mut tries = 0;
    let (socket, trip) = loop {
        let (socket, trip) = far_away(target)?;
        tries += 1;
        // A machine that stood still meanwhile has let the queue drain.
        if u64::from(trip) > FAR || tries == 50 {
            break (socket, trip);
        }
    };
    let list = server_name(&[(0, name.as_bytes())]);
    let hello = Hello::nameless().padded(length - list.len() - 4);
    let hello = hello.with(SERVER_NAME, list).record();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(&hello)?;
    match stream.read(&mut [0; 64]) {
        Ok(_) => println!("answered {trip}"),
        Err(error) => println!("{error} {trip}"),
    }
    Ok(())
}

/// A connection whose answers wait behind echoes, and its round trip in microseconds.
fn far_away(target: SocketAddr) -> Result<(OwnedFd, u32)> {
    let echoes = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for _ in 0..6 {
        echoes.send_to(&[0; 1400], (target.ip(), PORT))?;
    }
    // The first echo has gone on its way when it is here, and the others wait behind it.
    echoes.set_read_timeout(Some(patient(PATIENCE)))?;
    echoes.recv(&mut [0; 1500])?;
    let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
    sys::connect(&socket, &sys::address(target))?;
    let trip = sys::tcp_info(&socket)?[ROUND_TRIP];
    Ok((socket, trip))
}

fn say(port: u16, target: SocketAddr, flight: &[u8]) -> Result<&'static str> {
    let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
    let one = 1i32.to_ne_bytes();
    sys::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &one)?;
    sys::bind(&socket, &sys::address((Ipv4Addr::UNSPECIFIED, port)))?;
    sys::connect(&socket, &sys::address(target))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patient(PATIENCE)))?;
    stream.write_all(flight)?;
    Ok(match stream.read(&mut [0; 64]) {
        Ok(_) => "answered",
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
            "silent"
        }
        Err(_) => "refused",
    })
}
