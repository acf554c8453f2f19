//! System calls that a filter hands to another process to answer (seccomp_unotify(2)).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// One instruction of a filter: `struct sock_filter`, `include/uapi/linux/filter.h`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip where a comparison holds.
    pub jt: u8,
    /// Where it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// What a filter answers for a call that a [`Listener`] is to answer: `SECCOMP_RET_USER_NOTIF`.
pub const ASK: u32 = 0x7fc0_0000;

/// `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    nr: i32,
    arch: u32,
    instruction_pointer: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Notif {
    id: u64,
    pid: u32,
    flags: u32,
    data: Data,
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Resp {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

/// What later kernels add to the records fits in here; the kernel writes and reads its own size.
#[repr(C)]
#[derive(Clone, Copy)]
struct Roomy<T> {
    known: T,
    more: [u8; 256],
}

/// `SECCOMP_IOCTL_NOTIF_RECV`, `_SEND` and `_ID_VALID`: `_IOWR('!', 0, struct seccomp_notif)`,
/// `_IOWR('!', 1, struct seccomp_notif_resp)`, `_IOW('!', 2, __u64)`.
const RECEIVE: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const ID_VALID: u32 = 0x4008_2102;

#[repr(C)]
struct Program {
    len: u16,
    filter: *const Instruction,
}

/// A call that waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// By which it is answered.
    pub id: u64,
    /// Thread that called, in the PID namespace of whoever listens; 0: it is not visible there.
    pub tid: u32,
    /// Number of the call in the binary interface of `arch`.
    pub number: i32,
    /// `AUDIT_ARCH_…`, `include/uapi/linux/audit.h`.
    pub arch: u32,
    /// Arguments, as they stood in registers.
    pub args: [u64; 6],
}

/// Where the calls come in.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// Installs a filter for this thread and everything it becomes. `no_new_privs` must be set. The
/// descriptor answers the calls for which the filter says [`ASK`]; where nobody holds it
/// any more those fail with `ENOSYS`.
pub fn install(program: &[Instruction]) -> io::Result<OwnedFd> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    const NEW_LISTENER: libc::c_ulong = 8;
    /// Once a call was received, nothing but its end interrupts it (Linux 5.19): programs do not
    /// expect `EINTR` of every call.
    const WAIT_KILLABLE: libc::c_ulong = 32;
    let program = Program {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr(),
    };
    let install = |flags: libc::c_ulong| {
        // SAFETY: the kernel reads `len` instructions, which are borrowed during the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                SET_MODE_FILTER,
                flags,
                std::ptr::from_ref(&program),
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        i32::try_from(fd).map_err(io::Error::other)
    };
    let fd = match install(NEW_LISTENER | WAIT_KILLABLE) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install(NEW_LISTENER)?,
        result => result?,
    };
    // SAFETY: a new descriptor that nobody else knows; close-on-exec (`init_listener()`,
    // kernel/seccomp.c).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Listener {
    /// Takes what [`install`] made, perhaps in another process.
    pub const fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Takes one call. `None`: there is none now, or whoever made it is gone.
    pub fn receive(&self) -> io::Result<Option<Call>> {
        let mut notif = Roomy {
            known: Notif::default(),
            // The kernel wants it zeroed.
            more: [0; 256],
        };
        match self.control(RECEIVE, &mut notif) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
        let Notif { id, pid, data, .. } = notif.known;
        Ok(Some(Call {
            id,
            tid: pid,
            number: data.nr,
            arch: data.arch,
            args: data.args,
        }))
    }

    /// Lets a call fail. `false`: whoever made it is gone, or was interrupted and makes it anew.
    pub fn refuse(&self, id: u64, errno: i32) -> io::Result<bool> {
        self.send(Resp {
            id,
            val: 0,
            error: -errno,
            flags: 0,
        })
    }

    /// Lets the kernel carry a call out. Its arguments may have changed meanwhile, so this is for
    /// calls that something else decides.
    pub fn permit(&self, id: u64) -> io::Result<bool> {
        /// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, `include/uapi/linux/seccomp.h`.
        const CONTINUE: u32 = 1;
        self.send(Resp {
            id,
            val: 0,
            error: 0,
            flags: CONTINUE,
        })
    }

    fn send(&self, known: Resp) -> io::Result<bool> {
        let mut resp = Roomy {
            known,
            more: [0; 256],
        };
        match self.control(SEND, &mut resp) {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the caller still waits. What was read about its thread before is then about it.
    pub fn waits(&self, id: u64) -> bool {
        let mut id = id;
        self.control(ID_VALID, &mut id).is_ok()
    }

    fn control<T: Copy>(&self, request: u32, record: &mut T) -> io::Result<()> {
        // SAFETY: the descriptor is open; the kernel reads and writes its own size of the record,
        // which the request names for today's, and which has 256 bytes more for tomorrow's.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, std::ptr::from_mut(record)) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `ENOENT`: the caller is gone. `EINTR`: a signal came meanwhile.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<Notif>(), (RECEIVE >> 16 & 0x3fff) as usize);
        assert_eq!(size_of::<Resp>(), (SEND >> 16 & 0x3fff) as usize);
        assert_eq!(size_of::<Instruction>(), 8);
    }
}
