//! Where a program is about to make a unix socket, so that a refusal is a line.
//!
//! Landlock is what refuses ([`super::scope`]), and tells nobody. What is found here decides
//! nothing that it would not: a program that changes its address meanwhile, or hides the way to it,
//! only keeps a line out of the stream.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::FileExt as _,
        },
    },
    path::{Path, PathBuf},
};

use egress_sys::notify::Call;
use nix::libc;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2, statat},
    io::Errno,
};

/// `sizeof(struct sockaddr_un)`, `include/uapi/linux/un.h`.
const ADDRESS: usize = 110;
/// Bytes in front of its path.
const FAMILY: usize = 2;
/// A path in the kernel has half as many parts at most (`PATH_MAX`).
const DEEP: usize = 2048;

/// The folders in which a connector can make sockets.
#[derive(Clone, Debug)]
pub struct Binds {
    /// In its own view of the file system.
    pub own: Vec<PathBuf>,
    /// Elsewhere it is refused, and not only reported.
    pub enforced: bool,
}

/// A directory, whatever path leads there.
type Id = (u64, u64);

impl Binds {
    /// The path at which `bind()` would make a socket that the connector may not make, as its
    /// program wrote it. `None`: it may, or the kernel has another answer ready, or nobody knows.
    pub fn outside(&self, call: &Call) -> Option<Vec<u8>> {
        let path = address(call).ok().flatten()?;
        // What cannot be looked at is the kernel's to answer.
        let outside = self.leads_outside(call.tid, Path::new(OsStr::from_bytes(&path)));
        outside.unwrap_or(false).then_some(path)
    }

    fn leads_outside(&self, tid: u32, path: &Path) -> io::Result<bool> {
        let folder = |name: &str| PathBuf::from(format!("/proc/{tid}/{name}"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, folder("root"), flags, Mode::empty())?;
        let whole = if path.is_absolute() {
            path.to_owned()
        } else {
            fs::read_link(folder("cwd"))?.join(path)
        };
        // A slash at the end makes another call of it, which the kernel refuses by itself.
        let (Some(parent), Some(name), false) = (
            whole.parent(),
            whole.file_name(),
            path.as_os_str().as_bytes().ends_with(b"/"),
        ) else {
            return Ok(false);
        };
        let open = |path: &Path| -> io::Result<OwnedFd> {
            let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            Ok(openat2(&root, path, flags, Mode::empty(), inside)?)
        };
        let parent = open(parent)?;
        match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            // Something is there already: EADDRINUSE.
            _ => return Ok(false),
        }
        let own: Vec<Id> = self
            .own
            .iter()
            .map(|folder| id(&open(folder)?))
            .collect::<io::Result<_>>()?;
        Ok(!is_below(parent, &own)?)
    }
}

/// Whether a folder is one of these, or lies in one.
fn is_below(folder: OwnedFd, own: &[Id]) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = folder;
    for _ in 0..DEEP {
        let here = id(&at)?;
        if own.contains(&here) {
            return Ok(true);
        }
        at = openat(&at, "..", flags, Mode::empty())?;
        if id(&at)? == here {
            return Ok(false);
        }
    }
    Err(io::Error::other("too deep"))
}

fn id(folder: &OwnedFd) -> io::Result<Id> {
    let found = fstat(folder)?;
    Ok((found.st_dev, found.st_ino))
}

/// The path in a call's address; `None`: it has none.
fn address(call: &Call) -> io::Result<Option<Vec<u8>>> {
    let [_, at, len, ..] = call.args;
    let Some(len) = usize::try_from(len)
        .ok()
        .filter(|len| (FAMILY + 1..=ADDRESS).contains(len))
    else {
        return Ok(None);
    };
    let mut bytes = vec![0; len];
    File::open(format!("/proc/{}/mem", call.tid))?.read_exact_at(&mut bytes, at)?;
    Ok(path(&bytes))
}

/// The path in an address's bytes (unix(7)); `None`: of another family, abstract or unnamed.
fn path(bytes: &[u8]) -> Option<Vec<u8>> {
    let (family, name) = bytes.split_first_chunk::<FAMILY>()?;
    if i32::from(u16::from_ne_bytes(*family)) != libc::AF_UNIX || name.first() == Some(&0) {
        return None;
    }
    let path = name.split(|byte| *byte == 0).next()?;
    (!path.is_empty()).then(|| OsStr::from_bytes(path).to_owned().into_vec())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test stops at its first fault")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_paths_are_paths() {
        let unix = |name: &[u8]| {
            let family = u16::try_from(libc::AF_UNIX).unwrap().to_ne_bytes();
            path(&[&family[..], name].concat())
        };
        assert_eq!(unix(b"/tmp/a\0rest"), Some(b"/tmp/a".to_vec()));
        assert_eq!(unix(b"a"), Some(b"a".to_vec()));
        assert_eq!(unix(b"\0abstract"), None);
        assert_eq!(unix(b""), None);
        assert_eq!(path(&[2, 0, 0, 80, 127, 0, 0, 1]), None);
        assert_eq!(path(&[1]), None);
    }

    /// As the kernel goes there: links, `..` and relative paths.
    #[test]
    fn what_lies_in_an_own_folder_is_not_outside() {
        let temporary = std::env::temp_dir().canonicalize().unwrap();
        let base = temporary.join(format!("binds-{}", std::process::id()));
        let own = base.join("own");
        fs::create_dir_all(own.join("deep/er")).unwrap();
        fs::create_dir(base.join("other")).unwrap();
        fs::write(base.join("other/there"), "").unwrap();
        symlink(&own, base.join("link")).unwrap();
        symlink(base.join("other"), own.join("out")).unwrap();
        let binds = Binds {
            own: vec![own.clone()],
            enforced: true,
        };
        let outside = |path: &Path| {
            let tid = nix::unistd::gettid().as_raw().cast_unsigned();
            binds.leads_outside(tid, path).unwrap_or(false)
        };
        for inside in [
            "own/s",
            "own/deep/er/s",
            "link/s",
            "other/../own/s",
            "own/s/",
        ] {
            assert!(!outside(&base.join(inside)), "{inside}");
        }
        for elsewhere in ["s", "other/s", "own/out/s", "own/../s", "link/deep/../../s"] {
            assert!(outside(&base.join(elsewhere)), "{elsewhere}");
        }
        // Relative to where the tests run, which is not below it.
        assert!(outside(Path::new("s")));
        for answered in ["other/there", "missing/s", "other/", "other/.."] {
            assert!(!outside(&base.join(answered)), "{answered}");
        }
        fs::remove_dir_all(&base).unwrap();
    }
}
