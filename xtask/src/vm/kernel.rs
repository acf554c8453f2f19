//! Kernels: from Debian's suites, or a file. Nothing of this host's own package lists changes.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{Apt, MIRROR},
    host, step,
};

/// A line of kernels that one of Debian's suites carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Release {
    /// Debian 11
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13
    #[value(name = "6.12")]
    V6_12,
    /// What Debian's unstable suite carries
    #[value(name = "newest")]
    Newest,
}

/// A kernel to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What a user calls it.
    pub(crate) name: String,
    /// The image.
    pub(crate) image: PathBuf,
    /// The folder of its modules; `None`: it has none.
    pub(crate) modules: Option<PathBuf>,
}

const SECURITY: &str = "http://deb.debian.org/debian-security";
/// Small, and with what a virtual machine needs.
const META: &str = "linux-image-cloud-amd64";
/// A kernel's packages: one up to 6.18, three since.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

impl Release {
    /// In the order of their age.
    pub(crate) const ALL: [Self; 4] = [Self::V5_10, Self::V6_1, Self::V6_12, Self::Newest];

    /// Lines of sources.list(5).
    fn sources(self) -> String {
        let suite = |mirror: &str, suite: &str| format!("deb {mirror} {suite} main\n");
        match self {
            Self::V5_10 => suite(MIRROR, "bullseye") + &suite(SECURITY, "bullseye-security"),
            Self::V6_1 => suite(MIRROR, "bookworm"),
            Self::V6_12 => suite(MIRROR, "trixie"),
            Self::Newest => suite(MIRROR, "sid"),
        }
    }

    /// Where everything about it is kept.
    fn folder(self) -> PathBuf {
        super::task::folder().join("kernels").join(self.to_string())
    }

    /// The kernel, fetched where it is not here yet.
    pub(crate) fn get(self) -> Result<Kernel> {
        let tree = self.folder().join("tree");
        if !tree.exists() {
            self.fetch(&tree).with_context(|| {
                format!(
                    "the kernel {self} cannot be fetched from Debian's suites (needs apt, the \
                     network and debian-archive-keyring); --kernel FILE boots any other"
                )
            })?;
        }
        let image = find(&tree, "vmlinuz").context("the package has no kernel image")?;
        Ok(Kernel {
            name: self.to_string(),
            modules: modules(&tree),
            image,
        })
    }

    fn fetch(self, tree: &Path) -> Result<()> {
        let apt = Apt::apart(self.folder(), &self.sources())?;
        step::quiet(
            "kernel",
            &format!("fetching the package list of the suite that has {self}"),
            apt.command("apt-get")?.arg("update"),
        )?;
        let image = parts(&apt, META)?;
        let mut packages = image.clone();
        for package in &image {
            packages.extend(parts(&apt, package)?);
        }
        step::quiet(
            "kernel",
            &format!("fetching {}", packages.join(" ")),
            apt.command("apt-get")?.arg("download").args(&packages),
        )?;
        // Renamed at the end, so that what is there is whole.
        let part = tree.with_extension("part");
        for entry in fs::read_dir(apt.folder())?.flatten() {
            let package = entry.path();
            if package.extension().is_some_and(|end| end == "deb") {
                let mut unpack = Command::new("dpkg-deb");
                unpack.arg("-x").arg(&package).arg(&part);
                step::quiet("kernel", "unpacking", &mut unpack)?;
                fs::remove_file(&package)?;
            }
        }
        fs::rename(&part, tree)?;
        Ok(())
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        })
    }
}

impl Kernel {
    /// A kernel image as it is. Its modules are looked for where a distribution puts them:
    /// `boot/vmlinuz-RELEASE` beside `lib/modules/RELEASE`.
    pub(crate) fn file(image: &Path) -> Result<Self> {
        if !image.is_file() {
            bail!("there is no kernel at {}", image.display());
        }
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let release = name.split_once('-').map(|(_, release)| release);
        let base = image.parent().and_then(Path::parent);
        let modules = base.zip(release).and_then(|(base, release)| {
            ["lib/modules", "usr/lib/modules"]
                .map(|folder| base.join(folder).join(release))
                .into_iter()
                .find(|folder| folder.is_dir())
        });
        Ok(Self {
            name: name.into_owned(),
            image: image.to_owned(),
            modules,
        })
    }
}

/// The packages of a kernel that a package's newest version depends on.
fn parts(apt: &Apt, package: &str) -> Result<Vec<String>> {
    let mut show = apt.command("apt-cache")?;
    show.args(["--no-all-versions", "show", package]);
    let output = show.output().context("apt-cache cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "));
    let depends = depends.with_context(|| format!("the suite has no {package}"))?;
    let names = depends
        .split(", ")
        .filter_map(|one| one.split(' ').next())
        .filter(|name| PARTS.iter().any(|part| name.starts_with(part)));
    Ok(names.map(str::to_owned).collect())
}

/// The folder of modules in an unpacked package: `[usr/]lib/modules/RELEASE`.
fn modules(tree: &Path) -> Option<PathBuf> {
    ["lib/modules", "usr/lib/modules"]
        .into_iter()
        .filter_map(|folder| fs::read_dir(tree.join(folder)).ok())
        .find_map(|mut entries| Some(entries.next()?.ok()?.path()))
}

/// The first file below a folder whose name starts so.
fn find(folder: &Path, start: &str) -> Option<PathBuf> {
    let files = host::below(folder);
    files.into_iter().find(|file| {
        let name = file.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(start)
    })
}
