//! Streams.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    process::Stdio,
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use libc::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM};
use nix::errno::Errno;

use super::{
    Attempt, Job, Needs, Vector, listening,
    sys::{self, MPTCP, address},
};
use crate::process::patient;

const PATIENCE: Duration = Duration::from_secs(2);
/// The longest life of an orphan.
const ORPHAN: Duration = Duration::from_secs(4);

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("tcp4", "connect over IPv4", |job| {
        stream(job, AF_INET, job.target, 0)
    })
    .controlled(),
    Vector::new("tcp6", "connect over IPv6", |job| {
        stream(job, AF_INET6, job.target6, 0)
    })
    .controlled(),
    Vector::new("tcp-mapped", "IPv4 through an IPv6 socket", |job| {
        stream(job, AF_INET6, job.mapped(), 0)
    })
    .controlled(),
    Vector::new("tcp-std", "what a standard library does", std_stream).controlled(),
    Vector::new("mptcp4", "multipath TCP", |job| {
        stream(job, AF_INET, job.target, MPTCP)
    })
    .optional(),
    Vector::new("mptcp6", "multipath TCP over IPv6", |job| {
        stream(job, AF_INET6, job.target6, MPTCP)
    })
    .optional(),
    Vector::new(
        "tcp-fastopen",
        "data in the first segment, by sendto (landlock#41)",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            sys::send(
                &socket,
                job.bytes(),
                libc::MSG_FASTOPEN,
                &address(job.target),
            )?;
            linger(socket)
        },
    ),
    Vector::new(
        "tcp6-fastopen",
        "data in the first segment, by sendto, IPv6",
        |job| {
            let socket = sys::socket(AF_INET6, SOCK_STREAM, 0)?;
            sys::send(
                &socket,
                job.bytes(),
                libc::MSG_FASTOPEN,
                &address(job.target6),
            )?;
            linger(socket)
        },
    ),
    Vector::new(
        "tcp-mapped-fastopen",
        "the same, IPv4 through an IPv6 socket",
        |job| {
            let socket = sys::socket(AF_INET6, SOCK_STREAM, 0)?;
            sys::send(
                &socket,
                job.bytes(),
                libc::MSG_FASTOPEN,
                &address(job.mapped()),
            )?;
            linger(socket)
        },
    ),
    Vector::new(
        "tcp-fastopen-connect",
        "connect that waits for the first data",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            sys::set(
                &socket,
                IPPROTO_TCP,
                libc::TCP_FASTOPEN_CONNECT,
                &1i32.to_ne_bytes(),
            )?;
            sys::connect(&socket, &address(job.target))?;
            sys::send(&socket, job.bytes(), 0, &[])?;
            linger(socket)
        },
    ),
    Vector::new(
        "mptcp-fastopen",
        "data in the first segment of multipath TCP",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, MPTCP)?;
            sys::send(
                &socket,
                job.bytes(),
                libc::MSG_FASTOPEN,
                &address(job.target),
            )?;
            linger(socket)
        },
    )
    .optional(),
    Vector::new(
        "tcp-dissolve",
        "an approved socket, dissolved and connected again",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            sys::connect(&socket, &address(job.permitted))?;
            sys::connect(&socket, &sys::nowhere())?;
            sys::connect(&socket, &address(job.target))?;
            sys::send(&socket, job.bytes(), 0, &[])?;
            linger(socket)
        },
    )
    .controlled(),
    Vector::new(
        "tcp-flip",
        "a second thread changes the address while connect reads it",
        flip,
    ),
    Vector::new(
        "tcp-source-route",
        "loose source route through a declared hop",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            let mut route = vec![131, 7, 4];
            route.extend(job.permitted.ip().octets());
            route.push(0);
            sys::set(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &route)?;
            sys::connect(&socket, &address(job.target))?;
            sys::send(&socket, job.bytes(), 0, &[])?;
            linger(socket)
        },
    )
    .by_root(),
    Vector::new(
        "tcp-orphan",
        "a child that outlives its parent, in a session of its own",
        orphan,
    ),
    Vector::new(
        "accept-reply",
        "the answer to a stranger that called",
        |job| {
            let listener = TcpListener::bind("0.0.0.0:0")?;
            listening(listener.local_addr()?.port())?;
            answer(&listener, job)
        },
    )
    .with(Needs::TcpCall),
    Vector::new(
        "accept-reply-unbound",
        "the same, listening without bind",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            sys::listen(&socket)?;
            let listener = TcpListener::from(socket);
            listening(listener.local_addr()?.port())?;
            answer(&listener, job)
        },
    )
    .with(Needs::TcpCall),
    Vector::new(
        "tcp-other-port",
        "another port of the declared address (nono#1631)",
        |job| {
            let to = SocketAddr::from((*job.permitted.ip(), 8080));
            stream(job, AF_INET, to, 0)
        },
    ),
    Vector::new("tcp-dns-port", "port 53 of the declared address", |job| {
        stream(job, AF_INET, SocketAddr::from((*job.permitted.ip(), 53)), 0)
    })
    .optional(),
    Vector::new(
        "tcp-nonblocking",
        "connect that does not wait, the data behind it",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
            match sys::connect(&socket, &address(job.target)) {
                Ok(()) | Err(Errno::EINPROGRESS) => {}
                Err(error) => return Err(error.into()),
            }
            thread::sleep(Duration::from_millis(200));
            sys::send(&socket, job.bytes(), 0, &[])?;
            thread::sleep(Duration::from_millis(200));
            Ok(())
        },
    )
    .controlled(),
    Vector::new(
        "tcp-raw-calls",
        "the system calls themselves, no library between",
        |job| {
            let arguments = [AF_INET as usize, SOCK_STREAM as usize, 0];
            let socket = sys::call_fd(libc::SYS_socket, &arguments)?;
            let to = address(job.target);
            let fd = socket.as_raw_fd() as usize;
            sys::call(libc::SYS_connect, &[fd, to.as_ptr() as usize, to.len()])?;
            sys::write(socket.as_raw_fd(), job.bytes())?;
            linger(socket)
        },
    )
    .controlled(),
    Vector::new("tcp-sendfile", "sendfile instead of a write", |job| {
        let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
        sys::connect(&socket, &address(job.target))?;
        let file = memory_file(job)?;
        let (to, from) = (socket.as_raw_fd() as usize, file.as_raw_fd() as usize);
        sys::call(libc::SYS_sendfile, &[to, from, 0, job.bytes().len()])?;
        linger(socket)
    })
    .controlled(),
    Vector::new(
        "tcp-vmsplice",
        "vmsplice and splice instead of a write",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            sys::connect(&socket, &address(job.target))?;
            splice(job, socket.as_raw_fd())?;
            linger(socket)
        },
    )
    .controlled(),
    Vector::new("tcp-zerocopy", "MSG_ZEROCOPY", |job| {
        let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
        let one = 1i32.to_ne_bytes();
        sys::set(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &one)?;
        sys::connect(&socket, &address(job.target))?;
        sys::send(&socket, job.bytes(), libc::MSG_ZEROCOPY, &[])?;
        linger(socket)
    })
    .controlled(),
    Vector::new("tcp-more", "MSG_MORE, then the rest", |job| {
        let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
        sys::connect(&socket, &address(job.target))?;
        sys::send(&socket, job.bytes(), libc::MSG_MORE, &[])?;
        sys::send(&socket, b".", 0, &[])?;
        linger(socket)
    })
    .controlled(),
    Vector::new(
        "tcp-repair",
        "TCP_REPAIR: a connection that was never made",
        |job| {
            const REPAIR: i32 = 19;
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            sys::set(&socket, IPPROTO_TCP, REPAIR, &1i32.to_ne_bytes())?;
            sys::bind(&socket, &address((crate::zone::HOST, 0)))?;
            sys::connect(&socket, &address(job.target))?;
            // struct tcp_repair_window: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
            let window: Vec<u8> = [0_u32, 60_000, 60_000, 60_000, 0]
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect();
            sys::set(&socket, IPPROTO_TCP, 29, &window)?;
            // TCP_REPAIR_OFF_NO_WP: without a probe, whose answer would end it.
            sys::set(&socket, IPPROTO_TCP, REPAIR, &(-1i32).to_ne_bytes())?;
            sys::send(&socket, job.bytes(), 0, &[])?;
            thread::sleep(Duration::from_millis(200));
            Ok(())
        },
    )
    .by_root(),
    Vector::new(
        "tcp-simultaneous",
        "connect and a stranger's call at the same time, from a port that it knows",
        |job| {
            let one = 1i32.to_ne_bytes();
            let listener = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            for socket in [&listener, &socket] {
                sys::set(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &one)?;
                sys::set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, &one)?;
            }
            sys::bind(&listener, &address(([0, 0, 0, 0], 0)))?;
            let listener = TcpListener::from(listener);
            let port = listener.local_addr()?.port();
            sys::bind(&socket, &address(([0, 0, 0, 0], port)))?;
            listening(port)?;
            sys::connect(&socket, &address(job.target))?;
            sys::send(&socket, job.bytes(), 0, &[])?;
            linger(socket)
        },
    )
    .with(Needs::TcpCall),
    Vector::new(
        "accept-leftover",
        "an answer that is still queued when the program has ended",
        |job| {
            let listener = TcpListener::bind("0.0.0.0:0")?;
            listening(listener.local_addr()?.port())?;
            listener.set_nonblocking(true)?;
            let end = Instant::now() + patient(PATIENCE);
            while Instant::now() < end {
                if let Ok((mut stream, _)) = listener.accept() {
                    stream.write_all(job.bytes())?;
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(5));
            }
            Err(Errno::ETIMEDOUT.into())
        },
    )
    .with(Needs::TcpCall),
    Vector::new(
        "mptcp-subflow",
        "multipath TCP to the declared address, whose server announces the stranger's",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, MPTCP)?;
            let port = super::MULTIPATH_PORT;
            sys::connect(&socket, &address((*job.permitted.ip(), port)))?;
            let end = Instant::now() + Duration::from_millis(1500);
            while Instant::now() < end {
                sys::send(&socket, &job.bytes().repeat(4000), 0, &[])?;
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        },
    )
    .optional(),
];

fn stream(job: &Job, domain: i32, to: impl Into<SocketAddr>, protocol: i32) -> Attempt {
    let socket = sys::socket(domain, SOCK_STREAM, protocol)?;
    sys::connect(&socket, &address(to))?;
    sys::send(&socket, job.bytes(), 0, &[])?;
    linger(socket)
}

fn std_stream(job: &Job) -> Attempt {
    let mut stream = TcpStream::connect_timeout(&job.target.into(), patient(PATIENCE))?;
    stream.write_all(job.bytes())?;
    linger(stream.into())
}

/// Waits for the answer, so that the token is through before the socket closes.
fn linger(socket: OwnedFd) -> Attempt {
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(patient(PATIENCE)))?;
    let mut answer = [0; 64];
    stream.read(&mut answer).map(drop)?;
    Ok(())
}

fn answer(listener: &TcpListener, job: &Job) -> Attempt {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + patient(PATIENCE);
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.write_all(job.bytes())?;
                thread::sleep(Duration::from_millis(200));
                return Ok(());
            }
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The verdict has to be about the kernel's own copy of the address. Most tries reach neither
/// address in time; one that reaches the stranger is enough.
fn flip(job: &Job) -> Attempt {
    sys::flipping(job.permitted, job.target, |place| {
        for _ in 0..400 {
            let socket = sys::socket(AF_INET, SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
            match sys::connect_shared(&socket, place) {
                Ok(()) | Err(Errno::EINPROGRESS) => {}
                Err(_) => continue,
            }
            thread::sleep(Duration::from_millis(1));
            let _ = sys::send(&socket, job.bytes(), 0, &[]);
        }
        Ok(())
    })
}

fn orphan(job: &Job) -> Attempt {
    let program = std::env::current_exe()?;
    let kind = if job.is_control() {
        "permitted"
    } else {
        "forbidden"
    };
    let words = format!("tcp4 {kind} {}", job.token);
    // It holds the pipe until it has ended, and nobody else does.
    let script = format!("(setsid {} {words} 2>/dev/null &)", program.display());
    let mut shell = std::process::Command::new("/bin/sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pipe = shell.stdout.take();
    shell.wait()?;
    let (sender, ended) = channel();
    thread::spawn(move || {
        let read = pipe.as_mut().map(|pipe| pipe.read_to_end(&mut Vec::new()));
        drop(sender.send(read));
    });
    drop(ended.recv_timeout(patient(ORPHAN)));
    Ok(())
}

/// Connects and sends the token again and again, for [`super::main`]: a flow that lives.
/// Prints one word for each try.
pub(super) fn drip(target: SocketAddr, token: &str, seconds: u64) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let sent = TcpStream::connect_timeout(&target, Duration::from_millis(500))
            .and_then(|mut stream| stream.write_all(token.as_bytes()));
        println!("{}", if sent.is_ok() { "sent" } else { "refused" });
        std::io::stdout().flush()?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A file in memory with the token.
fn memory_file(job: &Job) -> Result<OwnedFd, Errno> {
    let file = sys::call_fd(libc::SYS_memfd_create, &[c"token".as_ptr() as usize, 0])?;
    sys::write(file.as_raw_fd(), job.bytes())?;
    sys::call(libc::SYS_lseek, &[file.as_raw_fd() as usize, 0, 0])?;
    Ok(file)
}

/// The token's own page, through a pipe.
pub(super) fn splice(job: &Job, to: i32) -> Attempt {
    let (reader, writer) = std::io::pipe()?;
    // The packet shares this page, and may be looked at when the program has ended: so it is a
    // page of its own that nothing else is ever written to.
    let page = sys::Memory::low(4096)?;
    page.write(0, job.bytes());
    let part = [page.start, job.bytes().len()];
    let arguments = [writer.as_raw_fd() as usize, sys::place(&part), 1, 0];
    sys::call(libc::SYS_vmsplice, &arguments)?;
    let from = reader.as_raw_fd() as usize;
    let arguments = [from, 0, to as usize, 0, job.bytes().len(), 0];
    sys::call(libc::SYS_splice, &arguments)?;
    Ok(())
}
