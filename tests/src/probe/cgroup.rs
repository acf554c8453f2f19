//! Leaving the cgroup, or the namespaces that the programs look from. Each tries to leave and
//! then sends as if nothing confined it, whether or not the leaving worked.

use std::{
    fs,
    net::UdpSocket,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::wait::waitpid,
    unistd::{ForkResult, Pid, fork},
};

use super::{Attempt, Job, Stop, Vector, sys};
use crate::leftovers::cgroup2;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new("cgroup-root", "moves itself to the root cgroup", |job| {
        let root = cgroup2().map_err(|error| Stop::Refused(error.to_string()))?;
        after(fs::write(root.join("cgroup.procs"), "0"), job)
    })
    .controlled(),
    Vector::new(
        "cgroup-sibling",
        "moves itself to a cgroup that its user owns",
        |job| after(fs::write(sibling(job)?.join("cgroup.procs"), "0"), job),
    )
    .controlled(),
    Vector::new(
        "cgroup-sibling-thread",
        "moves one thread to a cgroup that its user owns",
        |job| after(fs::write(sibling(job)?.join("cgroup.threads"), "0"), job),
    ),
    Vector::new(
        "cgroup-clone",
        "clone3 into a cgroup that its user owns",
        clone_into,
    ),
    Vector::new(
        "cgroup-below",
        "a cgroup of its own below the one it is in",
        |job| after(go_below(), job),
    )
    .controlled(),
    Vector::new(
        "cgroup-remount",
        "a cgroup namespace, cgroup2 mounted anew in it, and its root",
        |job| {
            let place = std::env::temp_dir().join(&job.token);
            let escape = || -> Result<(), Stop> {
                new_user()?;
                unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
                fs::create_dir(&place)?;
                let none: Option<&str> = None;
                mount(Some("c"), &place, Some("cgroup2"), MsFlags::empty(), none)?;
                fs::write(place.join("cgroup.procs"), "0")?;
                Ok(())
            };
            let left = escape();
            let attempt = after(left, job);
            let _ = nix::mount::umount(&place);
            drop(fs::remove_dir(&place));
            attempt
        },
    ),
    Vector::new(
        "userns-raw",
        "a raw socket with the capabilities of an own user namespace",
        |job| {
            let escape = || -> Result<(), Stop> {
                new_user()?;
                let socket = sys::socket(libc::AF_INET, libc::SOCK_RAW, 253)?;
                sys::send(&socket, job.bytes(), 0, &sys::address(job.target))?;
                Ok(())
            };
            after(escape(), job)
        },
    ),
    Vector::new(
        "setns-victim",
        "the namespaces of a process of the same user",
        |job| {
            let escape = || -> Result<(), Stop> {
                let victim = super::neighbour::Victim::of(&job.stage)?;
                let process = sys::call_fd(libc::SYS_pidfd_open, &[victim.pid, 0])?;
                let every = (libc::CLONE_NEWNET | libc::CLONE_NEWCGROUP) as usize;
                sys::call(libc::SYS_setns, &[process.as_raw_fd() as usize, every])?;
                Ok(())
            };
            after(escape(), job)
        },
    ),
    Vector::new(
        "netns-macvlan",
        "an own network namespace with a macvlan on the host's interface",
        |job| in_own_network(job, "macvlan"),
    )
    .by_root(),
    Vector::new(
        "netns-veth",
        "an own network namespace with a veth that the host forwards",
        |job| in_own_network(job, "veth"),
    )
    .by_root()
    .last(),
    Vector::new(
        "service-manager",
        "asks a service manager on the host to start the sender",
        |job| {
            let program = std::env::current_exe()?;
            let words = ["--user", "--collect", "--wait", "--quiet"];
            let said = Command::new("systemd-run")
                .args(words)
                .arg(program)
                .args(["udp4", "forbidden", &job.token])
                .output();
            match said {
                Ok(said) if said.status.success() => Ok(()),
                Ok(said) => super::missing(
                    String::from_utf8_lossy(&said.stderr)
                        .lines()
                        .next()
                        .unwrap_or_default(),
                ),
                Err(_) => super::missing("no systemd-run here"),
            }
        },
    )
    .optional(),
];

/// Sends, and says how the leaving went where the sending failed.
fn after<E: Into<Stop>>(left: Result<(), E>, job: &Job) -> Attempt {
    let left = match left.map_err(Into::into) {
        Ok(()) => "it left".to_owned(),
        Err(stop) => format!("it could not leave: {stop}"),
    };
    match send(job) {
        Ok(()) => {
            println!("SENT; {left}");
            Ok(())
        }
        Err(error) => Err(Stop::Refused(format!("{error}; {left}"))),
    }
}

fn send(job: &Job) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(job.bytes(), job.target).map(drop)
}

/// The cgroup that the connector's user owns, beside the one it was started from.
fn sibling(job: &Job) -> std::io::Result<PathBuf> {
    let path = fs::read_to_string(job.stage.join("cgroup"))?;
    Ok(Path::new(path.trim()).join("sibling"))
}

fn go_below() -> Result<(), Stop> {
    let root = cgroup2().map_err(|error| Stop::Refused(error.to_string()))?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let folder = root.join(own.unwrap_or_default()).join("below");
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error.into());
        }
        _ => {}
    }
    let moved = fs::write(folder.join("cgroup.procs"), "0");
    Ok(moved?)
}

fn clone_into(job: &Job) -> Attempt {
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size,
    // tls, set_tid, set_tid_size, cgroup.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let folder = fs::File::open(sibling(job)?)?;
    let mut arguments = [0_u64; 11];
    arguments[0] = INTO_CGROUP;
    arguments[4] = libc::SIGCHLD as u64;
    arguments[10] = folder.as_raw_fd() as u64;
    let size = size_of_val(&arguments);
    match sys::call(libc::SYS_clone3, &[sys::place(&arguments), size]) {
        Ok(0) => {
            drop(send(job));
            std::process::exit(0)
        }
        Ok(child) => {
            waitpid(Pid::from_raw(child as i32), None)?;
            Ok(())
        }
        Err(error) => after(Err(error), job),
    }
}

/// A user namespace in which this process is root.
fn new_user() -> Result<(), Stop> {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    Ok(())
}

/// A child in a network namespace of its own, joined to the host's by an interface of a kind.
fn in_own_network(job: &Job, kind: &str) -> Attempt {
    // SAFETY: this program has one thread here, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let moved = unshare(CloneFlags::CLONE_NEWNET);
            // The parent puts the interface in.
            for _ in 0..100 {
                if moved.is_err() || sys::interface("egx0").is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
            let (own, router) = match kind {
                "macvlan" => ("192.0.2.77/24", "192.0.2.1"),
                _ => ("192.0.2.130/30", "192.0.2.129"),
            };
            if moved.is_ok() {
                ip("link set lo up");
                ip("link set egx0 up");
                ip(&format!("address add {own} dev egx0"));
                ip(&format!("route add default via {router}"));
                for _ in 0..10 {
                    drop(send(job));
                    thread::sleep(Duration::from_millis(100));
                }
            }
            std::process::exit(moved.map_or_else(|error| error as i32, |()| 0))
        }
        ForkResult::Parent { child } => {
            thread::sleep(Duration::from_millis(150));
            if kind == "macvlan" {
                ip(&format!(
                    "link add link up0 name egx0 netns {child} type macvlan mode bridge"
                ));
            } else {
                ip(&format!(
                    "link add egy0 type veth peer name egx0 netns {child}"
                ));
                ip("link set egy0 up");
                ip("address add 192.0.2.129/30 dev egy0");
                drop(fs::write("/proc/sys/net/ipv4/ip_forward", "1"));
            }
            let status = waitpid(child, None)?;
            if kind != "macvlan" {
                drop(fs::write("/proc/sys/net/ipv4/ip_forward", "0"));
                ip("link delete egy0");
            }
            match status {
                nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
                nix::sys::wait::WaitStatus::Exited(_, code) => Err(Errno::from_raw(code).into()),
                other => Err(Stop::Refused(format!("{other:?}"))),
            }
        }
    }
}

/// Whether it worked is seen from what arrives.
fn ip(words: &str) {
    drop(Command::new("ip").args(words.split(' ')).output());
}
