//! Sees when a policy file changes, whether it is written or replaced.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;

use crate::host::stamp::Stamp;

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// A file that changed is read once it has not changed for so long: editors write in pieces,
/// or take the old file away first.
const SETTLED: Duration = Duration::from_millis(200);

/// The file at a path. Links are followed at each look, so that a link which is turned to
/// another file counts as a change.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    read: Option<Stamp>,
}

impl Watch {
    /// Watches a path. The first [`Watch::changed`] comes at once: whatever happened between
    /// the first reading of the file and now is not missed.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: None,
        }
    }

    /// Waits for the next change. Safe to cancel.
    pub async fn changed(&mut self) {
        loop {
            let seen = Stamp::of(&self.path);
            if seen != self.read {
                sleep(SETTLED).await;
                if Stamp::of(&self.path) == seen {
                    self.read = seen;
                    return;
                }
            } else {
                sleep(EVERY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tokio::time::timeout;

    use super::*;

    async fn changes(watch: &mut Watch) -> bool {
        timeout(Duration::from_secs(3), watch.changed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn every_kind_of_change_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("p"), folder.path().join("q"));
        std::fs::write(&path, "1").unwrap();
        let mut watch = Watch::new(&path);
        assert!(changes(&mut watch).await, "the first look");
        assert!(!changes(&mut watch).await);
        std::fs::write(&path, "2").unwrap();
        assert!(changes(&mut watch).await, "written");
        std::fs::write(&other, "3").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(changes(&mut watch).await, "replaced");
        std::fs::remove_file(&path).unwrap();
        assert!(changes(&mut watch).await, "taken away");
        std::os::unix::fs::symlink(&other, &path).unwrap();
        std::fs::write(&other, "4").unwrap();
        assert!(changes(&mut watch).await, "a link");
        assert!(!changes(&mut watch).await);
    }
}
