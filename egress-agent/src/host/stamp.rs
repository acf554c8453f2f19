//! What tells one state of a file from another.

use std::{os::unix::fs::MetadataExt as _, path::Path};

/// The state of the file that a path leads to. Links are followed at each look, so that a link
/// that is turned to another file is a change. Programs cannot set the change time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is no such file now, or it cannot be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}
