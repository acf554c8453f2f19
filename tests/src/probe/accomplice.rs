//! Who waits outside: helpers on the same host that pass on whatever a confined program manages
//! to tell them. What each hears it sends to the stranger, where the receivers see it.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use libc::{AF_UNIX, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
use nix::errno::Errno;

use super::{MULTIPATH_PORT, PORT, local, squatter, sys};
use crate::{token, zone};

const NAP: Duration = Duration::from_millis(30);
/// The second interface of the host, and the far end of its wire.
pub(super) const DETOUR: &str = "up1";
const DETOUR_END: &str = "up1x";

/// A name of the abstract namespace that the helper of every network namespace has.
pub(super) const ABSTRACT: &str = "@egress-bypass-suite";

/// Where the host's stub resolver is, as systemd-resolved has it.
pub(super) const STUB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 53), 53);
/// A resolver of somebody else's.
pub(super) const RESOLVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 18053);

/// A number that belongs to one stage: keys of System V objects, a netlink port.
pub(super) fn number(stage: &Path) -> u32 {
    let bytes = stage.as_os_str().as_encoded_bytes();
    let sum = bytes.iter().fold(0x811c_9dc5_u32, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    sum & 0x00ff_ffff | 0x0100_0000
}

/// The message queue of a stage, mq_overview(7).
pub(super) fn queue(stage: &Path) -> String {
    format!("egress-suite-{:x}", number(stage))
}

/// Passes on every token in the data.
pub(super) fn deliver(data: &[u8]) {
    let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) else {
        return;
    };
    for token in token::find(data) {
        drop(socket.send_to(token.as_bytes(), (zone::STRANGER, PORT)));
    }
}

/// Opens every ear, says `ready`, and ends with its standard input.
pub(super) fn stand_by(stage: &Path) -> Result<()> {
    // SAFETY: umask(2) takes a number and cannot fail.
    unsafe { libc::umask(0) };
    unix(stage)?;
    files(stage)?;
    system_v(stage)?;
    posix_queue(stage)?;
    netlink(stage)?;
    detour();
    resolvers()?;
    caller(stage.join("inherited.sock"));
    local::listen()?;
    println!("ready");
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    remove_system_v(stage);
    let name = format!("{}\0", queue(stage));
    // Where it is gone already, so much the better.
    let _ = sys::call(libc::SYS_mq_unlink, &[name.as_ptr() as usize]);
    Ok(())
}

fn listen(kind: i32, name: &str) -> Result<OwnedFd> {
    let socket = sys::socket(AF_UNIX, kind, 0)?;
    sys::set(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &[0; 16])?;
    sys::bind(&socket, &sys::unix_address(name)).with_context(|| name.to_owned())?;
    if kind != SOCK_DGRAM {
        sys::listen(&socket)?;
    }
    Ok(socket)
}

fn unix(stage: &Path) -> Result<()> {
    let path = |name: &str| stage.join(name).display().to_string();
    let streams = [
        (SOCK_STREAM, path("stream.sock")),
        (SOCK_SEQPACKET, path("seqpacket.sock")),
        (SOCK_STREAM, ABSTRACT.to_owned()),
    ];
    for (kind, name) in streams {
        let listener = listen(kind, &name)?;
        thread::spawn(move || {
            while let Ok(peer) = sys::accept(&listener) {
                thread::spawn(move || {
                    while let Ok(data) = sys::receive(&peer)
                        && !data.is_empty()
                    {
                        deliver(&data);
                    }
                });
            }
        });
    }
    for name in [path("dgram.sock"), format!("{ABSTRACT}-dgram")] {
        let socket = listen(SOCK_DGRAM, &name)?;
        thread::spawn(move || {
            while let Ok(data) = sys::receive(&socket) {
                deliver(&data);
            }
        });
    }
    std::os::unix::fs::symlink("stream.sock", stage.join("link.sock"))?;
    giver(&path("giver.sock"))
}

/// Gives everybody who connects a connection to the stranger, and passes on what it hears.
fn giver(name: &str) -> Result<()> {
    let listener = listen(SOCK_STREAM, name)?;
    thread::spawn(move || {
        while let Ok(peer) = sys::accept(&listener) {
            thread::spawn(move || -> Result<()> {
                let out = TcpStream::connect((zone::STRANGER, PORT))?;
                let rights = sys::control(
                    libc::SOL_SOCKET,
                    libc::SCM_RIGHTS,
                    &out.as_raw_fd().to_ne_bytes(),
                );
                let message = sys::Message {
                    data: b".",
                    to: &[],
                    control: &rights,
                };
                sys::send_many(&peer, &[message])?;
                loop {
                    let data = sys::receive(&peer)?;
                    if data.is_empty() {
                        return Ok(());
                    }
                    deliver(&data);
                }
            });
        }
    });
    Ok(())
}

/// Calls a listener that the confined program inherited.
fn caller(path: PathBuf) {
    thread::spawn(move || {
        loop {
            thread::sleep(NAP * 5);
            let Ok(mut stream) = UnixStream::connect(&path) else {
                continue;
            };
            thread::spawn(move || {
                let mut data = vec![0; 256];
                drop(stream.set_read_timeout(Some(Duration::from_secs(2))));
                if let Ok(length) = stream.read(&mut data) {
                    deliver(&data[..length]);
                }
            });
        }
    });
}

/// A FIFO, and a folder where anybody may leave a file.
fn files(stage: &Path) -> Result<()> {
    let fifo = stage.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    thread::spawn(move || {
        // Open both ways, so that it never sees an end.
        let Ok(mut pipe) = fs::File::options().read(true).write(true).open(&fifo) else {
            return;
        };
        let mut buffer = vec![0; 4096];
        while let Ok(length) = pipe.read(&mut buffer) {
            deliver(&buffer[..length]);
        }
    });
    let folder = stage.join("box");
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    thread::spawn(move || {
        let mut asked = HashSet::new();
        loop {
            thread::sleep(NAP);
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let Ok(data) = fs::read(entry.path()) else {
                    continue;
                };
                if let Some(place) = data.strip_prefix(squatter::REQUEST.as_bytes()) {
                    if asked.insert(entry.path()) {
                        squatter::start(&String::from_utf8_lossy(place), entry.path());
                    }
                } else if !data.is_empty() {
                    deliver(&data);
                    drop(fs::remove_file(entry.path()));
                }
            }
        }
    });
    Ok(())
}

const CREATE: usize = 0o1000 | 0o666;
/// Size of the shared memory. Bytes.
pub(super) const SEGMENT: usize = 4096;

fn system_v(stage: &Path) -> Result<()> {
    let key = number(stage) as usize;
    let queue = sys::call(libc::SYS_msgget, &[key, CREATE]).context("msgget")?;
    thread::spawn(move || {
        loop {
            let mut message = vec![0_u8; 264];
            let arguments = [queue, message.as_mut_ptr() as usize, 256, 0, 0];
            match sys::call(libc::SYS_msgrcv, &arguments) {
                Ok(length) => deliver(&message[8..8 + length]),
                Err(_) => return,
            }
        }
    });
    let id = sys::call(libc::SYS_shmget, &[key, SEGMENT, CREATE]).context("shmget")?;
    let start = sys::call(libc::SYS_shmat, &[id, 0, 0]).context("shmat")?;
    let memory = sys::Memory {
        start,
        length: SEGMENT,
    };
    thread::spawn(move || {
        loop {
            thread::sleep(NAP);
            let data = memory.read(0, 64);
            if !token::find(&data).is_empty() {
                deliver(&data);
                memory.write(0, &[0; 64]);
            }
        }
    });
    Ok(())
}

fn remove_system_v(stage: &Path) {
    let key = number(stage) as usize;
    if let Ok(id) = sys::call(libc::SYS_msgget, &[key, 0]) {
        let _ = sys::call(libc::SYS_msgctl, &[id, libc::IPC_RMID as usize, 0]);
    }
    if let Ok(id) = sys::call(libc::SYS_shmget, &[key, 0, 0]) {
        let _ = sys::call(libc::SYS_shmctl, &[id, libc::IPC_RMID as usize, 0]);
    }
}

fn posix_queue(stage: &Path) -> Result<()> {
    let name = format!("{}\0", queue(stage));
    // struct mq_attr: flags, maxmsg, msgsize, curmsgs, four reserved.
    let attributes: [libc::c_long; 8] = [0, 8, 256, 0, 0, 0, 0, 0];
    let flags = (libc::O_CREAT | libc::O_RDWR) as usize;
    let arguments = [
        name.as_ptr() as usize,
        flags,
        0o666,
        sys::place(&attributes),
    ];
    let queue = sys::call_fd(libc::SYS_mq_open, &arguments).context("mq_open")?;
    thread::spawn(move || {
        loop {
            let mut data = vec![0_u8; 256];
            let arguments = [
                queue.as_raw_fd() as usize,
                data.as_mut_ptr() as usize,
                data.len(),
                0,
                0,
            ];
            match sys::call(libc::SYS_mq_timedreceive, &arguments) {
                Ok(_) => deliver(&data),
                Err(_) => return,
            }
        }
    });
    Ok(())
}

/// The bytes of a `sockaddr_nl`.
pub(super) fn netlink_address(port: u32) -> Vec<u8> {
    let mut bytes = (libc::AF_NETLINK as u16).to_ne_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(port.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

fn netlink(stage: &Path) -> Result<()> {
    let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_USERSOCK)?;
    sys::set(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &[0; 16])?;
    sys::bind(&socket, &netlink_address(number(stage))).context("netlink")?;
    thread::spawn(move || {
        while let Ok(data) = sys::receive(&socket) {
            deliver(&data);
        }
    });
    Ok(())
}

/// Somebody else's resolvers on this host: the stub that distributions have on port 53, and one on
/// a port of its own. They look up whatever they are asked.
fn resolvers() -> Result<()> {
    for place in [STUB, RESOLVER] {
        let listener = TcpListener::bind(place).with_context(|| place.to_string())?;
        let datagrams = UdpSocket::bind(place)?;
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut data = vec![0; 512];
                    drop(stream.set_read_timeout(Some(Duration::from_secs(2))));
                    if let Ok(length) = stream.read(&mut data) {
                        deliver(&data[..length]);
                    }
                });
            }
        });
        thread::spawn(move || {
            let mut data = vec![0; 512];
            while let Ok((length, _)) = datagrams.recv_from(&mut data) {
                deliver(&data[..length]);
            }
        });
    }
    Ok(())
}

/// Whoever claims the permitted addresses on the second wire.
fn detour() {
    let open = || -> Result<OwnedFd, Errno> {
        let every = 0x0300; // ETH_P_ALL, in network order
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, every)?;
        sys::set(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &[0; 16])?;
        let mut address = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
        address.extend(0x0300_u16.to_ne_bytes());
        address.extend(sys::interface(DETOUR_END)?.to_ne_bytes());
        address.extend([0; 12]);
        sys::bind(&socket, &address)?;
        Ok(socket)
    };
    match open() {
        Err(error) => eprintln!("no second wire: {error}"),
        Ok(socket) => drop(thread::spawn(move || {
            while let Ok(frame) = sys::receive(&socket) {
                deliver(&frame);
            }
        })),
    }
}

/// A server of multipath TCP, for the internet's side. The kernel announces the addresses of
/// its `signal` endpoints to whoever connects. Kernels built without multipath TCP (Debian's
/// 5.10) have nobody to serve, and vectors that need it say so.
pub(super) fn serve_multipath() -> Result<()> {
    match sys::socket(libc::AF_INET, SOCK_STREAM, sys::MPTCP) {
        // It stays, as the others do: who starts it waits for its first line, and takes one
        // that has ended for one that failed.
        Err(Errno::EPROTONOSUPPORT | Errno::ENOPROTOOPT) => {
            println!("this kernel has no multipath TCP");
        }
        socket => {
            listen_multipath(socket?)?;
            println!("ready");
        }
    }
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Takes every caller and whatever it sends.
fn listen_multipath(socket: OwnedFd) -> Result<()> {
    sys::set(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &[0; 16])?;
    let one = 1i32.to_ne_bytes();
    sys::set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &one)?;
    sys::bind(
        &socket,
        &sys::address((Ipv4Addr::UNSPECIFIED, MULTIPATH_PORT)),
    )?;
    sys::listen(&socket)?;
    thread::spawn(move || {
        while let Ok(peer) = sys::accept(&socket) {
            thread::spawn(move || while sys::receive(&peer).is_ok_and(|data| !data.is_empty()) {});
        }
    });
    Ok(())
}
