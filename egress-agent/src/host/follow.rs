//! Waits until files may have changed, however they are changed.
//!
//! `/etc/resolv.conf` is written in place, replaced by a rename, or a link (to a file of
//! systemd-resolved's or NetworkManager's) whose target is; in a container it is a mount of
//! its own. So the file, each link on the way to it, and the folders they stand in are
//! watched (inotify(7)).

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::{
    net::unix::pipe::Receiver,
    time::{sleep, timeout},
};

/// Links that are followed; the kernel itself follows 40 (path_resolution(7)).
const MAX_LINKS: usize = 8;
/// Who writes a file in pieces is given so long to end.
const SETTLED: Duration = Duration::from_millis(50);
/// How often the files are looked at all the same: not every file system tells of changes.
const REGARDLESS: Duration = Duration::from_secs(30);
/// How often, where the kernel gives no watch (`fs.inotify.max_user_instances`).
const UNWATCHED: Duration = Duration::from_secs(2);

/// Files that are followed.
#[derive(Debug)]
pub struct Follow {
    paths: Vec<PathBuf>,
}

impl Follow {
    /// Follows these paths; they need not exist.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths }
    }

    /// Returns when something happened to one of the files or near it, or some time has
    /// passed. `watched` is run when the watch stands: what it looks at cannot change unseen.
    /// Safe to cancel.
    pub async fn changed(&self, watched: impl FnOnce()) {
        let Ok(watch) = self.watch() else {
            watched();
            return sleep(UNWATCHED).await;
        };
        watched();
        // A time-out, a failed read and an event all mean: look.
        let _look = timeout(REGARDLESS, watch.readable()).await;
        sleep(SETTLED).await;
    }

    fn watch(&self) -> io::Result<Receiver> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let places: BTreeSet<PathBuf> = self.paths.iter().flat_map(|path| places(path)).collect();
        let mut watched = false;
        for place in places {
            // One that is not there is seen to appear in its folder.
            watched |= inotify.add_watch(&place, flags()).is_ok();
        }
        if !watched {
            return Err(io::ErrorKind::NotFound.into());
        }
        // tokio has no name for it; it is read like a pipe, and only ever waited for.
        Receiver::from_owned_fd_unchecked(inotify.into())
    }
}

fn flags() -> AddWatchFlags {
    AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ATTRIB
        // Links are places of their own.
        | AddWatchFlags::IN_DONT_FOLLOW
}

/// The path, what its links lead to, and the folders of each.
fn places(path: &Path) -> Vec<PathBuf> {
    let mut places = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..=MAX_LINKS {
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        // The folder may be reached by a link, as `/var/run` is.
        places.push(folder.canonicalize().unwrap_or_else(|_| folder.clone()));
        places.push(path.clone());
        match std::fs::read_link(&path) {
            Ok(target) => path = folder.join(target),
            Err(_) => break,
        }
    }
    places
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{
        fs,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    /// Whether a change is noticed well before files are looked at regardless.
    async fn seen(path: &Path, change: impl FnOnce()) -> bool {
        let follow = Follow::new(vec![path.to_owned()]);
        let stands = AtomicBool::new(false);
        let waiting = follow.changed(|| stands.store(true, Ordering::SeqCst));
        let changing = async {
            while !stands.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            change();
        };
        let both = async { tokio::join!(waiting, changing) };
        timeout(Duration::from_secs(5), both).await.is_ok()
    }

    #[tokio::test]
    async fn a_file_is_followed_however_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let path = at("resolv.conf");
        assert!(seen(&path, || fs::write(&path, "1").unwrap()).await, "made");
        assert!(
            seen(&path, || fs::write(&path, "2").unwrap()).await,
            "written"
        );
        fs::write(at("new"), "3").unwrap();
        let renamed = seen(&path, || fs::rename(at("new"), &path).unwrap());
        assert!(renamed.await, "replaced");
        let removed = seen(&path, || fs::remove_file(&path).unwrap());
        assert!(removed.await, "removed");
        assert!(!seen(&path, || ()).await, "nothing");
    }

    #[tokio::test]
    async fn links_are_followed_to_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("run")).unwrap();
        fs::create_dir(at("etc")).unwrap();
        let (path, target) = (at("etc/resolv.conf"), at("run/resolv.conf"));
        fs::write(&target, "1").unwrap();
        symlink("../run/resolv.conf", &path).unwrap();
        let written = seen(&path, || fs::write(&target, "2").unwrap());
        assert!(written.await, "its target is written");
        fs::write(at("run/new"), "3").unwrap();
        let renamed = seen(&path, || fs::rename(at("run/new"), &target).unwrap());
        assert!(renamed.await, "its target is replaced");
        symlink("../run/other", at("etc/new")).unwrap();
        let turned = seen(&path, || fs::rename(at("etc/new"), &path).unwrap());
        assert!(turned.await, "it is turned");
        let appeared = seen(&path, || fs::write(at("run/other"), "4").unwrap());
        assert!(appeared.await, "its target appears");
    }
}
