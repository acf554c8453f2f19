//! Unix sockets of a helper outside. In the control run the listener is the program's own: that
//! has to keep working, and its token then goes to the declared address.

use std::{net::UdpSocket, thread, time::Duration};

use libc::{AF_UNIX, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};

use super::{
    Attempt, Job, Vector, accomplice,
    sys::{self, Message},
};

pub(super) const VECTORS: &[Vector] = &[
    Vector::new(
        "unix-stream",
        "a stream socket by its path, as of a container engine (CVE-2025-32955)",
        |job| connected(job, SOCK_STREAM, &path(job, "stream.sock")),
    )
    .controlled_since(6, 7),
    Vector::new("unix-seqpacket", "a seqpacket socket by its path", |job| {
        connected(job, SOCK_SEQPACKET, &path(job, "seqpacket.sock"))
    })
    .controlled_since(6, 7),
    Vector::new("unix-dgram", "a datagram socket, sendto", |job| {
        datagram(job, &path(job, "dgram.sock"))
    })
    .controlled_since(6, 7),
    Vector::new(
        "unix-dgram-connected",
        "a datagram socket, connected",
        |job| connected(job, SOCK_DGRAM, &path(job, "dgram.sock")),
    )
    .controlled_since(6, 7),
    Vector::new(
        "unix-dgram-sendmmsg",
        "a datagram socket, sendmmsg",
        |job| {
            let socket = sys::socket(AF_UNIX, SOCK_DGRAM, 0)?;
            let to = sys::unix_address(&path(job, "dgram.sock"));
            let message = Message {
                data: job.bytes(),
                to: &to,
                control: &[],
            };
            Ok(sys::send_many(&socket, &[message]).map(drop)?)
        },
    ),
    Vector::new(
        "unix-dgram-elsewhere",
        "another address on a datagram socket connected to an own one",
        |job| {
            let own = format!("@egress-own-{}", job.token);
            let receiver = sys::socket(AF_UNIX, SOCK_DGRAM, 0)?;
            sys::bind(&receiver, &sys::unix_address(&own))?;
            let socket = sys::socket(AF_UNIX, SOCK_DGRAM, 0)?;
            sys::connect(&socket, &sys::unix_address(&own))?;
            let to = sys::unix_address(&path(job, "dgram.sock"));
            Ok(sys::send(&socket, job.bytes(), 0, &to)?)
        },
    ),
    Vector::new("unix-abstract", "an abstract stream socket", |job| {
        connected(job, SOCK_STREAM, accomplice::ABSTRACT)
    })
    .controlled_since(6, 7),
    Vector::new(
        "unix-abstract-dgram",
        "an abstract datagram socket",
        |job| datagram(job, &format!("{}-dgram", accomplice::ABSTRACT)),
    )
    .controlled_since(6, 7),
    Vector::new("unix-symlink", "through a symbolic link", |job| {
        connected(job, SOCK_STREAM, &path(job, "link.sock"))
    }),
    Vector::new("unix-own-symlink", "through an own symbolic link", |job| {
        let own = format!("/tmp/{}.sock", job.token);
        std::os::unix::fs::symlink(path(job, "stream.sock"), &own)?;
        let attempt = connected(job, SOCK_STREAM, &own);
        drop(std::fs::remove_file(&own));
        attempt
    }),
    Vector::new("unix-hard-link", "through an own hard link", |job| {
        let (from, own) = (path(job, "stream.sock"), format!("{}.sock", job.token));
        let own = path(job, &format!("box/{own}"));
        match std::fs::hard_link(from, &own) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                return super::missing("fs.protected_hardlinks");
            }
            linked => linked?,
        }
        let attempt = connected(job, SOCK_STREAM, &own);
        drop(std::fs::remove_file(&own));
        attempt
    })
    .optional(),
    Vector::new("unix-relative", "by a relative path", |job| {
        std::env::set_current_dir(&job.stage)?;
        connected(job, SOCK_STREAM, "./box/../stream.sock")
    }),
    Vector::new("unix-proc-root", "through /proc/self/root", |job| {
        let path = path(job, "stream.sock");
        connected(job, SOCK_STREAM, &format!("/proc/self/root{path}"))
    }),
    Vector::new("unix-proc-fd", "through /proc/self/fd", |job| {
        use std::os::fd::AsRawFd as _;
        let folder = std::fs::File::open(&job.stage)?;
        let path = format!("/proc/self/fd/{}/stream.sock", folder.as_raw_fd());
        connected(job, SOCK_STREAM, &path)
    }),
    Vector::new(
        "unix-path-fd",
        "through a descriptor of the socket's file itself, O_PATH",
        |job| {
            use std::os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _};
            let mut options = std::fs::OpenOptions::new();
            options.read(true).custom_flags(libc::O_PATH);
            let file = options.open(path(job, "stream.sock"))?;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            connected(job, SOCK_STREAM, &path)
        },
    ),
    Vector::new(
        "unix-own-renamed",
        "an own socket whose path is then the helper's",
        |job| {
            let own = path(job, &format!("box/{}.own", job.token));
            let listener = sys::socket(AF_UNIX, SOCK_STREAM, 0)?;
            sys::bind(&listener, &sys::unix_address(&own))?;
            sys::listen(&listener)?;
            let first = sys::socket(AF_UNIX, SOCK_STREAM, 0)?;
            sys::connect(&first, &sys::unix_address(&own))?;
            std::fs::remove_file(&own)?;
            std::os::unix::fs::symlink(path(job, "stream.sock"), &own)?;
            let attempt = connected(job, SOCK_STREAM, &own);
            drop(std::fs::remove_file(&own));
            attempt
        },
    ),
];

fn path(job: &Job, name: &str) -> String {
    job.stage.join(name).display().to_string()
}

fn connected(job: &Job, kind: i32, name: &str) -> Attempt {
    if job.is_control() {
        return own(job, kind, true);
    }
    let socket = sys::socket(AF_UNIX, kind, 0)?;
    sys::connect(&socket, &sys::unix_address(name))?;
    sys::send(&socket, job.bytes(), 0, &[])?;
    thread::sleep(Duration::from_millis(50));
    Ok(())
}

fn datagram(job: &Job, name: &str) -> Attempt {
    if job.is_control() {
        return own(job, SOCK_DGRAM, false);
    }
    let socket = sys::socket(AF_UNIX, SOCK_DGRAM, 0)?;
    Ok(sys::send(
        &socket,
        job.bytes(),
        0,
        &sys::unix_address(name),
    )?)
}

/// The same between two sockets of this program; what arrives goes on to the declared address.
fn own(job: &Job, kind: i32, connect: bool) -> Attempt {
    let address = sys::unix_address(&format!("@egress-own-{}", job.token));
    let listener = sys::socket(AF_UNIX, kind, 0)?;
    sys::bind(&listener, &address)?;
    if kind != SOCK_DGRAM {
        sys::listen(&listener)?;
    }
    let socket = sys::socket(AF_UNIX, kind, 0)?;
    if connect {
        sys::connect(&socket, &address)?;
        sys::send(&socket, job.bytes(), 0, &[])?;
    } else {
        sys::send(&socket, job.bytes(), 0, &address)?;
    }
    let heard = if kind == SOCK_DGRAM {
        sys::receive(&listener)?
    } else {
        sys::receive(&sys::accept(&listener)?)?
    };
    UdpSocket::bind("0.0.0.0:0")?.send_to(&heard, job.permitted)?;
    Ok(())
}
