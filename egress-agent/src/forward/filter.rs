//! The system calls and files that a forwarder can use: sockets for TCP, and memory.
//!
//! An allow list, unlike the connector's: this program is known.

use std::collections::BTreeMap;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, Scope,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Calls without a look at their arguments.
const CALLS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getpeername,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];
/// The bits of socket(2)'s second argument that are no flags (`SOCK_TYPE_MASK`,
/// `include/linux/net.h`).
const SOCKET_KIND: u64 = 0xf;

/// Takes every other system call away, with `EPERM`. `no_new_privs` must be set.
pub(super) fn calls() -> Result<(), String> {
    seccompiler::apply_filter(&program()?).map_err(|error| error.to_string())
}

/// Takes every file away, and where the kernel has it every abstract socket and signal of others.
/// Kernels before Linux 5.13 have nothing of that; what is left then is a user without files of its
/// own, and no system call that opens any.
pub(super) fn files() -> Result<(), String> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V6))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .map(drop)
        .map_err(|error| error.to_string())
}

fn program() -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let stream = |family: i32| {
        all(vec![
            argument(0, SeccompCmpOp::Eq, family.unsigned_abs().into())?,
            argument(
                1,
                SeccompCmpOp::MaskedEq(SOCKET_KIND),
                libc::SOCK_STREAM as u64,
            )?,
            argument(2, SeccompCmpOp::Le, u64::from(egress_common::abi::TCP))?,
        ])
    };
    let streams = vec![stream(libc::AF_INET)?, stream(libc::AF_INET6)?];
    rules.insert(libc::SYS_socket, streams);
    // Memory that cannot be executed.
    let execute = libc::PROT_EXEC as u64;
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let plain = argument(2, SeccompCmpOp::MaskedEq(execute), 0)?;
        rules.insert(call, vec![all(vec![plain])?]);
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(text)?;
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch).map_err(text)?;
    BpfProgram::try_from(filter).map_err(text)
}

fn all(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(text)
}

fn argument(number: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(number, SeccompCmpArgLen::Dword, op, value).map_err(text)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_filter_compiles() {
        assert!(super::program().is_ok_and(|program| program.len() < 4096));
    }
}
