//! Mounts by descriptor, and mounts whose ids are mapped (Linux 5.12): open_tree(2), move_mount(2)
//! and mount_setattr(2), for which the C library has no names.

use std::{
    ffi::{CStr, c_int, c_long, c_uint},
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

/// `OPEN_TREE_CLONE`, `include/uapi/linux/mount.h`.
const OPEN_TREE_CLONE: c_uint = 1;
/// `MOVE_MOUNT_F_EMPTY_PATH` and `MOVE_MOUNT_T_EMPTY_PATH`: both ends are descriptors.
const MOVE_MOUNT_EMPTY_PATHS: c_uint = 0x04 | 0x40;
/// `MOUNT_ATTR_RDONLY`, `_NOSUID`, `_NODEV` and `_IDMAP`.
const VIEW: u64 = 0x01 | 0x02 | 0x04 | 0x0010_0000;

/// `struct mount_attr`.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// A copy of the mount that a folder is in, from that folder on and mounted nowhere yet.
pub fn copy(folder: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags =
        OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | libc::AT_EMPTY_PATH.cast_unsigned();
    // SAFETY: open_tree(2) reads an empty C string and changes nothing of this process but its
    // table of descriptors.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, folder.as_raw_fd(), c"".as_ptr(), flags) };
    let fd = c_int::try_from(checked(fd)?).map_err(io::Error::other)?;
    // SAFETY: a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes such a copy a view: read-only, without devices and set-user-id programs, and with the
/// ids of a user namespace. Who has an id that the namespace does not map may not even write to a
/// socket there (`inode_permission`, `fs/namei.c`). `EINVAL`: the file system cannot map ids.
pub fn restrict(tree: BorrowedFd<'_>, ids: BorrowedFd<'_>) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: VIEW,
        attr_clr: 0,
        propagation: 0,
        userns_fd: ids.as_raw_fd().unsigned_abs().into(),
    };
    // SAFETY: mount_setattr(2) reads an empty C string and `size` bytes of `attr`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH.cast_unsigned(),
            std::ptr::from_ref(&attr),
            size_of::<MountAttr>(),
        )
    };
    checked(done).map(drop)
}

/// Mounts such a copy over a folder.
pub fn place(tree: BorrowedFd<'_>, over: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: move_mount(2) reads two empty C strings.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            over.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_EMPTY_PATHS,
        )
    };
    checked(done).map(drop)
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// `MOUNT_ATTR_NODEV`.
const NODEV: u64 = 0x04;
/// `AT_RECURSIVE`.
const RECURSIVE: c_uint = 0x8000;

/// Makes device nodes unusable on a mount and on all mounts below it, without a look at what is
/// mounted there.
pub fn no_devices_below(point: &CStr) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the kernel reads a string that ends with NUL and `size` bytes of `attr`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            point.as_ptr(),
            RECURSIVE,
            std::ptr::from_ref(&attr),
            size_of::<MountAttr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    /// `MOUNT_ATTR_SIZE_VER0`.
    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(size_of::<MountAttr>(), 32);
    }
}
