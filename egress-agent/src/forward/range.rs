//! The loopback addresses of one instance.

use std::{
    fs::{File, OpenOptions},
    io,
    net::Ipv4Addr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use egress_common::abi::PROXY_HOST_BITS;
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

use crate::kernel::instance::RUN_FOLDER;

/// Where the ranges begin: 127.64.0.0/10, far from what people bind by hand.
const FIRST: u32 = 0x7f40_0000;
/// How many there are.
const RANGES: u32 = 1 << (32 - 10 - PROXY_HOST_BITS);

/// A range that is nobody else's on this host, as long as this lives.
#[derive(Debug)]
pub struct Range {
    net: Ipv4Addr,
    _claim: File,
}

impl Range {
    /// Claims a range. Each is a byte of one file, locked by whoever has it: a claim ends with its
    /// process, and leaves nothing to clean up.
    pub fn claim() -> io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(Path::new(RUN_FOLDER).join("proxy-ranges"))?;
        // Those of agents that start at the same time are far apart.
        let start = std::process::id();
        for number in (0..RANGES).map(|step| start.wrapping_add(step) % RANGES) {
            let byte = libc::flock {
                l_type: kind(libc::F_WRLCK),
                l_whence: kind(libc::SEEK_SET),
                l_start: number.into(),
                l_len: 1,
                l_pid: 0,
            };
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&byte)) {
                Ok(_) => {
                    return Ok(Self {
                        net: Ipv4Addr::from_bits(FIRST | number << PROXY_HOST_BITS),
                        _claim: file,
                    });
                }
                Err(Errno::EAGAIN | Errno::EACCES) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other("all ranges of 127.64.0.0/10 are in use"))
    }

    /// Its first address.
    pub fn net(&self) -> Ipv4Addr {
        self.net
    }
}

/// The small constants of fcntl(2), as the structure has them.
fn kind(constant: i32) -> i16 {
    i16::try_from(constant).unwrap_or(i16::MAX)
}
