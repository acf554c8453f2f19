//! The initial file system of a machine: the tests, the programs they start, and the modules
//! of the kernel that is to run them, taken from this host and from the kernel's package.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufWriter, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::cpio::Archive;
use crate::host;

/// Where a distribution's newer layout has what older ones keep at the top.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Where programs are in a machine, and so where they are taken from; a user's own PATH may
/// lead to others.
const FOLDERS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// What will be in the file system, by path without leading `/`.
#[derive(Default)]
pub(crate) struct Image {
    entries: BTreeMap<String, Entry>,
}

enum Entry {
    Folder,
    Link(String),
    /// From this host.
    Copy(PathBuf),
    Made(u32, Vec<u8>),
}

impl Image {
    /// The bare folders.
    pub(crate) fn new() -> Self {
        let mut image = Self::default();
        for name in ["dev", "proc", "sys", "run", "tmp", "root", "etc"] {
            image.folder(name);
        }
        for name in MERGED {
            image.folder(&format!("usr/{name}"));
            let link = Entry::Link(format!("usr/{name}"));
            image.entries.insert(name.to_owned(), link);
        }
        image
    }

    /// A folder and those around it.
    pub(crate) fn folder(&mut self, path: &str) {
        let path = Path::new(path);
        for part in path.ancestors() {
            let part = part.display().to_string();
            if !part.is_empty() {
                self.entries.entry(part).or_insert(Entry::Folder);
            }
        }
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.insert(path, Entry::Link(target.to_owned()));
    }

    /// A file with this content.
    pub(crate) fn made(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.insert(path, Entry::Made(mode, bytes.into()));
    }

    /// A file of this host at another place, with the libraries it needs.
    pub(crate) fn copy(&mut self, from: &Path, to: &str) -> Result<()> {
        self.insert(to, Entry::Copy(from.to_owned()));
        for library in libraries(from)? {
            self.insert(&place(&library)?, Entry::Copy(library.clone()));
        }
        Ok(())
    }

    /// A program of this host at its place, with the libraries it needs. Errors: there is none.
    pub(crate) fn program(&mut self, name: &str) -> Result<()> {
        let path = installed(name).with_context(|| {
            format!(
                "the tests need {name}, which is in none of {}",
                FOLDERS.join(", ")
            )
        })?;
        self.copy(&path, &place(&path)?)
    }

    /// Everything below a folder of this host, at the same or another place.
    pub(crate) fn tree(&mut self, from: &Path, to: &str) -> Result<()> {
        for file in host::below(from) {
            let inside = file.strip_prefix(from)?.display().to_string();
            let to = format!("{to}/{inside}");
            let link = fs::read_link(&file).ok();
            match link.and_then(|target| target.to_str().map(str::to_owned)) {
                Some(target) if !target.starts_with('/') => self.link(&to, &target),
                _ if inside.ends_with(".so") => self.copy(&file, &to)?,
                _ => self.insert(&to, Entry::Copy(file)),
            }
        }
        Ok(())
    }

    /// Modules of a kernel and those they depend on; answers their places in the order in which
    /// they have to be loaded. What the kernel has built in, or does not have, is left out.
    pub(crate) fn modules(&mut self, folder: &Path, wanted: &[&str]) -> Result<Vec<String>> {
        let mut files = BTreeMap::new();
        for file in host::below(folder) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if let Some((name, _)) = name.split_once(".ko") {
                files.insert(name.replace('-', "_"), file.clone());
            }
        }
        let mut loading = Loading {
            files,
            seen: BTreeSet::new(),
            order: Vec::new(),
        };
        for name in wanted {
            loading.add(name)?;
        }
        let mut places = Vec::new();
        for (name, bytes) in loading.order {
            let to = format!("modules/{name}.ko");
            self.made(&to, 0o644, bytes);
            places.push(format!("/{to}"));
        }
        Ok(places)
    }

    /// Writes the archive.
    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        let file = File::create(to).with_context(|| to.display().to_string())?;
        let mut archive = Archive::new(BufWriter::new(file));
        // Sorted: a folder comes before what is in it.
        for (path, entry) in &self.entries {
            match entry {
                Entry::Folder => archive.folder(path)?,
                Entry::Link(target) => archive.link(path, target)?,
                Entry::Made(mode, bytes) => archive.file(path, *mode, 0, bytes)?,
                Entry::Copy(from) => {
                    let name = || from.display().to_string();
                    let bytes = fs::read(from).with_context(name)?;
                    let facts = fs::metadata(from).with_context(name)?;
                    let time = u32::try_from(facts.mtime()).unwrap_or_default();
                    archive.file(path, facts.mode(), time, &bytes)?;
                }
            }
        }
        archive.finish()?.flush()?;
        Ok(())
    }

    fn insert(&mut self, path: &str, entry: Entry) {
        if let Some(parent) = Path::new(path).parent() {
            self.folder(&parent.display().to_string());
        }
        self.entries.insert(path.to_owned(), entry);
    }
}

/// The program of that name that a machine would start.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let files = FOLDERS.map(|folder| Path::new(folder).join(name));
    files.into_iter().find(|file| file.is_file())
}

/// Where a file of this host goes. Its folder's true path is taken, its own name kept.
fn place(file: &Path) -> Result<String> {
    let folder = file.parent().context("no folder")?.canonicalize()?;
    let path = folder.join(file.file_name().context("no name")?);
    let path = path.strip_prefix("/")?;
    let top = path.iter().next().unwrap_or_default();
    let merged = MERGED.iter().any(|name| top == *name);
    let prefix = if merged { "usr/" } else { "" };
    Ok(format!("{prefix}{}", path.display()))
}

/// The shared libraries of a program or library, the dynamic linker among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        if format!("{text}{error}").contains("not a dynamic executable") {
            return Ok(Vec::new());
        }
        bail!("ldd {}: {}", program.display(), error.trim());
    }
    let missing = text.lines().find(|line| line.contains("not found"));
    if let Some(line) = missing {
        bail!("{}: {}", program.display(), line.trim());
    }
    let words = text.split_whitespace();
    Ok(words
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect())
}

/// Modules in the order in which they can be loaded.
struct Loading {
    files: BTreeMap<String, PathBuf>,
    seen: BTreeSet<String>,
    order: Vec<(String, Vec<u8>)>,
}

impl Loading {
    fn add(&mut self, name: &str) -> Result<()> {
        let name = name.replace('-', "_");
        if !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(file) = self.files.get(&name) else {
            return Ok(());
        };
        let bytes = uncompressed(file)?;
        for needed in depends(&bytes) {
            self.add(&needed)?;
        }
        self.order.push((name, bytes));
        Ok(())
    }
}

fn uncompressed(file: &Path) -> Result<Vec<u8>> {
    let end = file.extension().unwrap_or_default().to_string_lossy();
    let program = match &*end {
        "xz" => "xz",
        "zst" => "zstd",
        "gz" => "gzip",
        _ => return fs::read(file).with_context(|| file.display().to_string()),
    };
    let output = Command::new(program)
        .arg("-dc")
        .arg(file)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        bail!("{program} cannot unpack {}", file.display());
    }
    Ok(output.stdout)
}

/// The modules that a module says it depends on, in its section `.modinfo`
/// (scripts/mod/modpost.c).
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let at = module.windows(KEY.len()).position(|bytes| bytes == KEY);
    let start = at.map_or(module.len(), |at| at + KEY.len());
    let list = module.get(start..).unwrap_or_default();
    let list = list.split(|&byte| byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    let names = list.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        let module = b"\x7fELF..\0license=GPL\0depends=inet_diag,udp-x\0name=y\0";
        assert_eq!(depends(module), ["inet_diag", "udp-x"]);
        assert!(depends(b"\0depends=\0").is_empty());
        assert!(depends(b"").is_empty());
    }

    #[test]
    fn folders_come_before_their_files() {
        let mut image = Image::new();
        image.made("etc/a/b", 0o644, "x");
        let paths: Vec<_> = image.entries.keys().map(String::as_str).collect();
        let at = |path: &str| paths.iter().position(|one| *one == path);
        assert!(at("etc") < at("etc/a") && at("etc/a") < at("etc/a/b"));
        assert!(at("etc/a").is_some());
    }
}
