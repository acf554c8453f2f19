//! The process inside a lane: it does the jobs and measures them itself, so that starting and
//! talking to it cost nothing that is counted.

use std::{
    fs,
    io::{self, BufRead, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
    },
    time::{ClockId, clock_gettime},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};

use super::{
    job::{Answer, Done, Job, burst_target},
    peers::client,
};
use crate::{
    hello::build::{APPLICATION_DATA, Hello, record},
    world::USER,
};

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK: usize = 64 << 10;

/// Joins the cgroup and becomes the user that connectors run as, where a cgroup is given (a
/// connector of the agent is there already), then does jobs until standard input ends.
pub(super) fn main(cgroup: Option<&str>) -> Result<()> {
    if let Some(folder) = cgroup {
        fs::write(format!("{folder}/cgroup.procs"), "0").context("cannot join the cgroup")?;
        setgroups(&[])?;
        setgid(Gid::from_raw(USER))?;
        setuid(Uid::from_raw(USER))?;
    }
    say(&std::process::id().to_string())?;
    for line in io::stdin().lock().lines() {
        let answer: Answer = serde_json::from_str(&line?)
            .context("job")
            .and_then(|job| work(&job))
            .map_err(|error| format!("{error:#}"));
        say(&serde_json::to_string(&answer)?)?;
    }
    Ok(())
}

/// Connects once, as soon as it runs, and prints the boot clock after that.
pub(super) fn first(to: SocketAddr) -> Result<()> {
    let _open = TcpStream::connect(to)?;
    say(&boot_ns()?.to_string())
}

/// The clock that every process of this host shares. Nanoseconds.
pub(super) fn boot_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    Ok(u64::try_from(Duration::from(now).as_nanos())?)
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

fn work(job: &Job) -> Result<Done> {
    match *job {
        Job::Connect { to, count } => connects(to, count),
        Job::Stream {
            to,
            count,
            size,
            ref name,
        } => stream(to, count, size, name.as_deref()),
        Job::Bulk { to, bytes } => bulk(to, bytes),
        Job::Exchange { to, count, size } => exchange(to, count, size),
        Job::Datagrams {
            to,
            count,
            size,
            connected,
        } => datagrams(to, count, size, connected),
        Job::Ask {
            server,
            ref name,
            count,
        } => ask(server, name, count),
        Job::Denied {
            ip,
            first,
            count,
            pause,
        } => denied(count, pause, |n| SocketAddr::new(ip, first + n)),
        Job::Burst { count } => burst(count),
        Job::Errand {
            ref way,
            ref errand,
        } => client::work(way, errand),
    }
}

fn connects(to: SocketAddr, count: u32) -> Result<Done> {
    // A reset leaves no port in TIME_WAIT, so any number of rounds can follow.
    let reset = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let address = SockaddrStorage::from(to);
    timed(count, || {
        let socket = tcp_socket(to)?;
        connect(socket.as_raw_fd(), &address).context("connect")?;
        Ok(setsockopt(&socket, sockopt::Linger, &reset)?)
    })
}

fn stream(to: SocketAddr, count: u32, size: usize, name: Option<&str>) -> Result<Done> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let mut message = vec![b'.'; size];
    if let Some(name) = name {
        stream.write_all(&Hello::named(name).record())?;
        message = record(APPLICATION_DATA, &vec![b'.'; size.saturating_sub(5)]);
    }
    timed(count, || Ok(stream.write_all(&message)?))
}

fn bulk(to: SocketAddr, bytes: u64) -> Result<Done> {
    let mut stream = TcpStream::connect(to)?;
    let chunk = vec![b'.'; CHUNK];
    let start = Instant::now();
    for _ in 0..bytes.div_ceil(CHUNK as u64) {
        stream.write_all(&chunk)?;
    }
    // The server's end of file says that it has read everything.
    stream.shutdown(Shutdown::Write)?;
    let _nothing = stream.read(&mut [0; 1])?;
    done(start)
}

fn exchange(to: SocketAddr, count: u32, size: usize) -> Result<Done> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let message = vec![b'.'; size];
    let mut echo = vec![0; size];
    timed(count, || {
        stream.write_all(&message)?;
        Ok(stream.read_exact(&mut echo)?)
    })
}

fn datagrams(to: SocketAddr, count: u32, size: usize, connected: bool) -> Result<Done> {
    let socket = udp_socket(to)?;
    let message = vec![b'.'; size];
    if connected {
        socket.connect(to)?;
        return timed(count, || Ok(socket.send(&message).map(drop)?));
    }
    timed(count, || Ok(socket.send_to(&message, to).map(drop)?))
}

fn ask(server: SocketAddr, name: &str, count: u32) -> Result<Done> {
    let mut done = Done::default();
    for number in 0..count {
        let id = (number as u16).to_be_bytes();
        let query = query(id, name);
        let start = Instant::now();
        let socket = udp_socket(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(server)?;
        socket.send(&query)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).context("no answer")?;
        let took = nanos(start.elapsed())?;
        let header = answer.get(..length.min(12)).unwrap_or_default();
        // RFC 1035 section 4.1.1: identifier, flags with the response code, counts.
        match header {
            [a, b, _, flags, _, _, high, low, ..] if [*a, *b] == id && flags & 15 == 0 => {
                ensure!([*high, *low] != [0, 0], "{name} has no address");
            }
            _ => bail!("{name}: not the answer: {header:?}"),
        }
        done.each.push(took);
        done.total += took;
    }
    Ok(done)
}

/// A question for the IPv4 address of a name, RFC 1035 section 4.1.
fn query(id: [u8; 2], name: &str) -> Vec<u8> {
    let mut query = id.to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn denied(count: u16, pause: Duration, target: impl Fn(u16) -> SocketAddr) -> Result<Done> {
    let start = Instant::now();
    let mut each = Vec::new();
    for n in 0..count {
        thread::sleep(pause);
        let to = target(n);
        let (address, socket) = (SockaddrStorage::from(to), tcp_socket(to)?);
        let now = boot_ns()?;
        let result = connect(socket.as_raw_fd(), &address);
        ensure!(result == Err(Errno::EPERM), "not refused: {to}: {result:?}");
        each.push(now);
    }
    Ok(Done {
        total: nanos(start.elapsed())?,
        each,
    })
}

fn burst(count: u32) -> Result<Done> {
    let mut slowest = Duration::ZERO;
    let mut next = 0;
    let mut done = timed(count, || {
        let to = SocketAddr::from(burst_target(next));
        next += 1;
        let start = Instant::now();
        let result = connect(tcp_socket(to)?.as_raw_fd(), &SockaddrStorage::from(to));
        slowest = slowest.max(start.elapsed());
        ensure!(result == Err(Errno::EPERM), "not refused: {to}: {result:?}");
        Ok(())
    })?;
    done.each = vec![nanos(slowest)?];
    Ok(done)
}

fn tcp_socket(to: SocketAddr) -> Result<OwnedFd> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let kind = SockType::Stream;
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None).context("socket")
}

fn udp_socket(to: SocketAddr) -> Result<UdpSocket> {
    let any = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    Ok(UdpSocket::bind(any)?)
}

pub(super) fn timed(count: u32, mut once: impl FnMut() -> Result<()>) -> Result<Done> {
    let start = Instant::now();
    for _ in 0..count {
        once()?;
    }
    done(start)
}

pub(super) fn done(start: Instant) -> Result<Done> {
    Ok(Done {
        total: nanos(start.elapsed())?,
        each: Vec::new(),
    })
}

fn nanos(duration: Duration) -> Result<u64> {
    Ok(u64::try_from(duration.as_nanos())?)
}
