//! Where shapes are kept between runs: a file for each connector that root alone writes.
//!
//! The proxy opens no file, so the agent keeps them. A thread of its own writes, so that nothing
//! waits for a disk.

use std::{
    fs::{File, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use egress_envelope::shape::{Baseline, Noted};
use nix::{
    fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat},
    sys::stat::{Mode, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};
use tokio::sync::watch;

use crate::host::owned;

/// Where state lives that outlives a boot.
const STATE: &str = "/var/lib";
/// Longest file that is read. Bytes.
const MAX_FILE: u64 = 16 << 20;
/// How long what was noted may wait for the disk, and an operator for the proxy.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// The file of one connector.
pub struct Shapes {
    folder: std::os::fd::OwnedFd,
    name: String,
}

impl Shapes {
    /// The folder is made where it is missing. `connector`: a name as policies have it.
    pub fn open(connector: &str) -> io::Result<Self> {
        let own = owned::folder(Path::new(STATE), "egress-agent", 0o700)?;
        Ok(Self {
            folder: owned::below(&own, "shapes", 0o700)?,
            name: format!("{connector}.json"),
        })
    }

    /// Where it is, for people.
    pub fn path(&self) -> PathBuf {
        Path::new(STATE)
            .join("egress-agent/shapes")
            .join(&self.name)
    }

    /// What is kept. Nothing where there is no file.
    pub fn load(&self) -> io::Result<Baseline> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = match openat(&self.folder, self.name.as_str(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(nix::errno::Errno::ENOENT) => return Ok(Baseline::default()),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let path = self.path();
            let why = format!("{} is not readable ({error}); remove it", path.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    /// Changes what is kept, whole or not at all, and nobody else meanwhile.
    pub fn change<T>(&self, change: impl FnOnce(&mut Baseline) -> T) -> io::Result<(Baseline, T)> {
        let lock = File::from(self.folder.try_clone()?);
        let _alone = Flock::lock(reopened(&lock)?, FlockArg::LockExclusive)
            .map_err(|(_, error)| io::Error::from(error))?;
        let mut baseline = self.load()?;
        let answer = change(&mut baseline);
        let new = format!("{}.new", self.name);
        match unlinkat(&self.folder, new.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let mut file = File::from(openat(&self.folder, new.as_str(), flags, mode)?);
        file.set_permissions(Permissions::from_mode(0o600))?;
        serde_json::to_writer_pretty(&mut file, &baseline)?;
        file.write_all(b"\n")?;
        file.sync_data()?;
        renameat(&self.folder, new.as_str(), &self.folder, self.name.as_str())?;
        Ok((baseline, answer))
    }

    /// Which file it is now: another one after every change.
    fn stamp(&self) -> Option<(u64, i64, i64)> {
        let facts = fstatat(
            &self.folder,
            self.name.as_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
        .ok()?;
        Some((facts.st_ino, facts.st_mtime, facts.st_mtime_nsec))
    }
}

/// The folder once more: a lock belongs to one opening.
fn reopened(folder: &File) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let own = File::from(openat(folder, ".", flags, Mode::empty())?);
    debug_assert_eq!(own.metadata()?.ino(), folder.metadata()?.ino());
    Ok(own)
}

/// Who keeps what a running connector shows.
pub struct Keeper {
    noted: Option<Sender<Noted>>,
    /// `Err`: why the last of it could not be written.
    thread: Option<JoinHandle<Result<(), String>>>,
    baseline: watch::Receiver<Baseline>,
}

impl Keeper {
    /// Nobody: no rule looks at shapes.
    pub fn nobody() -> Self {
        Self {
            noted: None,
            thread: None,
            baseline: watch::Sender::new(Baseline::default()).subscribe(),
        }
    }

    /// Reads what is kept, and keeps what comes.
    pub fn start(shapes: Shapes, version: String) -> io::Result<Self> {
        let sender = watch::Sender::new(shapes.load()?);
        let baseline = sender.subscribe();
        let (noted, notes) = channel();
        let thread = thread::Builder::new()
            .name("shapes".to_owned())
            .spawn(move || keep(&shapes, &version, &notes, &sender))?;
        Ok(Self {
            noted: Some(noted),
            thread: Some(thread),
            baseline,
        })
    }

    /// What is kept, and what the operator makes of it.
    pub fn baseline(&self) -> watch::Receiver<Baseline> {
        self.baseline.clone()
    }

    /// Keeps what was new in a request that passed.
    pub fn note(&self, noted: Noted) {
        if let Some(keeper) = &self.noted {
            // Gone with a warning of its own, at the end.
            let _gone = keeper.send(noted);
        }
    }

    /// Writes what is left. Answers what people should know.
    pub fn finish(&mut self) -> Option<String> {
        self.noted = None;
        let ended = self.thread.take()?.join();
        match ended.unwrap_or_else(|_| Err("its thread ended".to_owned())) {
            Ok(()) => None,
            Err(error) => Some(format!(
                "what requests had in them could not be kept: {error}"
            )),
        }
    }
}

fn keep(
    shapes: &Shapes,
    version: &str,
    notes: &Receiver<Noted>,
    sender: &watch::Sender<Baseline>,
) -> Result<(), String> {
    let (mut waiting, mut known) = (Vec::new(), shapes.stamp());
    loop {
        let ends = match notes.recv_timeout(WRITTEN_WITHIN) {
            Ok(noted) => {
                waiting.push(noted);
                // Together with those that come meanwhile.
                thread::sleep(WRITTEN_WITHIN / 8);
                waiting.extend(notes.try_iter());
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        let by_others = shapes.stamp() != known;
        if waiting.is_empty() && !by_others {
            if ends {
                return Ok(());
            }
            continue;
        }
        let written = if waiting.is_empty() {
            shapes.load()
        } else {
            let note = |baseline: &mut Baseline| {
                for Noted { operation, new, .. } in &waiting {
                    baseline.note(operation, new, version);
                }
            };
            shapes.change(note).map(|(baseline, ())| baseline)
        };
        let failed = match written {
            Ok(baseline) => {
                if by_others {
                    sender.send_replace(baseline);
                }
                waiting.clear();
                known = shapes.stamp();
                Ok(())
            }
            // What waits is kept for the next time, bounded.
            Err(error) => {
                waiting.truncate(4_096);
                Err(error.to_string())
            }
        };
        if ends {
            return failed;
        }
    }
}
