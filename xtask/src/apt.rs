//! apt with lists, sources and a cache of its own: nothing of this host's package lists changes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::host;

/// Debian's archive.
pub(crate) const MIRROR: &str = "http://deb.debian.org/debian";

/// One set of sources.
pub(crate) struct Apt {
    folder: PathBuf,
    /// What is installed here counts.
    installs: bool,
}

impl Apt {
    /// Keeps everything in `folder`; `sources` are lines of sources.list(5). For packages that
    /// are only looked at and downloaded.
    pub(crate) fn apart(folder: PathBuf, sources: &str) -> Result<Self> {
        Self::new(folder, sources, false)
    }

    /// The same for packages that are installed on this host.
    pub(crate) fn installing(folder: PathBuf, sources: &str) -> Result<Self> {
        Self::new(folder, sources, true)
    }

    fn new(folder: PathBuf, sources: &str, installs: bool) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(name))?;
        }
        fs::write(folder.join("sources.list"), sources)?;
        Ok(Self { folder, installs })
    }

    /// Where downloads go.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of apt's programs; as root where it installs.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut command = if self.installs {
            let mut command = host::as_root("env")?;
            command.args(["DEBIAN_FRONTEND=noninteractive", program]);
            command
        } else {
            let mut command = Command::new(program);
            command.args(["-o", "Dir::State::status=/dev/null"]);
            command.args(["-o", "APT::Architecture=amd64"]);
            command
        };
        command.current_dir(&self.folder);
        for setting in [
            format!("Dir::Etc::SourceList={}", at("sources.list")),
            "Dir::Etc::SourceParts=-".to_owned(),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.arg("-o").arg(setting);
        }
        Ok(command)
    }
}
