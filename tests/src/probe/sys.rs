//! The system calls as they are, for what the standard library is too well-behaved to do.

use std::{
    io,
    net::{SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nix::errno::Errno;

use crate::process::patient;

pub(super) const UDP_LITE: i32 = 136;
pub(super) const MPTCP: i32 = 262;

/// How long a blocking call may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A socket with send and receive time-outs, so that no vector hangs.
pub(super) fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    let fd = socket_plain(domain, kind, protocol)?;
    set_patience(&fd)?;
    Ok(fd)
}

/// Time-outs for a socket that somebody else made, as `accept(2)` does.
pub(super) fn set_patience(fd: &OwnedFd) -> Result<(), Errno> {
    let seconds = patient(PATIENCE).as_secs().to_ne_bytes();
    let time = [seconds, [0; 8]].concat();
    set(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &time)?;
    set(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)
}

/// A socket as it is.
pub(super) fn socket_plain(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: socket(2) takes three numbers and no memory.
    let fd = Errno::result(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// connect(2) with the bytes of an address.
pub(super) fn connect(fd: &OwnedFd, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: pointer and length are those of one live slice, which the kernel only reads.
    let result = unsafe {
        libc::connect(
            fd.as_raw_fd(),
            address.as_ptr().cast(),
            address.len() as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// The bytes of a `sockaddr_in` in memory that another thread changes meanwhile.
pub(super) type Shared = [AtomicU32; 4];

/// connect(2) with an address that may change while the kernel reads it.
pub(super) fn connect_shared(fd: &OwnedFd, address: &Shared) -> Result<(), Errno> {
    let length = size_of::<Shared>() as libc::socklen_t;
    // SAFETY: the 16 bytes live as long as the borrow; that they change while the kernel copies
    // them is what atomics permit, and the kernel copes with any value.
    let result = unsafe { libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), length) };
    Errno::result(result).map(drop)
}

/// sendto(2) with an address that may change while the kernel reads it.
pub(super) fn send_shared(fd: &OwnedFd, data: &[u8], address: &Shared) -> Result<(), Errno> {
    let length = size_of::<Shared>() as libc::socklen_t;
    let to = address.as_ptr().cast();
    // SAFETY: as in `connect_shared`; `data` is a live slice with its length.
    let result = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            0,
            to,
            length,
        )
    };
    Errno::result(result).map(drop)
}

/// sendto(2); an empty address is a null one.
pub(super) fn send(fd: &OwnedFd, data: &[u8], flags: i32, address: &[u8]) -> Result<(), Errno> {
    let to = if address.is_empty() {
        std::ptr::null()
    } else {
        address.as_ptr().cast()
    };
    let length = address.len() as libc::socklen_t;
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: both pointers are null with length 0 or those of live slices with their lengths;
    // the kernel only reads them.
    let result = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            flags,
            to,
            length,
        )
    };
    Errno::result(result).map(drop)
}

/// One message of [`send_many`].
pub(super) struct Message<'a> {
    pub(super) data: &'a [u8],
    /// Empty: none.
    pub(super) to: &'a [u8],
    /// Ready-made control messages; empty: none.
    pub(super) control: &'a [u8],
}

/// sendmmsg(2). Errors: the first message failed. How many were taken otherwise.
pub(super) fn send_many(fd: &OwnedFd, messages: &[Message<'_>]) -> Result<usize, Errno> {
    let mut parts: Vec<libc::iovec> = messages
        .iter()
        .map(|message| libc::iovec {
            iov_base: message.data.as_ptr().cast_mut().cast(),
            iov_len: message.data.len(),
        })
        .collect();
    let headers = messages.iter().zip(&mut parts).map(|(message, part)| {
        // SAFETY: msghdr is plain numbers and pointers, for which all zero means absent.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        if !message.to.is_empty() {
            header.msg_hdr.msg_name = message.to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = message.to.len() as libc::socklen_t;
        }
        if !message.control.is_empty() {
            header.msg_hdr.msg_control = message.control.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_controllen = message.control.len();
        }
        header
    });
    let mut headers: Vec<libc::mmsghdr> = headers.collect();
    let count = headers.len() as libc::c_uint;
    // SAFETY: `headers` holds `count` records whose pointers lead into `parts` and `messages`,
    // all alive here; the kernel writes only the msg_len fields of `headers`.
    let sent = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_NOSIGNAL,
        )
    };
    Errno::result(sent).map(|sent| sent.unsigned_abs() as usize)
}

/// setsockopt(2) with the bytes of a value.
pub(super) fn set(fd: &OwnedFd, level: i32, option: i32, value: &[u8]) -> Result<(), Errno> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: pointer and length are those of one live slice, which the kernel only reads.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value.as_ptr().cast(), length) };
    Errno::result(result).map(drop)
}

/// listen(2), also on a socket that nobody bound.
pub(super) fn listen(fd: &OwnedFd) -> Result<(), Errno> {
    listen_for(fd, 8)
}

/// The same, with room for so many callers.
pub(super) fn listen_for(fd: &OwnedFd, callers: i32) -> Result<(), Errno> {
    // SAFETY: listen(2) takes two numbers and no memory.
    Errno::result(unsafe { libc::listen(fd.as_raw_fd(), callers) }).map(drop)
}

/// A socket that may share its place with connections that were there before, bound to it.
pub(super) fn bound(kind: i32, place: SocketAddr) -> Result<OwnedFd, Errno> {
    let domain = if place.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let socket = socket(domain, kind, 0)?;
    set(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_REUSEADDR,
        &1i32.to_ne_bytes(),
    )?;
    bind(&socket, &address(place))?;
    Ok(socket)
}

/// Where a socket of IPv4 or IPv6 is bound.
pub(super) fn place_of(fd: &OwnedFd) -> io::Result<SocketAddr> {
    // What is asked is the same for each kind of socket.
    UdpSocket::from(fd.try_clone()?).local_addr()
}

/// The bytes of a `sockaddr_in` or `sockaddr_in6`.
pub(super) fn address(to: impl Into<SocketAddr>) -> Vec<u8> {
    match to.into() {
        SocketAddr::V4(to) => {
            let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
            bytes.extend(to.port().to_be_bytes());
            bytes.extend(to.ip().octets());
            bytes.extend([0; 8]);
            bytes
        }
        SocketAddr::V6(to) => {
            let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
            bytes.extend(to.port().to_be_bytes());
            bytes.extend(to.flowinfo().to_be_bytes());
            bytes.extend(to.ip().octets());
            bytes.extend(to.scope_id().to_ne_bytes());
            bytes
        }
    }
}

/// The same bytes under another family.
pub(super) fn under_family(mut address: Vec<u8>, family: i32) -> Vec<u8> {
    address[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    address
}

/// `AF_UNSPEC`: dissolves an association.
pub(super) fn nowhere() -> Vec<u8> {
    vec![0; 16]
}

/// One control message, cmsg(3), on a 64-bit machine.
pub(super) fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + data.len()).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// An address that [`flipping`] changes.
pub(super) fn shared(to: SocketAddrV4) -> Shared {
    let bytes = address(to);
    let word = |index: usize| {
        let bytes = [
            bytes[index],
            bytes[index + 1],
            bytes[index + 2],
            bytes[index + 3],
        ];
        AtomicU32::new(u32::from_ne_bytes(bytes))
    };
    [word(0), word(4), word(8), word(12)]
}

/// Runs `work` while another thread writes the two addresses in turn.
pub(super) fn flipping<T>(
    one: SocketAddrV4,
    other: SocketAddrV4,
    work: impl FnOnce(&Shared) -> T,
) -> T {
    let words = [one, other].map(|to| u32::from_ne_bytes(to.ip().octets()));
    let (place, over) = (shared(one), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !over.load(Ordering::Relaxed) {
                turn ^= 1;
                place[1].store(words[turn], Ordering::Relaxed);
            }
        });
        let result = work(&place);
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// Any system call. Whoever passes an address keeps the memory behind it alive through the call,
/// and the kernel writes only where the call is meant to write.
pub(super) fn call(number: libc::c_long, arguments: &[usize]) -> Result<usize, Errno> {
    let mut all = [0; 6];
    for (place, argument) in all.iter_mut().zip(arguments) {
        *place = *argument;
    }
    let [a, b, c, d, e, f] = all;
    // SAFETY: the contract above; this crate is a set of attacks on a boundary, and the numbers
    // it passes are checked by the kernel.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    Errno::result(result).map(|result| result as usize)
}

/// The same, for calls that make a descriptor.
pub(super) fn call_fd(number: libc::c_long, arguments: &[usize]) -> Result<OwnedFd, Errno> {
    let fd = call(number, arguments)?;
    // SAFETY: the kernel just made this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The address of a value, as [`call`] takes it.
pub(super) fn place<T: ?Sized>(value: &T) -> usize {
    (&raw const *value).cast::<u8>() as usize
}

/// The same, of one that the kernel may write.
pub(super) fn place_mut<T: ?Sized>(value: &mut T) -> usize {
    (&raw mut *value).cast::<u8>() as usize
}

/// Shared memory of a descriptor, mmap(2), for as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) start: usize,
    pub(super) length: usize,
}

impl Memory {
    pub(super) fn of(fd: &OwnedFd, length: usize, offset: usize) -> Result<Self, Errno> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self::map(length, flags, fd.as_raw_fd(), offset)
    }

    /// Fresh memory, below 4 GiB where a 32-bit call must find it.
    pub(super) fn low(length: usize) -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        Self::map(length, flags, -1, 0)
    }

    fn map(length: usize, flags: i32, fd: i32, offset: usize) -> Result<Self, Errno> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let start = call(
            libc::SYS_mmap,
            &[
                0,
                length,
                access as usize,
                flags as usize,
                fd as usize,
                offset,
            ],
        )?;
        Ok(Self { start, length })
    }

    /// The word at an offset, shared with the kernel.
    pub(super) fn word(&self, offset: usize) -> &'static AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length);
        // SAFETY: inside the mapping, which is never unmapped, and aligned; atomics may be
        // changed by others.
        unsafe { AtomicU32::from_ptr((self.start + offset) as *mut u32) }
    }

    pub(super) fn write(&self, offset: usize, data: &[u8]) {
        assert!(offset + data.len() <= self.length);
        let to = (self.start + offset) as *mut u8;
        // SAFETY: inside the mapping, which is never unmapped; `data` is no part of it.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) }
    }

    pub(super) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        assert!(offset + length <= self.length);
        let from = (self.start + offset) as *const u8;
        let byte = |index| {
            // SAFETY: inside the mapping, which is never unmapped; others may write it, so every
            // byte is read once, as it is.
            unsafe { from.add(index).read_volatile() }
        };
        (0..length).map(byte).collect()
    }
}

/// The bytes of a `sockaddr_un`: a path, or an abstract name behind `@`.
pub(super) fn unix_address(name: &str) -> Vec<u8> {
    let mut bytes = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
    match name.strip_prefix('@') {
        Some(name) => {
            bytes.push(0);
            bytes.extend(name.as_bytes());
        }
        None => {
            bytes.extend(name.as_bytes());
            bytes.push(0);
        }
    }
    bytes
}

/// bind(2) with the bytes of an address.
pub(super) fn bind(fd: &OwnedFd, address: &[u8]) -> Result<(), Errno> {
    let arguments = [
        fd.as_raw_fd() as usize,
        address.as_ptr() as usize,
        address.len(),
    ];
    call(libc::SYS_bind, &arguments).map(drop)
}

/// accept(2)
pub(super) fn accept(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    call_fd(libc::SYS_accept4, &[fd.as_raw_fd() as usize, 0, 0, 0])
}

/// recv(2)
pub(super) fn receive(fd: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 4096];
    let arguments = [
        fd.as_raw_fd() as usize,
        buffer.as_mut_ptr() as usize,
        buffer.len(),
        0,
    ];
    let length = call(libc::SYS_recvfrom, &arguments)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// write(2)
pub(super) fn write(fd: i32, data: &[u8]) -> Result<(), Errno> {
    call(
        libc::SYS_write,
        &[fd as usize, data.as_ptr() as usize, data.len()],
    )
    .map(drop)
}

/// The beginning of `struct tcp_info`, in words (`include/uapi/linux/tcp.h`).
pub(super) fn tcp_info(socket: &OwnedFd) -> Result<[u32; 26], Errno> {
    let mut info = [0; 26];
    let mut length = size_of_val(&info);
    let arguments = [
        socket.as_raw_fd() as usize,
        libc::IPPROTO_TCP as usize,
        libc::TCP_INFO as usize,
        place_mut(&mut info),
        place_mut(&mut length),
    ];
    call(libc::SYS_getsockopt, &arguments)?;
    Ok(info)
}

/// The index of an interface.
pub(super) fn interface(name: &str) -> Result<u32, Errno> {
    nix::net::if_::if_nametoindex(name)
}

/// Major and minor number of this kernel; 0.0 where it does not say.
pub(super) fn kernel() -> (u32, u32) {
    let name = nix::sys::utsname::uname().ok();
    let release = name.map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|text| text.parse().ok());
    (number().unwrap_or(0), number().unwrap_or(0))
}

/// Whether Landlock is there, landlock_create_ruleset(2): Linux 5.13, where it is enabled.
pub(crate) fn has_landlock() -> bool {
    /// `LANDLOCK_CREATE_RULESET_VERSION`
    const VERSION: usize = 1;
    call(libc::SYS_landlock_create_ruleset, &[0, 0, VERSION]).is_ok()
}
