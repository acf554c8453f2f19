//! The system calls a connector cannot make: those that act for it where no hook looks.
//!
//! A deny list, because connectors are arbitrary programs: it names what leads out of the
//! boundary, not what is unusual. The architecture is checked first by the generated
//! program (`int 0x80` and foreign ABIs end the process), and every number is denied in its
//! x32 form too, which shares the architecture with x86-64.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Why the filter could not be made or installed. The connector is not started.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the system call filter: {0}; the connector was not started")]
pub struct FilterError(String);

/// Installs the filters for this process and everything it becomes. `no_new_privs` must be
/// set. `unix`: unix sockets can be made; pairs of connected ones always can.
pub fn install(unix: bool) -> Result<(), FilterError> {
    for program in [missing()?, unsupported(unix)?, refused()?] {
        seccompiler::apply_filter(&program).map_err(failed)?;
    }
    Ok(())
}

/// Calls that always fail with `EPERM`, beside those that depend on their arguments.
const DENIED: &[i64] = &[
    // Asynchronous I/O makes sockets and sends without the classic calls.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Another process of the same user could be made to send.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel starts a helper outside the cgroup for some key types.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Programs and counters in the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Other views of files and cgroups.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    // Machine-wide.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
];

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

fn refused() -> Result<BpfProgram, FilterError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in DENIED {
        rules.insert(*call, Vec::new());
    }
    rules.insert(
        libc::SYS_socket,
        vec![
            rule(vec![
                condition(0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64)?,
                unlike(2, libc::NETLINK_ROUTE as u64)?,
            ])?,
            rule(vec![
                condition(0, SeccompCmpOp::Eq, libc::AF_INET as u64)?,
                condition(1, SeccompCmpOp::MaskedEq(SOCKET_KIND), SOCK_PACKET)?,
            ])?,
        ],
    );
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
    compile(rules, libc::EPERM)
}

/// `clone3` hides its flags in memory that a filter cannot read; told that it is missing, C
/// libraries fall back to `clone`.
fn missing() -> Result<BpfProgram, FilterError> {
    let mut rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_clone3 | X32_BIT, Vec::new());
    rules.entry(libc::SYS_clone3).or_default();
    compile(rules, libc::ENOSYS)
}

/// Sockets other than unix, IPv4, IPv6 and netlink's route family (which C libraries use to
/// list interfaces) are seen by no hook on every kernel.
/// Unix ones are, where the data plane has its hooks for them.
///
/// The error is that of a kernel without the family (socket(2)), which programs expect: they
/// go on without it, where some complain of `EPERM` (dig tries a unix socket at its start).
fn unsupported(unix: bool) -> Result<BpfProgram, FilterError> {
    let known = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let known = known.into_iter().chain(unix.then_some(libc::AF_UNIX));
    let unknown = known.map(|family| unlike(0, family as u64));
    let unknown = rule(unknown.collect::<Result<_, _>>()?)?;
    compile(
        BTreeMap::from([(libc::SYS_socket, vec![unknown])]),
        libc::EAFNOSUPPORT,
    )
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

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(failed)?;
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(failed)?;
    BpfProgram::try_from(filter).map_err(failed)
}

fn failed(error: impl ToString) -> FilterError {
    FilterError(error.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn filters_compile() {
        for unix in [true, false] {
            assert!(super::unsupported(unix).is_ok_and(|program| program.len() < 4096));
        }
        assert!(super::refused().is_ok_and(|program| program.len() < 4096));
        assert!(super::missing().is_ok());
    }
}
