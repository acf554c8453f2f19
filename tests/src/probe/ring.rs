//! io_uring as it is, io_uring(7): one request at a time.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::sys::{self, Memory};
use crate::process::patient;

const PATIENCE: Duration = Duration::from_secs(2);
const ENTRIES: usize = 8;
const SQES: usize = 0x1000_0000;
const SETUP_SQPOLL: u32 = 2;
const ENTER_GETEVENTS: usize = 1;
const ENTER_WAKEUP: usize = 2;
const CQE_NOTIFICATION: u32 = 8;

/// Indices of the words of `struct io_uring_params`.
const FLAGS: usize = 2;
const IDLE: usize = 4;
const SQ: usize = 10;
const CQ: usize = 20;

/// One request, `struct io_uring_sqe`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Request {
    pub(super) operation: u8,
    pub(super) fd: i32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) flags: u32,
    /// The union of splice_fd and addr_len.
    pub(super) other: u32,
}

/// A pair of rings.
#[derive(Debug)]
pub(super) struct Ring {
    fd: OwnedFd,
    rings: Memory,
    requests: Memory,
    words: [u32; 30],
    polled: bool,
}

impl Ring {
    /// With `polled`, a kernel thread takes the requests and no system call is made for them.
    pub(super) fn new(polled: bool) -> Result<Self, Errno> {
        let mut words = [0_u32; 30];
        if polled {
            words[FLAGS] = SETUP_SQPOLL;
            words[IDLE] = 1000;
        }
        let arguments = [ENTRIES, sys::place_mut(&mut words)];
        let fd = sys::call_fd(libc::SYS_io_uring_setup, &arguments)?;
        let of_requests = words[SQ + 6] as usize + words[0] as usize * 4;
        let of_results = words[CQ + 5] as usize + words[1] as usize * 16;
        let rings = Memory::of(&fd, of_requests.max(of_results), 0)?;
        let requests = Memory::of(&fd, ENTRIES * 64, SQES)?;
        Ok(Self {
            fd,
            rings,
            requests,
            words,
            polled,
        })
    }

    /// Carries out one request.
    pub(super) fn ask(&self, request: &Request) -> Result<i32, Errno> {
        let tail = self.rings.word(self.words[SQ + 1] as usize);
        let mask = self.rings.word(self.words[SQ + 2] as usize);
        let at = tail.load(Ordering::Relaxed) & mask.load(Ordering::Relaxed);
        self.requests.write(at as usize * 64, &request.bytes());
        let array = self.words[SQ + 6] as usize + at as usize * 4;
        self.rings.word(array).store(at, Ordering::Relaxed);
        tail.fetch_add(1, Ordering::Release);
        let fd = self.fd.as_raw_fd() as usize;
        let flags = if self.polled {
            ENTER_WAKEUP
        } else {
            ENTER_GETEVENTS
        };
        let wanted = usize::from(!self.polled);
        sys::call(libc::SYS_io_uring_enter, &[fd, 1, wanted, flags, 0, 0])?;
        self.result()
    }

    fn result(&self) -> Result<i32, Errno> {
        let head = self.rings.word(self.words[CQ] as usize);
        let tail = self.rings.word(self.words[CQ + 1] as usize);
        let mask = self.rings.word(self.words[CQ + 2] as usize);
        let end = Instant::now() + patient(PATIENCE);
        loop {
            let now = head.load(Ordering::Relaxed);
            if now == tail.load(Ordering::Acquire) {
                if Instant::now() > end {
                    return Err(Errno::ETIMEDOUT);
                }
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            let at = (now & mask.load(Ordering::Relaxed)) as usize;
            let entry = self.words[CQ + 5] as usize + at * 16;
            let result = self.rings.word(entry + 8).load(Ordering::Relaxed) as i32;
            let flags = self.rings.word(entry + 12).load(Ordering::Relaxed);
            head.store(now.wrapping_add(1), Ordering::Release);
            if flags & CQE_NOTIFICATION != 0 {
                continue;
            }
            if result < 0 {
                return Err(Errno::from_raw(-result));
            }
            return Ok(result);
        }
    }
}

impl Request {
    fn bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[0] = self.operation;
        bytes[4..8].copy_from_slice(&self.fd.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.address.to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_ne_bytes());
        bytes[28..32].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[44..48].copy_from_slice(&self.other.to_ne_bytes());
        bytes
    }
}
