//! The devices of a connector: the harmless ones, and what its policy asks for.
//!
//! A device that the user may open can be a way out that no hook sees: a TUN interface of the
//! user's takes packets without a socket, USB, serial and input devices lead to other machines
//! and programs, `/dev/kvm` to another kernel, a foreign terminal to whoever types there. So a
//! connector gets a `/dev` of its own, and device nodes elsewhere cannot be opened: every other
//! mount forbids them.

use std::{
    ffi::CStr,
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    libc,
    mount::{MsFlags, mount},
};

use super::mounts::{MountError, change, failed};
use crate::host::mountinfo;

/// What programs need, by their names below /dev.
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];
/// Links that programs expect there.
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
/// Terminals of the connector's own: those of others are in other instances of the file system.
/// 5 is the group `tty` of all distributions.
const TERMINALS: &str = "newinstance,ptmxmode=0666,mode=0620,gid=5";
const SHM: &str = "/dev/shm";

/// Puts a small `/dev` in place, in this process's own mount namespace. `asked`: further devices
/// and folders of them. `sockets`: paths of permitted unix sockets; those below `/dev` stay there.
/// Needs CAP_SYS_ADMIN.
pub fn install(asked: &[PathBuf], sockets: &[PathBuf]) -> Result<(), MountError> {
    nowhere()?;
    // Built on a tmpfs beside, then moved over /dev: the originals must be visible meanwhile.
    let staging = Path::new(SHM);
    let at = if staging.is_dir() && !asked.iter().any(|path| path == staging) {
        staging
    } else {
        Path::new("/tmp")
    };
    tmpfs(at, "mode=0755,size=64k", MsFlags::MS_NOEXEC)?;
    for name in DEVICES {
        let device = Path::new("/dev").join(name);
        if device.exists() {
            bind(&device, &at.join(name))?;
        }
    }
    terminals(at)?;
    for (name, target) in LINKS {
        symlink(target, at.join(name)).map_err(|error| failed("make the links of /dev", error))?;
    }
    if !asked.iter().any(|path| path == Path::new(SHM)) {
        let shm = at.join("shm");
        folder(&shm)?;
        // Its own, not the host's: memory shared with processes outside is a way out.
        tmpfs(&shm, "mode=1777", MsFlags::MS_NODEV)?;
    }
    for path in asked {
        wanted(at, path)?;
    }
    let below_dev = |path: &&PathBuf| path.starts_with("/dev");
    for path in sockets.iter().filter(below_dev) {
        kept(at, path)?;
    }
    change(Some(at), Path::new("/dev"), MsFlags::MS_MOVE)
        .map_err(|error| failed("put the small /dev in place", error))
}

/// No device node can be opened on any mount there is.
fn nowhere() -> Result<(), MountError> {
    const ROOT: &CStr = c"/";
    let what = "forbid device nodes elsewhere than in /dev";
    match egress_sys::mount::no_devices_below(ROOT) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => one_by_one(),
        Err(error) => Err(failed(what, error)),
    }
}

/// The same for kernels before 5.12.
fn one_by_one() -> Result<(), MountError> {
    let table =
        fs::read("/proc/self/mountinfo").map_err(|error| failed("read the mounts", error))?;
    for found in mountinfo::parse(&table) {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NODEV;
        let flags = found
            .options
            .split(|&byte| byte == b',')
            .fold(flags, |flags, option| {
                flags
                    | match option {
                        b"ro" => MsFlags::MS_RDONLY,
                        b"nosuid" => MsFlags::MS_NOSUID,
                        b"noexec" => MsFlags::MS_NOEXEC,
                        b"noatime" => MsFlags::MS_NOATIME,
                        b"nodiratime" => MsFlags::MS_NODIRATIME,
                        b"relatime" => MsFlags::MS_RELATIME,
                        _ => MsFlags::empty(),
                    }
            });
        match change(None, &found.point, flags) {
            // Hidden below another mount: nobody can reach it.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
            Err(error) => {
                let what = format!("forbid device nodes below {}", found.point.display());
                return Err(failed(what, error));
            }
        }
    }
    Ok(())
}

/// Terminals of an instance of its own.
fn terminals(at: &Path) -> Result<(), MountError> {
    if !Path::new("/dev/ptmx").exists() {
        return Ok(());
    }
    let pts = at.join("pts");
    folder(&pts)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("devpts"), &pts, Some("devpts"), flags, Some(TERMINALS))
        .map_err(|error| failed("mount terminals of its own", error))?;
    symlink("pts/ptmx", at.join("ptmx")).map_err(|error| failed("make /dev/ptmx", error))
}

/// A device, or a folder of them, that the policy asks for.
fn wanted(at: &Path, path: &Path) -> Result<(), MountError> {
    // A name such as /dev/disk/by-id/… leads to the device.
    let device = fs::canonicalize(path).map_err(|error| {
        failed(
            format!("open {}, which run.devices names", path.display()),
            error,
        )
    })?;
    bind(&device, &place(at, path)?)
}

/// A permitted unix socket below /dev, or the link that leads to it.
fn kept(at: &Path, path: &Path) -> Result<(), MountError> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let target = place(at, path)?;
    if found.is_symlink() {
        let leads = fs::read_link(path);
        return leads
            .and_then(|leads| symlink(leads, &target))
            .map_err(|error| failed(format!("keep {}", path.display()), error));
    }
    bind(path, &target)
}

/// Where a path below /dev is in the small one; folders on its way are made.
fn place(at: &Path, path: &Path) -> Result<PathBuf, MountError> {
    let mut place = at.to_owned();
    for part in path.components().skip(2) {
        if place != at {
            folder(&place)?;
        }
        if let Component::Normal(name) = part {
            place.push(name);
        }
    }
    Ok(place)
}

/// Binds a device, or a folder of them, where it can be opened.
fn bind(from: &Path, to: &Path) -> Result<(), MountError> {
    let what = || format!("bind {}", from.display());
    if from.is_dir() {
        folder(to)?;
    } else {
        File::create(to).map_err(|error| failed(format!("make {}", to.display()), error))?;
    }
    change(Some(from), to, MsFlags::MS_BIND).map_err(|error| failed(what(), error))?;
    // A copy has what the original forbids, devices by now.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    change(None, to, flags).map_err(|error| failed(what(), error))
}

fn folder(path: &Path) -> Result<(), MountError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(failed(format!("make {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn tmpfs(at: &Path, options: &str, flags: MsFlags) -> Result<(), MountError> {
    let flags = MsFlags::MS_NOSUID | flags;
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))
        .map_err(|error| failed(format!("mount {}", at.display()), error))
}
