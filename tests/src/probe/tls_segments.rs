//! The hello by other calls: in pieces, at other times, as urgent data, with the SYN, on other
//! sockets, by other processes and threads.

use std::{
    io::{IoSlice, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    thread,
    time::Duration,
};

use libc::{AF_INET, IPPROTO_TCP, SOCK_STREAM};

use super::{
    Attempt, Job, Stop, Vector, sys,
    tls::{
        DECLARED, GAP, answer, hello, linger, name, open, open_to, place, sys_open, tell,
        token_place, vector,
    },
};
use crate::hello::build::{Hello, SERVER_NAME, server_name};

pub(super) const VECTORS: &[Vector] = &[
    vector("split-in-name", "two segments, cut in the name", |job| {
        let bytes = hello(job).record();
        let cut = token_place(&bytes, job) + 9;
        pieces(job, &[&bytes[..cut], &bytes[cut..]], GAP)
    })
    .controlled(),
    vector(
        "split-head",
        "the record's head alone, then the rest",
        |job| {
            let bytes = hello(job).record();
            pieces(job, &[&bytes[..5], &bytes[5..]], GAP)
        },
    )
    .controlled(),
    vector("split-first-octet", "one octet, then the rest", |job| {
        let bytes = hello(job).record();
        pieces(job, &[&bytes[..1], &bytes[1..]], GAP)
    })
    .controlled(),
    vector(
        "split-octets",
        "each octet in a segment of its own",
        |job| {
            let bytes = hello(job).record();
            let all: Vec<&[u8]> = bytes.chunks(1).collect();
            pieces(job, &all, Duration::ZERO)
        },
    )
    .controlled(),
    vector("split-slow", "the rest two seconds later", |job| {
        let bytes = hello(job).record();
        pieces(job, &[&bytes[..100], &bytes[100..]], Duration::from_secs(2))
    })
    .controlled(),
    vector(
        "split-slow-large",
        "a hello of many segments, its second half later",
        |job| {
            let list = server_name(&[(0, name(job).as_bytes())]);
            let hello = Hello::nameless().carrying(&job.token).padded(2_750);
            let bytes = hello.with(SERVER_NAME, list).record();
            pieces(
                job,
                &[&bytes[..1500], &bytes[1500..]],
                Duration::from_secs(1),
            )
        },
    )
    // Before, the kernel tries again with no more than a segment of it (tcp_write_wakeup()).
    .controlled_since(6, 10),
    vector(
        "declared-head",
        "the head of a declared hello, then all of a stranger's",
        |job| {
            let declared = Hello::named(DECLARED).record();
            pieces(job, &[&declared[..60], &hello(job).record()], GAP)
        },
    ),
    vector("cork", "corked, in pieces", |job| {
        let socket = sys_open(job)?;
        sys::set(&socket, IPPROTO_TCP, libc::TCP_CORK, &1i32.to_ne_bytes())?;
        for piece in hello(job).record().chunks(40) {
            sys::send(&socket, piece, 0, &[])?;
        }
        sys::set(&socket, IPPROTO_TCP, libc::TCP_CORK, &0i32.to_ne_bytes())?;
        linger(socket.into())
    })
    .controlled(),
    vector("more", "MSG_MORE, in pieces", |job| {
        let socket = sys_open(job)?;
        let bytes = hello(job).record();
        for piece in bytes[..bytes.len() - 1].chunks(40) {
            sys::send(&socket, piece, libc::MSG_MORE, &[])?;
        }
        sys::send(&socket, &bytes[bytes.len() - 1..], 0, &[])?;
        linger(socket.into())
    })
    .controlled(),
    vector("gathered", "writev of many small pieces", |job| {
        let mut stream = open(job)?;
        let bytes = hello(job).record();
        let parts: Vec<IoSlice<'_>> = bytes.chunks(7).map(IoSlice::new).collect();
        let written = stream.write_vectored(&parts)?;
        if written < bytes.len() {
            return Err(Stop::Refused("written in part".to_owned()));
        }
        linger(stream)
    })
    .controlled(),
    vector("small-segments", "TCP_MAXSEG 88", |job| {
        let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
        sys::set(&socket, IPPROTO_TCP, libc::TCP_MAXSEG, &88i32.to_ne_bytes())?;
        sys::connect(&socket, &sys::address(place(job)))?;
        tell(socket.into(), &hello(job).record())
    })
    .controlled(),
    vector("small-buffer", "the smallest send buffer", |job| {
        let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
        sys::set(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            &1i32.to_ne_bytes(),
        )?;
        sys::connect(&socket, &sys::address(place(job)))?;
        tell(socket.into(), &hello(job).padded(2_800).record())
    })
    .controlled(),
    vector("urgent", "urgent data at the end of the hello", |job| {
        let socket = sys_open(job)?;
        sys::send(&socket, &hello(job).record(), libc::MSG_OOB, &[])?;
        linger(socket.into())
    }),
    vector(
        "urgent-first",
        "an urgent octet, which servers take out, in front",
        |job| {
            let socket = sys_open(job)?;
            sys::send(&socket, b"x", libc::MSG_OOB, &[])?;
            sys::send(&socket, &hello(job).record(), 0, &[])?;
            linger(socket.into())
        },
    ),
    vector(
        "urgent-within",
        "a declared name that an urgent octet makes, taken out by the server",
        |job| {
            let mut bytes = Hello::named(format!("xx{DECLARED}"))
                .carrying(&job.token)
                .record();
            let place = bytes
                .windows(2)
                .position(|pair| pair == b"xx")
                .unwrap_or_default();
            bytes.remove(place);
            let socket = sys_open(job)?;
            sys::send(
                &socket,
                &bytes[..=place],
                libc::MSG_OOB | libc::MSG_MORE,
                &[],
            )?;
            sys::send(&socket, &bytes[place + 1..], 0, &[])?;
            linger(socket.into())
        },
    ),
    vector(
        "in-the-syn",
        "the hello in the first segment, by sendto",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            let to = sys::address(place(job));
            sys::send(&socket, &hello(job).record(), libc::MSG_FASTOPEN, &to)?;
            linger(socket.into())
        },
    ),
    vector(
        "in-the-syn-connect",
        "the same, by a connect that waits",
        |job| {
            // The second connection has the cookie that the first one asked for.
            for _ in 0..2 {
                let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
                let one = 1i32.to_ne_bytes();
                sys::set(&socket, IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &one)?;
                sys::connect(&socket, &sys::address(place(job)))?;
                sys::send(&socket, &hello(job).record(), 0, &[])?;
                linger(socket.into())?;
            }
            Ok(())
        },
    ),
    vector(
        "ip-options",
        "with IP options, which move everything",
        |job| {
            let socket = sys::socket(AF_INET, SOCK_STREAM, 0)?;
            sys::set(&socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &[1, 1, 1, 0])?;
            sys::connect(&socket, &sys::address(place(job)))?;
            tell(socket.into(), &hello(job).record())
        },
    ),
    vector("multipath", "multipath TCP", |job| {
        tell(
            open_to(AF_INET, place(job), sys::MPTCP)?,
            &hello(job).record(),
        )
    })
    .optional(),
    vector(
        "multipath-declared-first",
        "multipath TCP, a declared hello in front",
        |job| {
            let mut stream = open_to(AF_INET, place(job), sys::MPTCP)?;
            stream.write_all(&Hello::named(DECLARED).record())?;
            tell(stream, &hello(job).record())
        },
    )
    .optional(),
    vector("ulp", "under the kernel's TLS", |job| {
        const ULP: i32 = 31;
        let socket = sys_open(job)?;
        sys::set(&socket, IPPROTO_TCP, ULP, b"tls")?;
        tell(socket.into(), &hello(job).record())
    })
    .optional(),
    vector(
        "closing",
        "the last segment, with the program's end",
        |job| {
            let mut stream = open(job)?;
            stream.write_all(&hello(job).record())?;
            stream.shutdown(std::net::Shutdown::Write)?;
            drop(stream);
            Ok(())
        },
    )
    .controlled(),
    vector(
        "dissolved",
        "a checked connection, dissolved and connected again",
        |job| {
            let socket = sys_open(job)?;
            let mut stream = TcpStream::from(socket);
            stream.write_all(&Hello::named(DECLARED).record())?;
            answer(&mut stream)?;
            let socket = OwnedFd::from(stream);
            sys::connect(&socket, &sys::nowhere())?;
            sys::connect(&socket, &sys::address(place(job)))?;
            tell(socket.into(), &hello(job).record())
        },
    )
    .controlled(),
    vector("in-a-child", "a socket that a child speaks on", |job| {
        let stream = open(job)?;
        by_child(&stream, &hello(job).record())?;
        linger(stream)
    })
    .controlled(),
    vector(
        "two-processes",
        "two processes on one socket, a declared name and a stranger's",
        |job| {
            // Whoever comes first is looked at; the other one's hello must not count either.
            for _ in 0..10 {
                let mut stream = open(job)?;
                let mut second = stream.try_clone()?;
                let stranger = hello(job).record();
                thread::scope(|scope| {
                    scope.spawn(|| second.write_all(&stranger));
                    drop(stream.write_all(&Hello::named(DECLARED).record()));
                });
                drop(linger(stream));
            }
            Ok(())
        },
    ),
    vector("two-threads", "the hello in turns by two threads", |job| {
        let bytes = hello(job).record();
        let stream = open(job)?;
        stream.set_nodelay(true)?;
        let turn = std::sync::Mutex::new(0);
        thread::scope(|scope| {
            for own in 0..2 {
                let (turn, bytes, stream) = (&turn, &bytes, &stream);
                scope.spawn(move || {
                    loop {
                        let Ok(mut next) = turn.lock() else { return };
                        let Some(piece) = bytes.chunks(16).nth(*next) else {
                            return;
                        };
                        if *next % 2 == own {
                            drop((&*stream).write_all(piece));
                            *next += 1;
                        }
                    }
                });
            }
        });
        linger(stream)
    })
    .controlled(),
    vector(
        "left-behind",
        "a hello still queued when the program has ended",
        |job| {
            let socket = sys_open(job)?;
            for piece in hello(job).record().chunks(60) {
                sys::send(&socket, piece, libc::MSG_DONTWAIT, &[])?;
            }
            std::process::exit(0)
        },
    ),
];

fn pieces(job: &Job, pieces: &[&[u8]], gap: Duration) -> Attempt {
    let mut stream = open(job)?;
    stream.set_nodelay(true)?;
    for piece in pieces {
        stream.write_all(piece)?;
        thread::sleep(gap);
    }
    linger(stream)
}

/// Writes on a stream in a process of its own, which has it as its standard output.
fn by_child(stream: &TcpStream, bytes: &[u8]) -> Attempt {
    let octal: String = bytes.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let status = std::process::Command::new("/usr/bin/printf")
        .arg(octal)
        .stdout(OwnedFd::from(stream.try_clone()?))
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(Stop::Refused(status.to_string()))
}
