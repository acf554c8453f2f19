//! The two network namespaces of a world and the wire between them.

use std::{
    fs,
    io::Write,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    fcntl::FlockArg,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{process::must, world::lock, zone};

const SETUP: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(5);
pub(crate) const NETNS: &str = "/run/netns";
pub(crate) const PREFIX: &str = "egt-";
/// The wire's name at both ends.
pub(crate) const WIRE: &str = "up0";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Process id, start time and a number: no later process has the same.
pub(crate) fn own_name() -> Result<String> {
    let pid = std::process::id();
    let start = start_time(pid).context("own start time")?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{pid}-{start}-{count}"))
}

/// Field 22 of `/proc/PID/stat`, proc(5).
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// Link-local addresses that serve at once. While one is looked for elsewhere, for a second after
/// its link came up, the kernel asks for no neighbour on behalf of an address that is on another
/// device (`net/ipv6/ndisc.c` `ndisc_send_ns`), and those of the internet are.
const SETTLED: [(&str, &str); 2] = [
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];

/// The two network namespaces.
pub(crate) struct Namespaces {
    name: String,
}

impl Namespaces {
    pub(crate) fn create(name: &str) -> Result<Self> {
        // One at a time: the first `ip netns add` of a machine makes a mount of its own.
        let _one = lock("/run/egress-tests-setup.lock", FlockArg::LockExclusive)?;
        remove_leftovers();
        let this = Self {
            name: name.to_owned(),
        };
        let (internet, host) = (this.internet(), this.host());
        ip(&["netns", "add", &internet])?;
        ip(&["netns", "add", &host])?;
        for namespace in [&internet, &host] {
            sysctl(namespace, &SETTLED)?;
        }
        sysctl(
            &internet,
            &[
                ("net/ipv4/ip_nonlocal_bind", "1"),
                ("net/ipv6/ip_nonlocal_bind", "1"),
                ("net/ipv4/tcp_fastopen", "1539"),
                ("net/ipv4/icmp_ratelimit", "0"),
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv4/conf/all/accept_source_route", "1"),
                ("net/ipv4/conf/default/accept_source_route", "1"),
            ],
        )?;
        sysctl(
            &host,
            &[
                ("net/ipv4/tcp_fastopen", "5"),
                ("net/ipv4/ping_group_range", "0 2147483647"),
            ],
        )?;
        ip(&[
            "-n", &host, "link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns",
            &internet,
        ])?;
        let mut lines = vec![
            "link set lo up".to_owned(),
            format!("link set {WIRE} up"),
            format!("address add 192.0.2.1/24 dev {WIRE}"),
            format!("address add 2001:db8:1::1/64 dev {WIRE} nodad"),
        ];
        lines.extend(zone::PREFIXES.map(|prefix| format!("route add local {prefix} dev lo")));
        for (table, address, limit) in [
            (90, zone::NARROW, format!("advmss {}", zone::SMALL_MSS)),
            (91, zone::TIGHT, format!("window {}", zone::SMALL_WINDOW)),
            (92, zone::TINY, format!("window {}", zone::TINY_WINDOW)),
        ] {
            lines.push(format!("rule add from {address} lookup {table}"));
            lines.push(format!(
                "route add {}/32 dev {WIRE} table {table} {limit}",
                zone::HOST
            ));
        }
        batch(&internet, &lines)?;
        batch(
            &host,
            &[
                "link set lo up".to_owned(),
                format!("link set {WIRE} up"),
                format!("address add {}/24 dev {WIRE}", zone::HOST),
                format!("address add {}/64 dev {WIRE} nodad", zone::HOST6),
                "route add default via 192.0.2.1".to_owned(),
                "route add default via 2001:db8:1::1".to_owned(),
            ],
        )?;
        Ok(this)
    }

    pub(crate) fn internet(&self) -> String {
        format!("{}-net", self.name)
    }

    pub(crate) fn host(&self) -> String {
        format!("{}-host", self.name)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for namespace in [self.host(), self.internet()] {
            if let Err(error) = remove(&namespace) {
                eprintln!("network namespace {namespace} is left behind: {error:#}");
            }
        }
    }
}

/// Namespaces and folders of test processes that are dead.
fn remove_leftovers() {
    for name in names_of_the_dead(Path::new(NETNS)) {
        if let Err(error) = remove(&name) {
            eprintln!("leftover network namespace {name}: {error:#}");
        }
    }
    let folder = std::env::temp_dir();
    for name in names_of_the_dead(&folder) {
        if let Err(error) = fs::remove_dir_all(folder.join(&name)) {
            eprintln!("leftover folder {name}: {error}");
        }
    }
}

/// Entries of a folder that a world made whose process is gone.
fn names_of_the_dead(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| owner_is_dead(name)).collect()
}

/// False for a name that no world gave.
fn owner_is_dead(name: &str) -> bool {
    let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().split('-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let start = parts.next().and_then(|start| start.parse().ok());
    match (pid, start) {
        (Some(pid), Some(start)) => start_time(pid) != Some(start),
        _ => false,
    }
}

/// Ends what still runs in a namespace of ours and removes its name.
fn remove(name: &str) -> Result<()> {
    let end = Instant::now() + END;
    loop {
        let left = pids(name)?;
        for pid in &left {
            // It fails only where the process is gone already.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        if left.is_empty() || Instant::now() > end {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    ip(&["netns", "delete", name]).map(drop)
}

pub(crate) fn pids(name: &str) -> Result<Vec<Pid>> {
    let text = ip(&["netns", "pids", name])?;
    let numbers = text.lines().filter_map(|line| line.trim().parse().ok());
    Ok(numbers.map(Pid::from_raw).collect())
}

fn ip(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    Ok(must(command, SETUP)?.text())
}

/// Runs `ip` commands in a namespace. A route's family is told by its colon.
fn batch(namespace: &str, lines: &[String]) -> Result<()> {
    for family in ["-4", "-6"] {
        let wanted = |line: &&String| (family == "-6") == line.contains(':');
        let file = tempfile::NamedTempFile::new()?;
        for line in lines.iter().filter(wanted) {
            writeln!(file.as_file(), "{line}")?;
        }
        ip(&[
            family,
            "-n",
            namespace,
            "-batch",
            &file.path().display().to_string(),
        ])?;
    }
    Ok(())
}

fn sysctl(namespace: &str, settings: &[(&str, &str)]) -> Result<()> {
    let lines = settings
        .iter()
        .map(|(key, value)| format!("echo {value} > /proc/sys/{key}"));
    let mut command = Command::new("nsenter");
    let script = lines.collect::<Vec<_>>().join(" && ");
    command.args([
        &format!("--net={NETNS}/{namespace}"),
        "--",
        "sh",
        "-c",
        &script,
    ]);
    must(command, SETUP).map(drop)
}
