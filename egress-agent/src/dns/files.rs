//! The host's own files about names, read again whenever they have changed.
//!
//! Each use looks at the files' state first, as glibc does (`resolv/resolv_conf.c`): a call of
//! stat(2) for each name that goes to a server. They are those of the agent's mount namespace,
//! which the connector's is made from.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::fcntl::OFlag;

use super::{
    hosts::{self, Hosts},
    news::News,
    resolv_conf::ResolvConf,
    servers::Servers,
};
use crate::host::{follow::Follow, stamp::Stamp};

/// Where the files are.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where names with addresses are.
pub const HOSTS: &str = "/etc/hosts";
/// Bytes of a `resolv.conf` that are read.
const MAX_RESOLV_CONF: usize = 64 << 10;

/// Both files.
#[derive(Debug)]
pub struct Files {
    servers: Mutex<Seen<Servers>>,
    hosts: Mutex<Seen<Hosts>>,
}

impl Default for Files {
    fn default() -> Self {
        Self::at(RESOLV_CONF.into(), HOSTS.into())
    }
}

impl Files {
    /// Files in other places.
    pub fn at(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        Self {
            servers: Mutex::new(Seen::new(resolv_conf)),
            hosts: Mutex::new(Seen::new(hosts)),
        }
    }

    /// Their paths.
    pub fn paths(&self) -> Vec<PathBuf> {
        vec![
            lock(&self.servers).path.clone(),
            lock(&self.hosts).path.clone(),
        ]
    }

    /// The servers that the host asks now; the same ones as long as the file stays.
    pub(super) fn servers(&self) -> Arc<Servers> {
        lock(&self.servers).now(MAX_RESOLV_CONF, |text| {
            let read = ResolvConf::read(&text);
            Servers::new(&read.servers, read.options)
        })
    }

    /// The names that the host knows without asking.
    pub(super) fn hosts(&self) -> Arc<Hosts> {
        lock(&self.hosts).now(hosts::MAX_BYTES, Hosts::read)
    }
}

/// Follows the files until it is dropped, and asks for names again whenever one of them has
/// changed.
pub(super) async fn follow(files: &Files, news: &News) {
    let paths = files.paths();
    let following = Follow::new(paths.clone());
    let mut seen: Option<Vec<Option<Stamp>>> = None;
    loop {
        let look = || {
            let now: Vec<_> = paths.iter().map(|path| Stamp::of(path)).collect();
            if seen.as_ref().is_some_and(|before| *before != now) {
                news.ask_again();
            }
            seen = Some(now);
        };
        following.changed(look).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a file said when it was read last.
#[derive(Debug)]
struct Seen<T> {
    path: PathBuf,
    read: Option<(Option<Stamp>, Arc<T>)>,
}

impl<T> Seen<T> {
    fn new(path: PathBuf) -> Self {
        Self { path, read: None }
    }

    /// What it says now. A file that is not there, or cannot be read, says nothing.
    fn now(&mut self, most: usize, read: impl FnOnce(Vec<u8>) -> T) -> Arc<T> {
        let stamp = Stamp::of(&self.path);
        if let Some((seen, value)) = &self.read
            && *seen == stamp
        {
            return Arc::clone(value);
        }
        // If it changes while it is read, its state is another one the next time.
        let value = Arc::new(read(text(&self.path, most).unwrap_or_default()));
        self.read = Some((stamp, Arc::clone(&value)));
        value
    }
}

fn text(path: &Path, most: usize) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Something else than a file must not hold up whoever asks.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    // One more, so that it is seen to be too long.
    let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}
