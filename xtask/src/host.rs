//! Facts about this host and this checkout, and how to become root on it.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{IsTerminal as _, stdin},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// The workspace's folder.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(
        || workspace().join("target"),
        |folder| workspace().join(folder),
    )
}

/// The cargo that runs this program, in the workspace's folder.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The first program of that name in PATH or in the folders of system programs, which an
/// ordinary user's PATH often lacks.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Whether this process is root. A process's folder in /proc belongs to its effective user
/// (proc(5)).
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// What must stand before a command so that root runs it: nothing, or sudo. sudo may ask
/// for a password where somebody can answer.
pub(crate) fn root_prefix() -> Result<Vec<String>> {
    if is_root() {
        return Ok(Vec::new());
    }
    let Some(sudo) = program("sudo") else {
        bail!("this needs root, and there is no sudo: run the same command as root");
    };
    let mut prefix = vec![sudo.display().to_string()];
    if !stdin().is_terminal() {
        prefix.push("--non-interactive".to_owned());
    }
    Ok(prefix)
}

/// A command that runs as root, with this process's PATH.
pub(crate) fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    let prefix = root_prefix()?;
    let Some((sudo, options)) = prefix.split_first() else {
        return Ok(Command::new(program));
    };
    let mut command = Command::new(sudo);
    command.args(options).args(["--preserve-env", "env"]);
    if let Some(path) = env::var_os("PATH") {
        let mut setting = std::ffi::OsString::from("PATH=");
        setting.push(path);
        command.arg(setting);
    }
    command.arg(program);
    Ok(command)
}

/// The distribution's own name and those it is like, from os-release(5).
pub(crate) fn distribution() -> Vec<String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("ID=").or(line.strip_prefix("ID_LIKE=")))
        .flat_map(|names| names.trim_matches('"').split_whitespace())
        .map(str::to_owned)
        .collect()
}

/// The name of the distribution's suite, from os-release(5).
pub(crate) fn suite() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let mut lines = text.lines();
    let name = lines.find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// Whether a BPF file system is mounted at its usual place, from proc(5) mountinfo.
pub(crate) fn has_bpffs() -> Result<bool> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    Ok(text
        .lines()
        .any(|line| line.contains(" /sys/fs/bpf ") && line.contains(" - bpf ")))
}

/// Every file below a folder, sorted; symbolic links to folders are not followed.
pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(below(&entry.path())),
            _ => files.push(entry.path()),
        }
    }
    files.sort();
    files
}

/// The files of this checkout that are or could be committed, relative to the workspace.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(workspace())
        .output()
        .context("git cannot be started")?;
    if !output.status.success() {
        bail!(
            "git does not list this checkout's files: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut files: Vec<PathBuf> = text
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(|file| workspace().join(file).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}
