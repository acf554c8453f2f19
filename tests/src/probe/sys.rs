//! The system calls as they are, for what the standard library is too well-behaved to do.

use std::{
    net::{SocketAddr, SocketAddrV4},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nix::errno::Errno;

pub(super) const UDP_LITE: i32 = 136;
pub(super) const MPTCP: i32 = 262;

/// How long a blocking call may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A socket with send and receive time-outs, so that no vector hangs.
pub(super) fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: socket(2) takes three numbers and no memory.
    let fd = Errno::result(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel just made this descriptor and nothing else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let seconds = PATIENCE.as_secs().to_ne_bytes();
    let time = [seconds, [0; 8]].concat();
    set(&fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &time)?;
    set(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)?;
    Ok(fd)
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
    // SAFETY: listen(2) takes two numbers and no memory.
    Errno::result(unsafe { libc::listen(fd.as_raw_fd(), 8) }).map(drop)
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
