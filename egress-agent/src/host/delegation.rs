//! The part of the hierarchy that this process was given to manage, as systemd gives it to a
//! unit with `Delegate=yes` (systemd.resource-control(5)). Groups made there stay within the
//! unit's limits and end with it.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{fs::getxattr, io::Errno};

use super::cgroup::{Cgroup, CgroupError, Hierarchy, gone, io_error};

/// What systemd writes on a group that it delegates. Only CAP_SYS_ADMIN writes such names
/// (xattr(7)), so no user can pretend to have delegated something.
const MARK: &str = "trusted.delegate";
/// Whoever writes to these moves processes (Documentation/admin-guide/cgroup-v2.rst).
const MOVES: [&str; 3] = ["", "cgroup.procs", "cgroup.threads"];

impl Hierarchy {
    /// The nearest group, this process's own or one above it, that was delegated and that root
    /// alone can change: a user who may move processes could move a connector out of it.
    pub fn delegated(&self) -> Result<Option<Cgroup>, CgroupError> {
        let own = match self.own() {
            Ok(own) => own,
            // The mount does not show it.
            Err(CgroupError::Namespace(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let above: Vec<PathBuf> = own
            .path()
            .ancestors()
            .take_while(|path| path.starts_with(self.mount()))
            .map(Path::to_owned)
            .collect();
        for (place, path) in above.iter().enumerate() {
            if is_marked(path)? {
                let way = above.get(place..).unwrap_or_default();
                if !roots_alone(way)? {
                    return Ok(None);
                }
                let inside = path.strip_prefix(self.mount());
                return inside.map(|inside| self.cgroup(inside)).ok().transpose();
            }
        }
        Ok(None)
    }

    /// Groups of root's that have this name, below a group of that name, wherever they are.
    pub fn named(&self, above: &str, name: &str) -> Result<Vec<Cgroup>, CgroupError> {
        let tail = Path::new(above).join(name);
        let mut found = Vec::new();
        for path in self.cgroup("")?.with_children()? {
            let Ok(inside) = path.strip_prefix(self.mount()) else {
                continue;
            };
            if !inside.ends_with(&tail) {
                continue;
            }
            match fs::metadata(&path) {
                Ok(facts) if facts.uid() == 0 => found.push(self.cgroup(inside)?),
                Ok(_) => {}
                Err(error) if gone(&error) => {}
                // One that is passed over would be left with nothing that confines it.
                Err(error) => return Err(io_error("look at", &path, error)),
            }
        }
        Ok(found)
    }
}

fn is_marked(path: &Path) -> Result<bool, CgroupError> {
    let mut value = [0; 8];
    match getxattr(path, MARK, &mut value[..]) {
        Ok(length) => Ok(value.get(..length) == Some(b"1")),
        // Removed, never marked, or a kernel without such names.
        Err(Errno::NOENT | Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(io_error("read the attributes of", path, error.into())),
    }
}

/// Whether none but root can make groups in these, or move processes into them.
fn roots_alone(folders: &[PathBuf]) -> Result<bool, CgroupError> {
    for path in folders
        .iter()
        .flat_map(|folder| MOVES.map(|file| folder.join(file)))
    {
        match path.metadata() {
            Ok(facts) if facts.uid() == 0 && facts.mode() & 0o022 == 0 => {}
            Ok(_) => return Ok(false),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(io_error("look at", &path, error)),
        }
    }
    Ok(true)
}
