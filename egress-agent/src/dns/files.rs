//! The host's own files about names, read again whenever they have changed.
//!
//! Each use looks at the files' state first, as glibc does (`resolv/resolv_conf.c`): a call of
//! stat(2) for each name that goes to a server. They are those of the agent's mount namespace,
//! which the connector's is made from. `resolv.conf` may be anybody's who manages the network
//! (systemd-resolved has a user of its own); names of a `hosts` file count where it is root's.

use std::{
    fs::{File, Metadata},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{fcntl::OFlag, unistd::geteuid};

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

impl Files {
    /// Those of this host, for a connector that runs as this user.
    pub fn of_host(user: u32) -> Self {
        Self::at(RESOLV_CONF.into(), HOSTS.into(), user)
    }

    /// Files in other places.
    pub fn at(resolv_conf: PathBuf, hosts: PathBuf, user: u32) -> Self {
        Self {
            servers: Mutex::new(Seen::new(resolv_conf, user, false)),
            hosts: Mutex::new(Seen::new(hosts, user, true)),
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
    /// Whom the connector runs as.
    user: u32,
    /// It counts only where it is root's.
    roots: bool,
    read: Option<(Option<Stamp>, Arc<T>)>,
}

impl<T> Seen<T> {
    fn new(path: PathBuf, user: u32, roots: bool) -> Self {
        Self {
            path,
            user,
            roots,
            read: None,
        }
    }

    /// What it says now. A file that is not there, or cannot be read, says nothing. What a
    /// connector could have written after its start is not read.
    fn now(&mut self, most: usize, read: impl FnOnce(Vec<u8>) -> T) -> Arc<T> {
        let stamp = Stamp::of(&self.path);
        let before = self.read.take();
        let value = match before {
            Some((seen, value)) if seen == stamp => value,
            before => {
                // If it changes while it is read, its state is another one the next time.
                let text = match open(&self.path) {
                    Ok((file, about)) => {
                        let safe = self.is_safe(&about);
                        match before {
                            Some((_, value)) if !safe && !self.roots => Err(value),
                            _ if !safe && self.roots => Ok(Vec::new()),
                            _ => Ok(text(file, most).unwrap_or_default()),
                        }
                    }
                    Err(_) => Ok(Vec::new()),
                };
                text.map_or_else(|value| value, |text| Arc::new(read(text)))
            }
        };
        self.read = Some((stamp, Arc::clone(&value)));
        value
    }

    /// Whether the connector cannot write the file. Who could would choose the addresses of
    /// permitted names itself, or who is asked for them. The bits of the group are also the
    /// mask of an access list (acl(5)).
    fn is_safe(&self, about: &Metadata) -> bool {
        let owner = about.uid();
        let roots = owner == 0 || owner == geteuid().as_raw();
        owner != self.user && (roots || !self.roots) && about.mode() & 0o022 == 0
    }
}

/// Something else than a file must not hold up whoever asks.
fn open(path: &Path) -> std::io::Result<(File, Metadata)> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    Ok((file, about))
}

fn text(file: File, most: usize) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // One more, so that it is seen to be too long.
    let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn seen(user: u32, roots: bool) -> (tempfile::TempDir, Seen<Vec<u8>>) {
        let folder = tempfile::tempdir().unwrap();
        let seen = Seen::new(folder.path().join("file"), user, roots);
        (folder, seen)
    }

    fn now(seen: &mut Seen<Vec<u8>>) -> String {
        String::from_utf8(seen.now(100, |text| text).to_vec()).unwrap()
    }

    /// Whoever the tests run as stands for root; the connector is another user.
    fn stranger() -> u32 {
        geteuid().as_raw() + 1
    }

    #[test]
    fn a_file_is_read_again_when_it_changes() {
        for roots in [false, true] {
            let (_folder, mut seen) = seen(stranger(), roots);
            assert_eq!(now(&mut seen), "");
            for text in ["1", "22", "333"] {
                fs::write(&seen.path, text).unwrap();
                assert_eq!(now(&mut seen), text);
            }
            fs::remove_file(&seen.path).unwrap();
            assert_eq!(now(&mut seen), "");
        }
    }

    #[test]
    fn what_the_connector_could_write_is_not_read_again() {
        let own = geteuid().as_raw();
        for (user, mode) in [(own, 0o644), (stranger(), 0o664), (stranger(), 0o646)] {
            let (_folder, mut servers) = seen(user, false);
            fs::write(&servers.path, "at the start").unwrap();
            fs::set_permissions(&servers.path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(now(&mut servers), "at the start");
            fs::write(&servers.path, "by the connector").unwrap();
            assert_eq!(now(&mut servers), "at the start", "{user} {mode:o}");
            let (_folder, mut hosts) = seen(user, true);
            fs::write(&hosts.path, "at the start").unwrap();
            fs::set_permissions(&hosts.path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(now(&mut hosts), "", "{user} {mode:o}");
        }
    }
}
