//! The instance's own file: `<connector>.<instance>.jsonl`, bounded and rotated.

use std::{fs::File, io::Write, time::Duration};

use nix::fcntl::{Flock, FlockArg};

use super::{Folder, Sink, SinkError, append, append::Queue};
use crate::{event::model::Record, host::inherited::file_limit};

/// Bytes after which a file is rotated.
pub const MAX_BYTES: u64 = 8 << 20;
/// Instances that have ended and whose files are kept.
pub const MAX_ENDED: usize = 64;
/// How an instance's file name ends; its older half has a `.1` behind that.
pub const SUFFIX: &str = ".jsonl";
/// How the name of the older half ends.
pub const OLD_SUFFIX: &str = ".jsonl.1";
/// A file that nobody holds may be of an instance that is just starting.
const STARTING: Duration = Duration::from_secs(60);

/// A bounded file of lines: the newest up to [`MAX_BYTES`] and once as much before them.
///
/// The file is locked (flock(2)) as long as its instance lives, which is how others know.
pub struct Jsonl {
    folder: Folder,
    name: String,
    file: Option<Flock<File>>,
    size: u64,
    limit: u64,
    queue: Queue,
    fault: Option<String>,
}

impl Jsonl {
    /// Makes the file of a new instance in the folder that `egress-agent events` reads, and
    /// tidies up after instances that ended.
    pub fn start(connector: &str, instance: &str) -> Result<Self, SinkError> {
        let folder = Folder::events()?;
        prune(&folder)?;
        Self::create(folder, connector, instance)
    }

    /// Makes the file of a new instance in a folder. The instance's name has no dot.
    pub fn create(folder: Folder, connector: &str, instance: &str) -> Result<Self, SinkError> {
        // Where files may hold no more, the older half makes room sooner.
        let limit = file_limit().map_or(MAX_BYTES, |limit| limit.min(MAX_BYTES));
        Self::with_limit(folder, connector, instance, limit)
    }

    fn with_limit(
        folder: Folder,
        connector: &str,
        instance: &str,
        limit: u64,
    ) -> Result<Self, SinkError> {
        let plain = |name: &str, dots: bool| {
            let fits = |byte: u8| {
                byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (dots && byte == b'.')
            };
            !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits)
        };
        for (part, dots) in [(connector, true), (instance, false)] {
            if !plain(part, dots) {
                return Err(SinkError::Name(part.to_owned()));
            }
        }
        let name = format!("{connector}.{instance}{SUFFIX}");
        let file = locked(folder.create(&name)?, &folder, &name)?;
        Ok(Self {
            folder,
            name,
            file: Some(file),
            size: 0,
            limit,
            queue: Queue::default(),
            fault: None,
        })
    }

    /// The path of the file.
    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path().join(&self.name)
    }

    fn write(&mut self) -> Result<(), SinkError> {
        while !self.queue.next().is_empty() {
            self.rotate_if_full()?;
            let Some(file) = &mut self.file else {
                return Ok(());
            };
            match file.write(self.queue.next()) {
                Ok(bytes) => {
                    self.queue.advance(bytes);
                    self.size += u64::try_from(bytes).unwrap_or(u64::MAX);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SinkError::io("write", &self.path(), error)),
            }
        }
        Ok(())
    }

    fn rotate_if_full(&mut self) -> Result<(), SinkError> {
        let next = u64::try_from(self.queue.next().len()).unwrap_or(u64::MAX);
        let full = self.size > 0 && self.size.saturating_add(next) > self.limit;
        if self.file.is_some() && (!full || self.queue.is_inside_line()) {
            return Ok(());
        }
        if self.file.is_some() {
            let old = format!("{}{OLD_SUFFIX}", self.name.trim_end_matches(SUFFIX));
            self.folder.rename(&self.name, &old)?;
            self.file = None;
        }
        let file = self.folder.create(&self.name)?;
        self.file = Some(locked(file, &self.folder, &self.name)?);
        self.size = 0;
        Ok(())
    }
}

impl Sink for Jsonl {
    fn push(&mut self, _: &Record, json: &[u8]) {
        self.queue.push(json);
        if self.queue.is_large() && self.fault.is_none() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.fault = self.write().err().map(|error| error.to_string());
    }

    fn take_unwritten(&mut self) -> u64 {
        self.queue.take_given_up()
    }

    fn fault(&self) -> Option<String> {
        self.fault.clone()
    }

    fn close(&mut self) {
        append::close(self, |sink| sink.queue.give_up());
    }
}

fn locked(file: File, folder: &Folder, name: &str) -> Result<Flock<File>, SinkError> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| SinkError::io("lock", &folder.path().join(name), error))
}

/// Removes the files of ended instances, oldest first, until [`MAX_ENDED`] are left.
/// Answers how many instances were removed.
pub fn prune(folder: &Folder) -> Result<usize, SinkError> {
    prune_to(folder, MAX_ENDED, STARTING)
}

fn prune_to(folder: &Folder, keep: usize, starting: Duration) -> Result<usize, SinkError> {
    let fail = |error| SinkError::io("list", folder.path(), error);
    let mut ended = Vec::new();
    for entry in std::fs::read_dir(folder.path()).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        // The older half of an instance whose newer one is gone is a left-over too.
        let base = name.trim_end_matches(".1");
        if !base.ends_with(SUFFIX) || (base != name && folder.path().join(base).exists()) {
            continue;
        }
        let Ok(written) = entry.metadata().and_then(|facts| facts.modified()) else {
            continue;
        };
        if written.elapsed().is_ok_and(|age| age >= starting) && !is_live(folder, &name) {
            ended.push((written, base.to_owned()));
        }
    }
    ended.sort();
    let surplus = ended.len().saturating_sub(keep);
    for (_, name) in ended.iter().take(surplus) {
        folder.remove(&format!("{name}.1"))?;
        folder.remove(name)?;
    }
    Ok(surplus)
}

/// Whether the instance of a file still runs. One that cannot be asked counts as running.
fn is_live(folder: &Folder, name: &str) -> bool {
    folder
        .read(name)
        .ok()
        .is_none_or(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}

#[cfg(test)]
#[path = "jsonl_tests.rs"]
pub(crate) mod tests;
