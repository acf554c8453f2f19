//! A real PostgreSQL server on the host of a world, outside every confinement: in a folder of its
//! own, as a user who is neither root nor the connector's.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    process::{Running, must, patience},
    world::World,
};

/// `daemon`, everywhere. PostgreSQL refuses to run as root, and wants a user that has a name.
const USER: u32 = 1;
const START: Duration = Duration::from_secs(60);
/// Debian keeps the server's programs out of PATH, one folder a version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The server; it ends when dropped.
pub struct Postgres {
    folder: PathBuf,
    _server: Running,
}

impl Postgres {
    /// Starts one that listens in the folders `permitted` and `other`, and on port 5432 of
    /// loopback. Everybody is let in. Errors: it is not installed (Debian: postgresql).
    pub fn start(world: &World) -> Result<Self> {
        let programs = programs()?;
        let folder = world.path("postgres");
        for path in [&folder, &folder.join("permitted"), &folder.join("other")] {
            fs::create_dir(path)?;
            chown(path, Some(USER), Some(USER))?;
        }
        let data = folder.join("data");
        let mut initdb = as_user(world, &programs.join("initdb"));
        initdb.arg("--pgdata").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]);
        must(initdb, START)?;
        let folders = format!(
            "unix_socket_directories={0}/permitted,{0}/other",
            folder.display()
        );
        let mut server = as_user(world, &programs.join("postgres"));
        server
            .arg("-D")
            .arg(&data)
            .args(["-c", &folders, "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "port=5432", "-c", "fsync=off"]);
        let mut server = Running::start(server, Duration::from_secs(600))?;
        let end = Instant::now() + START * patience();
        while !server.stderr().contains("ready to accept connections") {
            ensure!(
                !server.ended()? && Instant::now() < end,
                "PostgreSQL does not start: {}",
                server.stderr()
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self {
            folder,
            _server: server,
        })
    }

    /// A folder that it listens in: `permitted` or `other`.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn as_user(world: &World, program: &Path) -> Command {
    let mut command = world.command("setpriv");
    command
        .arg(format!("--reuid={USER}"))
        .arg(format!("--regid={USER}"))
        .args(["--clear-groups", "--"])
        .arg(program);
    command
}

/// The folder of `initdb` and `postgres`.
fn programs() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    if let Ok(versions) = fs::read_dir(VERSIONS) {
        folders.extend(versions.flatten().map(|entry| entry.path().join("bin")));
    }
    let has = |folder: &PathBuf| {
        ["initdb", "postgres"]
            .iter()
            .all(|name| folder.join(name).exists())
    };
    let Some(found) = folders.into_iter().find(has) else {
        bail!("no PostgreSQL server is installed; Debian: postgresql");
    };
    // Through a link it would look for its own parts in the wrong place.
    fs::canonicalize(found.join("postgres"))?
        .parent()
        .map(Path::to_owned)
        .context("no folder")
}
