//! Network namespaces: telling one from another, finding one, working in it.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    str::FromStr,
    thread,
};

use nix::{
    libc,
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::mountinfo;

/// Which network namespace something is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetNs {
    /// Inode of its file; the kernel gives it again once the namespace is gone.
    inode: u64,
    /// The kernel's own number for it, never given again (`SO_NETNS_COOKIE`, Linux 5.14);
    /// `None`: this kernel does not say.
    cookie: Option<u64>,
}

impl NetNs {
    /// The one of this thread.
    pub fn own() -> io::Result<Self> {
        let probe = socket(
            AddressFamily::Unix,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let cookie = match egress_sys::netns_cookie(probe.as_fd()) {
            Ok(cookie) => Some(cookie),
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => None,
            Err(error) => return Err(error),
        };
        let inode = fs::metadata("/proc/thread-self/ns/net")?.ino();
        Ok(Self { inode, cookie })
    }

    /// Whether these are certainly the same. Never where the kernel does not number them.
    pub fn is(&self, other: &Self) -> bool {
        self.cookie.is_some() && self == other
    }

    /// A way into it, where one can be found: a process that is in it, or a mount that holds it
    /// (`ip netns`). One that is left with nothing but sockets has none.
    pub fn find(&self) -> Option<File> {
        processes()
            .chain(mounts(Path::new("/"), "/proc/self/mountinfo"))
            .chain(mounts(Path::new("/proc/1/root"), "/proc/1/mountinfo"))
            .filter(|path| fs::metadata(path).is_ok_and(|facts| facts.ino() == self.inode))
            // What cannot be opened is no way into it.
            .filter_map(|path| File::open(path).ok())
            .find(|file| {
                within(file.as_fd(), Self::own)
                    .is_ok_and(|there| there.is_ok_and(|it| self.is(&it)))
            })
    }
}

/// Whether a process is certainly in another network namespace than this thread.
pub fn differs(pid: u32) -> bool {
    let theirs = fs::read_link(format!("/proc/{pid}/ns/net"));
    let own = fs::read_link("/proc/thread-self/ns/net");
    matches!((theirs, own), (Ok(theirs), Ok(own)) if theirs != own)
}

/// Does something in a network namespace, in a thread of its own: no other thread leaves the one
/// that it is in. Needs `CAP_SYS_ADMIN`.
pub fn within<T: Send>(namespace: BorrowedFd<'_>, job: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(job())
        });
        inside
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
    })
}

/// As in an attribute of a cgroup: inode, and cookie or 0.
impl fmt::Display for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.inode, self.cookie.unwrap_or(0))
    }
}

impl FromStr for NetNs {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "not inode and cookie");
        let (inode, cookie) = text.split_once(' ').ok_or_else(odd)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| odd());
        Ok(Self {
            inode: number(inode)?,
            cookie: Some(number(cookie)?).filter(|&cookie| cookie != 0),
        })
    }
}

/// The namespace files of all processes that can be seen.
fn processes() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .map(|path| path.join("ns/net"))
}

/// The mounts of namespace files in a table of mounts, as seen from `root`.
fn mounts(root: &Path, table: &str) -> impl Iterator<Item = PathBuf> {
    let text = fs::read(table).unwrap_or_default();
    let found: HashSet<PathBuf> = mountinfo::parse(&text)
        .filter(|mount| mount.fs_type == b"nsfs")
        .filter_map(|mount| Some(root.join(mount.point.strip_prefix("/").ok()?)))
        .collect();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use super::*;

    #[test]
    fn what_is_recorded_is_read_back() {
        let own = NetNs::own().unwrap();
        assert_eq!(own.to_string().parse::<NetNs>().unwrap(), own);
        for text in ["", "1", "1 x", "x 1", "1 2 3"] {
            assert!(text.parse::<NetNs>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn without_a_cookie_nothing_is_certain() {
        let old: NetNs = "4026531840 0".parse().unwrap();
        assert!(!old.is(&old));
        let new: NetNs = "4026531840 7".parse().unwrap();
        assert!(new.is(&new) && !new.is(&old));
        assert!(!new.is(&"4026531840 8".parse().unwrap()));
    }

    #[test]
    fn a_thread_inside_changes_no_other() {
        let before = NetNs::own().unwrap();
        let own = File::open("/proc/self/ns/net").unwrap();
        match within(own.as_fd(), NetNs::own) {
            Ok(there) => assert_eq!(there.unwrap(), before),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
        assert_eq!(NetNs::own().unwrap(), before);
    }
}
