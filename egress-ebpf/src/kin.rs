//! Whose a task or a socket is, where no helper tells: read out of the kernel's own structures,
//! whose offsets the agent takes from the running kernel's type information (BTF) before the
//! programs are loaded. What cannot be read belongs to nobody, and to nobody means outside.

use core::ffi::c_void;

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel},
};

use crate::{maps::CONNECTOR_LEVEL, socket};

macro_rules! offsets {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        pub static $name: Global<u32> = Global::new(0);
    )* };
}

// `egress_common::abi::global::offset` says which member each one is.
offsets! {
    TASK_CGROUPS TASK_CRED CSS_SET_CGROUP
    CGROUP_LEVEL CGROUP_ANCESTORS CGROUP_NODE NODE_ID
    SOCKET_SOCK SOCK_CGROUP
    FILE_INODE FILE_MODE INODE_SUPER SUPER_MAGIC
}

/// The connector of a `struct task_struct`; 0 = none.
#[inline(always)]
pub fn of_task(task: u64) -> u32 {
    of_cgroup(word(word(task, &TASK_CGROUPS), &CSS_SET_CGROUP))
}

/// The connector of a `struct socket`: of the one who made it, or whose listener accepted it.
#[inline(always)]
pub fn of_socket(socket: u64) -> u32 {
    of_cgroup(word(word(socket, &SOCKET_SOCK), &SOCK_CGROUP))
}

/// Whether the credentials are the calling process's own, and not some that the kernel took on
/// for it, as overlayfs does for whoever mounted it.
#[inline(always)]
pub fn are_own(cred: u64) -> bool {
    // SAFETY: a helper without pointers.
    word(unsafe { bpf_get_current_task() }, &TASK_CRED) == cred
}

/// The `FMODE_` bits of a `struct file`, and the magic number of its file system.
#[inline(always)]
pub fn of_file(file: u64) -> (u32, u64) {
    let super_block = word(word(file, &FILE_INODE), &INODE_SUPER);
    (half(file, &FILE_MODE), word(super_block, &SUPER_MAGIC))
}

/// By the ancestor at the connectors' level, as `bpf_get_current_ancestor_cgroup_id` does it for
/// the caller.
#[inline(always)]
fn of_cgroup(cgroup: u64) -> u32 {
    let level = CONNECTOR_LEVEL.load();
    if cgroup == 0 || level < 0 || (half(cgroup, &CGROUP_LEVEL) as i32) < level {
        return 0;
    }
    let ancestor = read::<u64>(
        cgroup
            .wrapping_add(u64::from(CGROUP_ANCESTORS.load()))
            .wrapping_add(8 * level as u64),
    );
    let node = word(ancestor, &CGROUP_NODE);
    if node == 0 {
        return 0;
    }
    socket::by_cgroup(word(node, &NODE_ID))
}

#[inline(always)]
fn word(base: u64, offset: &Global<u32>) -> u64 {
    read(base.wrapping_add(u64::from(offset.load())))
}

#[inline(always)]
fn half(base: u64, offset: &Global<u32>) -> u32 {
    read(base.wrapping_add(u64::from(offset.load())))
}

/// A number of the kernel's; 0 where nothing can be read.
#[inline(always)]
fn read<T: Default>(from: u64) -> T {
    let mut value = T::default();
    // SAFETY: the helper checks the kernel's side; the other is a number on the stack, and it
    // is only ever asked for integers.
    let read = unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            from as *const c_void,
        )
    };
    if read == 0 { value } else { T::default() }
}
