//! Becoming two processes, and descriptors that come over execve(2).

use std::{
    fs, io,
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd},
};

/// Which of the two a process is after [`fork`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fork {
    /// The one that called; the number of the other, in this process's PID namespace.
    Parent(i32),
    /// The new one.
    Child,
}

/// Becomes two (fork(2)). Refused where the process has several threads: the child would have
/// the locks of those that it does not have.
pub fn fork() -> io::Result<Fork> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has several threads"));
    }
    // SAFETY: there is one thread, so everything the child may touch is in a whole state.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes a descriptor that this process was started with, by its number. What the process
/// opened itself is close-on-exec, as everything that Rust's library opens; it is refused, and so
/// is the same number twice, and standard input, output and error.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    let foreign = || io::Error::other(format!("descriptor {number} was not handed over"));
    if number <= 2 {
        return Err(foreign());
    }
    // SAFETY: the call takes no memory, and any number.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(foreign());
    }
    // SAFETY: it is open, and nothing in this process owns it: see above.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    close_on_exec(&fd)?;
    Ok(fd)
}

fn close_on_exec(fd: &OwnedFd) -> io::Result<()> {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let fd: BorrowedFd<'_> = fd.as_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn only_what_came_over_exec_is_taken() -> io::Result<()> {
        let own = fs::File::open("/dev/null")?;
        assert!(inherited(own.as_raw_fd()).is_err());
        assert!(inherited(1).is_err());
        assert!(inherited(1_000_000).is_err());
        Ok(())
    }

    #[test]
    fn no_fork_with_threads() {
        // The test harness has a thread for each test.
        assert!(fork().is_err());
    }
}
