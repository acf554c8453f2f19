//! Hooks of the Linux security modules (`include/linux/lsm_hook_defs.h`), attached at the
//! instance's parent cgroup (Linux 6.1): a second layer for what the launcher closes already,
//! and the only one for sockets that come in from outside.
//!
//! They run for whoever is below the parent. Other processes on the host pay only for the
//! kernel's look at their cgroup.

use core::arch::asm;

use aya_ebpf::{bindings::file, helpers::generated::bpf_sock_from_file, programs::LsmContext};
use egress_common::{
    abi::RULE_NONE,
    decide::{Flow, refused},
    socket::is_known,
    verdict::{Layer, Reason, Verdict},
};

use super::{PASS, answer};
use crate::{emit, kin, lookup::Maps, socket};

/// `PTRACE_MODE_NOAUDIT`, `include/linux/ptrace.h`: the kernel asks in passing, for example
/// whether `/proc/PID/stat` is to show addresses.
const TRACE_IN_PASSING: u32 = 4;
/// `CAP_OPT_NOAUDIT`, `include/linux/security.h`: the same for capabilities.
const CAPABLE_IN_PASSING: u32 = 2;
/// `CLONE_INTO_CGROUP`, `include/uapi/linux/sched.h`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `FMODE_WRITE`, `include/linux/fs.h`.
const FMODE_WRITE: u32 = 2;

/// `socket()` and `socketpair()`, by system call or io_uring.
#[inline(always)]
pub fn socket_create(ctx: &LsmContext) -> i32 {
    let (family, kind, protocol, kern): (u32, u32, u32, u32) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    // The kernel's own, such as the subflows of multipath TCP.
    if kern != 0 || is_known(family, kind, protocol) {
        return PASS;
    }
    let protocol = if protocol > 255 { 255 } else { protocol as u8 };
    refuse(Reason::SocketType, protocol, family as u8, 0)
}

/// A descriptor that comes in over a unix socket or by `pidfd_getfd()`. Sockets keep the cgroup
/// of their maker, and so no other hook would ever run for one from outside.
#[inline(always)]
pub fn file_receive(ctx: &LsmContext) -> i32 {
    // SAFETY: the hook's own argument, a file that is held for the time of the call.
    let socket = unsafe { bpf_sock_from_file(ctx.arg::<*mut file>(0)) };
    if socket.is_null() {
        return PASS;
    }
    let connector = socket::current_connector();
    if connector != 0 && kin::of_socket(socket.addr() as u64) == connector {
        return PASS;
    }
    refuse(Reason::ForeignSocket, 0, 0, 0)
}

/// `ptrace()`, `process_vm_writev()`, `pidfd_getfd()` and the entries of /proc that show or
/// change a process.
#[inline(always)]
pub fn ptrace_access_check(ctx: &LsmContext) -> i32 {
    let (child, mode): (u64, u32) = (ctx.arg(0), ctx.arg(1));
    let connector = socket::current_connector();
    if connector != 0 && kin::of_task(child) == connector {
        return PASS;
    }
    quietly(mode & TRACE_IN_PASSING != 0, Reason::ForeignProcess, 0)
}

/// A capability: the launcher has dropped them all.
#[inline(always)]
pub fn capable(ctx: &LsmContext) -> i32 {
    let (cred, capability, options): (u64, u16, u32) = (ctx.arg(0), ctx.arg(2), ctx.arg(3));
    if !kin::are_own(cred) {
        return PASS;
    }
    quietly(
        options & CAPABLE_IN_PASSING != 0,
        Reason::Capability,
        capability,
    )
}

/// A key: for `dns_resolver` and its like the kernel starts a helper outside.
#[inline(always)]
pub fn key_alloc(ctx: &LsmContext) -> i32 {
    if !kin::are_own(ctx.arg(1)) {
        return PASS;
    }
    refuse(Reason::KernelKey, 0, 0, 0)
}

/// `fork()` and relatives; only a child for another cgroup is refused.
#[inline(always)]
pub fn task_alloc(ctx: &LsmContext) -> i32 {
    if ctx.arg::<u64>(1) & CLONE_INTO_CGROUP == 0 {
        return PASS;
    }
    refuse(Reason::OtherCgroup, 0, 0, 0)
}

/// A file that is opened; only controls of the kernel's, for writing, are refused.
#[inline(always)]
pub fn file_open(ctx: &LsmContext) -> i32 {
    let (mode, magic) = kin::of_file(ctx.arg(0));
    if mode & FMODE_WRITE == 0 || !is_control(magic) {
        return PASS;
    }
    refuse(Reason::KernelControl, 0, 0, 0)
}

/// io_uring as a whole, or, where the kernel does not ask for that, what it does out of sight
/// of everybody.
#[inline(always)]
pub fn uring() -> i32 {
    refuse(Reason::IoUring, 0, 0, 0)
}

/// The answer as a number that the verifier sees: LLVM may give back something else that it
/// knows to be 1, such as an argument it has compared.
#[inline(always)]
pub fn plain(answer: i32) -> i32 {
    let mut answer = answer as u64;
    // SAFETY: registers only.
    unsafe {
        asm!(
            "if {answer} == 0 goto +1",
            "{answer} = 1",
            answer = inout(reg) answer,
        );
    }
    answer as i32
}

/// File systems by which processes, programs and devices are controlled
/// (`include/uapi/linux/magic.h`).
#[inline(always)]
fn is_control(magic: u64) -> bool {
    matches!(
        magic,
        // cgroup2, cgroup, bpf, sysfs, tracefs, debugfs, securityfs
        0x6367_7270
            | 0x0027_e0eb
            | 0xcafe_4a11
            | 0x6265_6572
            | 0x7472_6163
            | 0x6462_6720
            | 0x7363_6673
    )
}

/// Refuses; where nobody tried anything, without a word.
#[inline(always)]
fn quietly(in_passing: bool, reason: Reason, detail: u16) -> i32 {
    if !in_passing {
        return refuse(reason, 0, 0, detail);
    }
    answer(&verdict(socket::current_connector(), reason))
}

/// Refuses and reports, or only reports. `detail` tells repeats of one reason apart.
#[inline(always)]
fn refuse(reason: Reason, protocol: u8, family: u8, detail: u16) -> i32 {
    let connector = socket::current_connector();
    let flow = Flow {
        port: detail,
        protocol,
        ..Flow::nowhere(connector, Layer::Lsm)
    };
    let verdict = verdict(connector, reason);
    emit::denial(&flow, &verdict, &emit::Process::current(), family);
    answer(&verdict)
}

#[inline(always)]
fn verdict(connector: u32, reason: Reason) -> Verdict {
    let maps = Maps {
        ctx: core::ptr::null_mut(),
        own: Some(false),
    };
    refused(connector, reason, RULE_NONE, &maps)
}
