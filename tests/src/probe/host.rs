//! What root can turn against the boundary: the host's routes, packet filter, interfaces, BPF
//! programs and kernel settings. Where the act would touch the whole machine, taking hold of it
//! is proof enough.

use std::{
    fs,
    io::{self, Write},
    net::UdpSocket,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use nix::errno::Errno;

use super::{Attempt, Evidence, Job, Stop, Vector, accomplice::DETOUR, below, sys};
use crate::leftovers::cgroup2;

pub(super) const VECTORS: &[Vector] = &[
    Vector::new(
        "route-change",
        "the declared address routed elsewhere",
        |job| {
            let route = format!("{}/32", job.permitted.ip());
            ip(&["route", "replace", &route, "dev", DETOUR])?;
            let sent = send(job);
            ip(&["route", "delete", &route, "dev", DETOUR])?;
            sent
        },
    )
    .by_root()
    .last(),
    Vector::new(
        "rule-change",
        "a routing rule for a table of its own",
        |job| {
            let to = job.permitted.ip().to_string();
            ip(&["rule", "add", "to", &to, "lookup", "77", "pref", "7"])?;
            let sent = send(job);
            ip(&["rule", "delete", "pref", "7"])?;
            sent
        },
    )
    .by_root()
    .last(),
    Vector::new(
        "nft-dnat",
        "the declared address translated to the stranger",
        |job| {
            let rules = format!(
                "table ip egx {{ chain c {{ type nat hook output priority -100; \
             ip daddr {} dnat to {}\n }}\n }}",
                job.permitted.ip(),
                job.target.ip()
            );
            nft(&rules)?;
            let sent = send(job);
            thread::sleep(Duration::from_millis(50));
            nft("delete table ip egx")?;
            sent
        },
    )
    .by_root()
    .last(),
    Vector::new(
        "tun",
        "a packet put into the host through a TUN device",
        tun,
    )
    .by_root()
    .last(),
    Vector::new(
        "tun-of-the-user",
        "a TUN device that belongs to the user: packets without a socket",
        |_| {
            let device = open_device("/dev/net/tun")?;
            attach(&device, "egt-user")?;
            Err(Stop::Reached("it can put packets into the host".to_owned()))
        },
    )
    .proven_by(Evidence::Reached),
    Vector::new(
        "device-elsewhere",
        "a device node that the user may open in another folder",
        |job| {
            open_device(job.stage.join("device"))?;
            Err(Stop::Reached("it opens devices outside /dev".to_owned()))
        },
    )
    .proven_by(Evidence::Reached),
    Vector::new("bpf-load", "a program of its own in the kernel", |_| {
        // struct bpf_attr for BPF_PROG_LOAD: a socket filter `r0 = 0; exit`.
        let program: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
        let licence = c"GPL";
        let mut attributes = [0_u64; 16];
        attributes[0] = 8 | 2 << 32; // BPF_PROG_TYPE_CGROUP_SKB, two instructions
        attributes[1] = sys::place(&program) as u64;
        attributes[2] = licence.as_ptr() as u64;
        const LOAD: usize = 5;
        sys::call(libc::SYS_bpf, &[LOAD, sys::place(&attributes), 72])?;
        Err(Stop::Reached("it loads programs".to_owned()))
    })
    .by_root()
    .proven_by(Evidence::Reached),
    Vector::new(
        "bpf-objects",
        "programs and links of the machine by their number",
        |_| {
            const PROG_NEXT: usize = 11;
            const PROG_BY_ID: usize = 13;
            let mut attributes = [0_u64; 16];
            let arguments = [PROG_NEXT, sys::place_mut(&mut attributes), 12];
            match sys::call(libc::SYS_bpf, &arguments) {
                Err(Errno::ENOENT) => {
                    return Err(Stop::Reached("it may look; there is no program".to_owned()));
                }
                found => drop(found?),
            }
            let id = attributes[0] >> 32;
            let mut attributes = [0_u64; 16];
            attributes[0] = id;
            sys::call(
                libc::SYS_bpf,
                &[PROG_BY_ID, sys::place_mut(&mut attributes), 12],
            )?;
            Err(Stop::Reached("it opens programs".to_owned()))
        },
    )
    .by_root()
    .optional()
    .proven_by(Evidence::Reached),
    Vector::new(
        "bpf-detach",
        "programs of the cgroup it is in, detached",
        |job| {
            let mut said = "no program is attached".to_owned();
            const DETACH: usize = 9;
            for folder in own_cgroups() {
                let Ok(folder) = fs::File::open(folder) else {
                    continue;
                };
                for kind in [0, 1, 2, 10, 11, 14, 15, 22] {
                    let mut attributes = [0_u64; 16];
                    attributes[0] = folder.as_raw_fd() as u64;
                    attributes[1] = kind << 32;
                    let arguments = [DETACH, sys::place(&attributes), 32];
                    if let Err(error) = sys::call(libc::SYS_bpf, &arguments) {
                        said = error.to_string();
                    }
                }
            }
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            match socket.send_to(job.bytes(), job.target) {
                Ok(_) => Ok(()),
                Err(error) => Err(Stop::Refused(format!("{error}; {said}"))),
            }
        },
    )
    .by_root(),
    Vector::new(
        "bpf-pins",
        "pinned programs and links of the agent, removed",
        |job| {
            let mut said = "there is no pin".to_owned();
            remove_pins(Path::new("/sys/fs/bpf/egress-agent"), &mut said, 0);
            // A link whose last pin is gone is detached a little later.
            thread::sleep(Duration::from_millis(300));
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            match socket.send_to(job.bytes(), job.target) {
                Ok(_) => Ok(()),
                Err(error) => Err(Stop::Refused(format!("{error}; {said}"))),
            }
        },
    )
    .by_root()
    .alone(),
    held("core-pattern", "the program that takes core dumps", |job| {
        hold(job, &["/proc/sys/kernel/core_pattern"])
    }),
    held("modprobe-path", "the program that loads modules", |job| {
        hold(job, &["/proc/sys/kernel/modprobe"])
    }),
    held(
        "release-agent",
        "the program that a cgroup starts at its end",
        |job| {
            let found: Vec<String> = mounts("cgroup")
                .into_iter()
                .map(|folder| format!("{folder}/release_agent"))
                .collect();
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            hold(job, &found)
        },
    ),
    held("uevent-helper", "the program that devices start", |job| {
        hold(job, &["/sys/kernel/uevent_helper"])
    })
    .optional(),
    held("binfmt", "programs for unknown formats", |job| {
        hold(job, &["/proc/sys/fs/binfmt_misc/register"])
    })
    .optional(),
    held("sysrq", "the machine's emergency keys", |job| {
        hold(job, &["/proc/sysrq-trigger"])
    }),
    held("sysctl-net", "network settings", |job| {
        hold(
            job,
            &[
                "/proc/sys/net/ipv4/ip_forward",
                "/proc/sys/net/ipv4/conf/all/forwarding",
            ],
        )
    }),
    held("kernel-memory", "memory of the kernel", |job| {
        hold(job, &["/dev/mem", "/dev/kmem", "/proc/kcore"])
    })
    .optional(),
    held("trace", "the kernel's probes", |job| {
        hold(
            job,
            &[
                "/sys/kernel/tracing/kprobe_events",
                "/sys/kernel/debug/tracing/kprobe_events",
            ],
        )
    })
    .optional(),
    held("block-device", "the disk below the file system", |job| {
        let devices: Vec<String> = fs::read_dir("/sys/class/block")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy()))
            .filter(|path| !path.contains("loop") && !path.contains("ram"))
            .collect();
        let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
        hold(job, &devices)
    })
    .optional(),
    held(
        "init-namespaces",
        "the namespaces of the first process",
        |_| {
            let process = sys::call_fd(libc::SYS_pidfd_open, &[1, 0])?;
            let every = (libc::CLONE_NEWNET | libc::CLONE_NEWNS) as usize;
            sys::call(libc::SYS_setns, &[process.as_raw_fd() as usize, every])?;
            Err(Stop::Reached("it is in the first namespaces".to_owned()))
        },
    )
    .optional(),
    held("init-files", "files of the first process", |_| {
        fs::read_dir("/proc/1/fd")?;
        fs::read_link("/proc/1/root")?;
        Err(Stop::Reached(
            "it reads the descriptors of the first process".to_owned(),
        ))
    })
    .optional(),
];

/// Something of the whole machine that only root can take hold of.
const fn held(name: &'static str, about: &'static str, run: fn(&Job) -> Attempt) -> Vector {
    Vector::new(name, about, run)
        .by_root()
        .proven_by(Evidence::Reached)
}

/// Opens the first of the files that exists, to write; it writes nothing.
fn hold(_: &Job, paths: &[&str]) -> Attempt {
    let mut last = Stop::NotApplicable("this machine does not have it".to_owned());
    for path in paths {
        match fs::File::options().write(true).open(path) {
            Ok(_) => return Err(Stop::Reached(format!("it may write {path}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn mounts(kind: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let wanted = format!(" - {kind} ");
    let lines = mounts.lines().filter(|line| line.contains(&wanted));
    lines
        .filter_map(|line| line.split(' ').nth(4))
        .map(str::to_owned)
        .collect()
}

/// The cgroup of this process and those above it.
fn own_cgroups() -> Vec<PathBuf> {
    let Ok(root) = cgroup2() else {
        return Vec::new();
    };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = root.join(own.unwrap_or_default());
    own.ancestors()
        .take_while(|folder| folder.starts_with(&root) && **folder != *root)
        .map(Path::to_owned)
        .collect()
}

/// Removes what this confinement pinned; others are told by their lock and stay.
fn remove_pins(folder: &Path, said: &mut String, depth: usize) {
    let own: Vec<String> = own_cgroups()
        .iter()
        .filter_map(|folder| folder.file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if depth == 0 && !own.contains(&name) {
            continue;
        }
        if path.is_dir() {
            remove_pins(&path, said, depth + 1);
        } else {
            *said = match fs::remove_file(&path) {
                Ok(()) => "pins are gone".to_owned(),
                Err(error) => format!("pins stay: {error}"),
            };
        }
    }
}

fn send(job: &Job) -> Attempt {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(job.bytes(), job.permitted)?;
    Ok(())
}

fn ip(words: &[&str]) -> Result<(), Stop> {
    run(Command::new("ip").args(words))
}

fn nft(rules: &str) -> Result<(), Stop> {
    match Command::new("nft").arg("--version").output() {
        Err(_) => super::missing("no nft here"),
        Ok(_) => run(Command::new("nft").arg(rules)),
    }
}

fn run(command: &mut Command) -> Result<(), Stop> {
    let said = command.output()?;
    if said.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&said.stderr);
    let line = text.lines().next().unwrap_or("it failed");
    Err(Stop::Refused(line.to_owned()))
}

fn open_device(path: impl AsRef<Path>) -> io::Result<fs::File> {
    fs::File::options().read(true).write(true).open(path)
}

/// Takes hold of a TUN interface by its name, or makes one.
fn attach(device: &fs::File, name: &str) -> Attempt {
    const SET_INTERFACE: usize = 0x4004_54ca; // TUNSETIFF
    const TUN_WITHOUT_HEADER: u16 = 0x1001;
    let mut request = name.as_bytes().to_vec();
    request.resize(16, 0);
    request.extend(TUN_WITHOUT_HEADER.to_ne_bytes());
    request.resize(40, 0);
    let arguments = [
        device.as_raw_fd() as usize,
        SET_INTERFACE,
        request.as_ptr() as usize,
    ];
    sys::call(libc::SYS_ioctl, &arguments)?;
    Ok(())
}

/// A packet that seems to arrive on an interface is forwarded by the host, in nobody's cgroup.
fn tun(job: &Job) -> Attempt {
    let mut device = open_device("/dev/net/tun")?;
    attach(&device, "egt0")?;
    ip(&["address", "add", "10.99.0.1/24", "dev", "egt0"])?;
    ip(&["link", "set", "egt0", "up"])?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    let mut packet = below::packet(job, 17);
    packet[12..16].copy_from_slice(&[10, 99, 0, 2]);
    let sum = below::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let sent = device.write_all(&packet);
    thread::sleep(Duration::from_millis(50));
    fs::write("/proc/sys/net/ipv4/ip_forward", "0")?;
    sent.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)).into())
}
