//! The system calls a connector cannot make: those that act for it where no hook looks.
//!
//! A deny list, because connectors are arbitrary programs: it names what leads out of the
//! boundary, not what is unusual. Calls for a foreign machine (`int 0x80`) are all among them, and
//! every number is denied in its x32 form too, which shares the architecture with x86-64.
//!
//! The filter refuses nothing by itself: it has the agent asked (`SECCOMP_RET_USER_NOTIF`), which
//! says no and tells of it ([`super::refusals`]); only `bind()` may get a yes. What is permitted
//! costs what it costs without that; and where the agent is gone the kernel says no (`ENOSYS`).

use std::{collections::BTreeMap, os::fd::OwnedFd};

use egress_common::verdict::Reason;
use egress_sys::notify::{self, Instruction};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Why the filter could not be made or installed. The connector is not started.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the system call filter: {0}; the connector was not started")]
pub struct FilterError(String);

/// What the filter depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Unix sockets can be made; pairs of connected ones always can.
    pub unix: bool,
    /// The agent is asked where they are made ([`super::binds`]).
    pub binds: bool,
    /// Processes of others have numbers here.
    pub host_processes: bool,
    /// The kernel makes further connections of multipath TCP in the cgroup of the first.
    pub multipath: bool,
}

/// Installs the filters for this process and everything it becomes. `no_new_privs` must be
/// set. Answers the descriptor by which refused calls are answered.
pub fn install(wanted: Wanted) -> Result<OwnedFd, FilterError> {
    seccompiler::apply_filter(&missing()?).map_err(failed)?;
    notify::install(&refused(wanted)?).map_err(failed)
}

/// Whether a call is one that may be let through: [`super::binds`] says.
pub fn is_bind(call: &notify::Call) -> bool {
    #[cfg(target_arch = "x86_64")]
    let number = i64::from(call.number) & !X32_BIT;
    #[cfg(not(target_arch = "x86_64"))]
    let number = i64::from(call.number);
    call.arch == ARCH && number == libc::SYS_bind
}

/// Calls that always fail with `EPERM`, beside those that depend on their arguments.
const DENIED: &[(i64, &str, Reason)] = &[
    // Asynchronous I/O makes sockets and sends without the classic calls.
    (libc::SYS_io_uring_setup, "io_uring_setup", Reason::IoUring),
    (libc::SYS_io_uring_enter, "io_uring_enter", Reason::IoUring),
    (
        libc::SYS_io_uring_register,
        "io_uring_register",
        Reason::IoUring,
    ),
    // Another process of the same user could be made to send.
    (libc::SYS_ptrace, "ptrace", Reason::ForeignProcess),
    (
        libc::SYS_process_vm_readv,
        "process_vm_readv",
        Reason::ForeignProcess,
    ),
    (
        libc::SYS_process_vm_writev,
        "process_vm_writev",
        Reason::ForeignProcess,
    ),
    (libc::SYS_pidfd_getfd, "pidfd_getfd", Reason::ForeignProcess),
    (libc::SYS_kcmp, "kcmp", Reason::ForeignProcess),
    // The kernel starts a helper outside the cgroup for some key types.
    (libc::SYS_add_key, "add_key", Reason::KernelKey),
    (libc::SYS_request_key, "request_key", Reason::KernelKey),
    (libc::SYS_keyctl, "keyctl", Reason::KernelKey),
    // Programs and counters in the kernel.
    (libc::SYS_bpf, "bpf", Reason::SystemCall),
    (
        libc::SYS_perf_event_open,
        "perf_event_open",
        Reason::SystemCall,
    ),
    (libc::SYS_userfaultfd, "userfaultfd", Reason::SystemCall),
    // Other views of files and cgroups.
    (libc::SYS_mount, "mount", Reason::Namespace),
    (libc::SYS_umount2, "umount2", Reason::Namespace),
    (libc::SYS_move_mount, "move_mount", Reason::Namespace),
    (libc::SYS_open_tree, "open_tree", Reason::Namespace),
    (libc::SYS_fsopen, "fsopen", Reason::Namespace),
    (libc::SYS_fsconfig, "fsconfig", Reason::Namespace),
    (libc::SYS_fsmount, "fsmount", Reason::Namespace),
    (libc::SYS_fspick, "fspick", Reason::Namespace),
    (libc::SYS_mount_setattr, "mount_setattr", Reason::Namespace),
    (libc::SYS_pivot_root, "pivot_root", Reason::Namespace),
    (libc::SYS_chroot, "chroot", Reason::Namespace),
    (libc::SYS_setns, "setns", Reason::Namespace),
    // Machine-wide.
    (libc::SYS_init_module, "init_module", Reason::SystemCall),
    (libc::SYS_finit_module, "finit_module", Reason::SystemCall),
    (libc::SYS_delete_module, "delete_module", Reason::SystemCall),
    (libc::SYS_kexec_load, "kexec_load", Reason::SystemCall),
    (libc::SYS_reboot, "reboot", Reason::SystemCall),
];

/// Calls that are refused for some arguments alone.
const SOME: &[(i64, &str, Reason)] = &[
    (libc::SYS_socket, "socket", Reason::SocketType),
    (libc::SYS_socketpair, "socketpair", Reason::SocketType),
    (libc::SYS_unshare, "unshare", Reason::Namespace),
    (libc::SYS_clone, "clone", Reason::Namespace),
    (libc::SYS_ioctl, "ioctl", Reason::SystemCall),
    (libc::SYS_prlimit64, "prlimit64", Reason::ForeignProcess),
    (libc::SYS_bind, "bind", Reason::UnixBind),
];

/// What a refused call is to those who read of it, and what its program is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meaning {
    /// The call's name.
    pub name: &'static str,
    /// Why it is refused.
    pub reason: Reason,
    /// Error number for the program.
    pub errno: i32,
    /// The program is ended: it was made for another machine.
    pub ends: bool,
}

/// The meaning of a call that the filter does not let through.
pub fn meaning(call: &notify::Call) -> Meaning {
    if call.arch != ARCH {
        return Meaning {
            name: if cfg!(target_arch = "x86_64") {
                "int80"
            } else {
                "compat"
            },
            reason: Reason::ForeignAbi,
            errno: libc::ENOSYS,
            ends: true,
        };
    }
    let number = i64::from(call.number);
    #[cfg(target_arch = "x86_64")]
    let number = number & !X32_BIT;
    let known = DENIED.iter().chain(SOME);
    let (name, reason) = known
        .into_iter()
        .find(|(known, ..)| *known == number)
        .map_or(("x32", Reason::SystemCall), |(_, name, reason)| {
            (*name, *reason)
        });
    // Programs expect the error of a kernel without the family (socket(2)), and go on without it,
    // where some complain of `EPERM` (dig tries a unix socket at its start).
    let families = [libc::AF_INET, libc::AF_NETLINK].map(|family| family as u64);
    let family = call.args.first().copied().unwrap_or_default() & 0xffff_ffff;
    let absent = number == libc::SYS_socket && !families.contains(&family);
    // Here of a kernel without the protocol: runtimes that try it then use TCP.
    let protocol = call.args.get(2).copied().unwrap_or_default() & 0xffff_ffff;
    let multipath = number == libc::SYS_socket && protocol == MPTCP;
    Meaning {
        name,
        reason,
        errno: match reason {
            _ if multipath => libc::EPROTONOSUPPORT,
            _ if absent => libc::EAFNOSUPPORT,
            // As Landlock says it.
            Reason::UnixBind => libc::EACCES,
            _ => libc::EPERM,
        },
        ends: false,
    }
}

/// This machine in the records of calls (`AUDIT_ARCH_…`, `include/uapi/linux/audit.h`): number of
/// the ELF machine, 64 bits, little endian.
const ARCH: u32 = 0xc000_0000
    | if cfg!(target_arch = "x86_64") {
        62
    } else if cfg!(target_arch = "aarch64") {
        183
    } else {
        243
    };

/// x86-64 numbers that the x32 ABI gives to denied calls of its own
/// (`arch/x86/entry/syscalls/syscall_64.tbl`): ptrace, process_vm_readv, process_vm_writev,
/// kexec_load, and ioctl, whose arguments are not looked at there.
#[cfg(target_arch = "x86_64")]
const X32_ONLY: &[i64] = &[514, 521, 528, 539, 540];
/// `__X32_SYSCALL_BIT`, `arch/x86/include/uapi/asm/unistd.h`.
#[cfg(target_arch = "x86_64")]
const X32_BIT: i64 = 0x4000_0000;

/// New namespaces bring interfaces, routes and user ids of their own.
const NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS) as u64
    | CLONE_NEWTIME;
/// `CLONE_NEWTIME`, `include/uapi/linux/sched.h`.
const CLONE_NEWTIME: u64 = 0x80;
/// `TIOCSTI` and `TIOCLINUX`, `include/uapi/asm-generic/ioctls.h`: input into a terminal.
const TERMINAL_INPUT: [u64; 2] = [0x5412, 0x541c];

/// The bits of socket(2)'s second argument that are no flags (`SOCK_TYPE_MASK`,
/// `include/linux/net.h`).
const SOCKET_KIND: u64 = 0xf;
/// The packet socket of Linux 2.0: asked for with `AF_INET`, the kernel makes it an
/// `AF_PACKET` one (`net/socket.c` `__sock_create`).
const SOCK_PACKET: u64 = 10;

/// `IPPROTO_MPTCP`, `include/uapi/linux/in.h`.
const MPTCP: u64 = 262;
/// From this Linux on the kernel makes further connections of multipath TCP in the cgroup of the
/// first (`net/mptcp/subflow.c` `mptcp_attach_cgroup`). Before, those that a worker of the kernel's
/// makes, to addresses that a server announces, belong to the root cgroup, where no program is.
pub const MULTIPATH: (u32, u32) = (5, 11);

/// The calls of which the agent is asked.
fn refused(wanted: Wanted) -> Result<Vec<Instruction>, FilterError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, ..) in DENIED {
        rules.insert(*call, Vec::new());
    }
    let mut kinds = sockets(wanted.unix)?;
    if !wanted.multipath {
        kinds.push(rule(vec![condition(2, SeccompCmpOp::Eq, MPTCP)?])?);
    }
    rules.insert(libc::SYS_socket, kinds);
    rules.insert(
        libc::SYS_socketpair,
        vec![rule(vec![unlike(0, libc::AF_UNIX as u64)?])?],
    );
    rules.insert(libc::SYS_unshare, any_bit(NAMESPACES)?);
    rules.insert(libc::SYS_clone, any_bit(NAMESPACES & !0xff)?);
    let input = TERMINAL_INPUT
        .iter()
        .map(|request| rule(vec![condition(1, SeccompCmpOp::Eq, *request)?]));
    rules.insert(libc::SYS_ioctl, input.collect::<Result<_, _>>()?);
    #[cfg(target_arch = "x86_64")]
    for call in rules.keys().copied().collect::<Vec<_>>() {
        rules.insert(call | X32_BIT, Vec::new());
    }
    #[cfg(target_arch = "x86_64")]
    for call in X32_ONLY {
        rules.insert(call | X32_BIT, Vec::new());
    }
    if wanted.binds {
        // A filter knows no family of an address, and a length says nothing certain of it.
        rules.insert(libc::SYS_bind, Vec::new());
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_bind | X32_BIT, Vec::new());
    }
    if wanted.host_processes {
        // Limits of others: their memory could be had by a core file. A filter knows no number of
        // its own process but 0.
        let others = || Ok(vec![rule(vec![unlike(0, 0)?])?]);
        rules.insert(libc::SYS_prlimit64, others()?);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_prlimit64 | X32_BIT, others()?);
    }
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let program = compile(rules, refuse.clone())?;
    // The generator has no word for asking somebody.
    let asks = [u32::from(refuse), libc::SECCOMP_RET_KILL_PROCESS];
    Ok(answering(program, &asks, notify::ASK))
}

/// Sockets other than unix, IPv4, IPv6 and netlink's route family (which C libraries use to
/// list interfaces) are seen by no hook on every kernel. Unix ones are, where the data plane
/// has its hooks for them.
fn sockets(unix: bool) -> Result<Vec<SeccompRule>, FilterError> {
    let known = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let known = known.into_iter().chain(unix.then_some(libc::AF_UNIX));
    let unknown = known.map(|family| unlike(0, family as u64));
    Ok(vec![
        rule(unknown.collect::<Result<_, _>>()?)?,
        rule(vec![
            condition(0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64)?,
            unlike(2, libc::NETLINK_ROUTE as u64)?,
        ])?,
        rule(vec![
            condition(0, SeccompCmpOp::Eq, libc::AF_INET as u64)?,
            condition(1, SeccompCmpOp::MaskedEq(SOCKET_KIND), SOCK_PACKET)?,
        ])?,
    ])
}

/// `clone3` hides its flags in memory that a filter cannot read; told that it is missing, C
/// libraries fall back to `clone`. They try it for every thread, so nobody is asked.
fn missing() -> Result<BpfProgram, FilterError> {
    let mut rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_clone3 | X32_BIT, Vec::new());
    let mut program = compile(rules, SeccompAction::Errno(libc::ENOSYS.unsigned_abs()))?;
    // The other filter has the word about foreign machines.
    for step in &mut program {
        if step.code == RETURN && step.k == libc::SECCOMP_RET_KILL_PROCESS {
            step.k = libc::SECCOMP_RET_ALLOW;
        }
    }
    Ok(program)
}

/// `BPF_RET | BPF_K`, `include/uapi/linux/bpf_common.h`.
const RETURN: u16 = 0x06;

/// A program with another answer in the place of some.
fn answering(program: BpfProgram, some: &[u32], other: u32) -> Vec<Instruction> {
    let steps = program.into_iter().map(|step| Instruction {
        code: step.code,
        jt: step.jt,
        jf: step.jf,
        k: if step.code == RETURN && some.contains(&step.k) {
            other
        } else {
            step.k
        },
    });
    steps.collect()
}

/// One rule a bit: any of them is enough.
fn any_bit(mask: u64) -> Result<Vec<SeccompRule>, FilterError> {
    (0..32)
        .map(|bit| 1_u64 << bit)
        .filter(|bit| mask & bit != 0)
        .map(|bit| rule(vec![condition(0, SeccompCmpOp::MaskedEq(bit), bit)?]))
        .collect()
}

/// The kernel looks at the low 32 bits of these arguments, so the filter does too.
fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, FilterError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).map_err(failed)
}

fn unlike(argument: u8, value: u64) -> Result<SeccompCondition, FilterError> {
    condition(argument, SeccompCmpOp::Ne, value)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, FilterError> {
    SeccompRule::new(conditions).map_err(failed)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    refuse: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(failed)?;
    BpfProgram::try_from(filter).map_err(failed)
}

fn failed(error: impl ToString) -> FilterError {
    FilterError(error.to_string())
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn filters_compile_and_refuse_by_asking_alone() {
        for (unix, binds, host_processes, multipath) in [
            (true, true, false, true),
            (true, false, false, true),
            (false, false, false, false),
            (true, true, true, true),
        ] {
            let wanted = Wanted {
                unix,
                binds,
                host_processes,
                multipath,
            };
            let program = refused(wanted).unwrap_or_default();
            assert!((10..4096).contains(&program.len()));
            let mut answers: Vec<u32> = program
                .iter()
                .filter(|step| step.code == RETURN)
                .map(|step| step.k)
                .collect();
            answers.sort_unstable();
            answers.dedup();
            assert_eq!(answers, [notify::ASK, libc::SECCOMP_RET_ALLOW]);
        }
        let missing = missing().unwrap_or_default();
        let kills = |step: &seccompiler::sock_filter| step.k == libc::SECCOMP_RET_KILL_PROCESS;
        assert!(!missing.is_empty() && !missing.iter().any(kills));
    }

    #[test]
    fn every_refused_call_has_a_name() {
        let call = |number: i64, arch| notify::Call {
            id: 0,
            tid: 1,
            number: i32::try_from(number).unwrap_or_default(),
            arch,
            args: [libc::AF_PACKET as u64, 0, 0, 0, 0, 0],
        };
        for (number, name, reason) in DENIED.iter().chain(SOME) {
            let found = meaning(&call(*number, ARCH));
            assert_eq!((found.name, found.reason), (*name, *reason));
            #[cfg(target_arch = "x86_64")]
            assert_eq!(meaning(&call(*number | X32_BIT, ARCH)).name, *name);
            assert!(meaning(&call(*number, ARCH ^ 1)).ends);
        }
        let socket = meaning(&call(libc::SYS_socket, ARCH));
        assert_eq!(socket.errno, libc::EAFNOSUPPORT);
        assert_eq!(meaning(&call(libc::SYS_bpf, ARCH)).errno, libc::EPERM);
        let args = [libc::AF_INET as u64, 1, MPTCP, 0, 0, 0];
        let multipath = notify::Call {
            args,
            ..call(libc::SYS_socket, ARCH)
        };
        assert_eq!(meaning(&multipath).errno, libc::EPROTONOSUPPORT);
    }

    /// Only where the kernel would make its connections elsewhere.
    #[test]
    fn multipath_is_asked_for_on_old_kernels_alone() {
        let asks = |multipath| {
            let wanted = Wanted {
                unix: false,
                binds: false,
                host_processes: false,
                multipath,
            };
            let program = refused(wanted).unwrap_or_default();
            let looks = |step: &Instruction| u64::from(step.k) == MPTCP;
            program.iter().any(looks)
        };
        assert!(asks(false) && !asks(true));
    }
}
