//! Where an instance is pinned: `/sys/fs/bpf/egress-agent/<instance>/<abi version>/`.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use egress_common::abi::ABI_VERSION;

use crate::host::{
    owned,
    switch::{self, Step},
};

/// Where the bpf file system is expected.
pub const MOUNT: &str = "/sys/fs/bpf";
/// The folder of all instances, below the mount.
const NAME: &str = "egress-agent";
/// The same as a path.
const FOLDER: &str = "/sys/fs/bpf/egress-agent";

/// The pin folder of one instance.
#[derive(Clone, Debug)]
pub struct PinFolder {
    instance: PathBuf,
    versioned: PathBuf,
}

impl PinFolder {
    /// The folder of an instance, which must not exist yet.
    pub fn create(instance: &str) -> io::Result<Self> {
        let folder = Self::of(instance);
        owned::folder(Path::new(MOUNT), NAME, 0o700)?;
        private_folder().create(&folder.instance)?;
        private_folder().create(&folder.versioned)?;
        Ok(folder)
    }

    /// The folder of an instance, whether it exists or not.
    pub fn of(instance: &str) -> Self {
        let instance = Path::new(FOLDER).join(instance);
        let versioned = instance.join(ABI_VERSION.to_string());
        Self {
            instance,
            versioned,
        }
    }

    /// Instances that have a folder. What belongs to somebody else is none: its owner may still
    /// change it, and could lead whoever removes it anywhere.
    pub fn instances() -> io::Result<Vec<String>> {
        // Before it is looked into: it could be a link of somebody else's to another folder.
        match fs::symlink_metadata(FOLDER) {
            Ok(_) => drop(owned::folder(Path::new(MOUNT), NAME, 0o700)?),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(FOLDER)? {
            let entry = entry?;
            let facts = entry.metadata()?;
            if let Ok(name) = entry.file_name().into_string()
                && facts.is_dir()
                && facts.uid() == 0
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Path of a pinned map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.versioned.join(format!("map_{name}"))
    }

    /// Path of a pinned link.
    pub fn link(&self, name: &str) -> PathBuf {
        self.versioned.join(format!("link_{name}"))
    }

    /// Paths of all pinned links, of whatever version.
    pub fn links(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = self.files()?;
        files.retain(|file| is_link(file));
        Ok(files)
    }

    /// Removes the pins, links first, and with the last reference the enforcement. The
    /// caller has made sure that nothing is left to confine. What others put there goes too: a
    /// bpf file system holds nothing but pins and links to files.
    pub fn remove(&self) -> io::Result<()> {
        let (mut files, folders) = self.tree()?;
        files.sort_by_key(|file| !is_link(file));
        for file in files {
            ignore_missing(fs::remove_file(file))?;
            switch::reached(Step::FirstUnpinned);
        }
        for folder in folders.iter().rev() {
            ignore_missing(fs::remove_dir(folder))?;
        }
        Ok(())
    }

    /// Removes the pins of links whose names begin so; with the last reference the programs
    /// are detached.
    pub fn remove_links(&self, prefix: &str) -> io::Result<()> {
        let start = format!("link_{prefix}");
        for file in self.files()? {
            let name = file.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(start.as_bytes()) {
                ignore_missing(fs::remove_file(&file))?;
            }
        }
        Ok(())
    }

    /// Pinned files of every version.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        self.tree().map(|(files, _)| files)
    }

    /// Everything of the instance: files, and folders with parents before children.
    fn tree(&self) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for above in [Path::new(FOLDER), &self.instance] {
            match fs::symlink_metadata(above) {
                Ok(facts) if facts.is_dir() && facts.uid() == 0 => {}
                Ok(_) => {
                    let why = format!("{} is not a folder of root", above.display());
                    return Err(io::Error::new(ErrorKind::PermissionDenied, why));
                }
                Err(error) => {
                    ignore_missing(Err(error))?;
                    return Ok((files, folders));
                }
            }
        }
        let mut found = vec![self.instance.clone()];
        while let Some(path) = found.pop() {
            match fs::symlink_metadata(&path) {
                Ok(facts) if facts.is_dir() => {
                    for entry in fs::read_dir(&path)? {
                        found.push(entry?.path());
                    }
                    folders.push(path);
                }
                Ok(_) => files.push(path),
                Err(error) => ignore_missing(Err(error))?,
            }
        }
        Ok((files, folders))
    }
}

fn is_link(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"link_"))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn private_folder() -> fs::DirBuilder {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700);
    builder
}
