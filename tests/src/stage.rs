//! What stands around a confinement while the vectors are tried: accomplices outside, a second
//! wire, processes of the same user, a cgroup that the user owns.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::unistd::{Uid, chown};

use crate::{
    leftovers::cgroup2,
    process::{Running, must, patience},
    programs,
    world::{USER, World},
    zone,
};

/// The accomplices live as long as a suite may take.
const LIMIT: Duration = Duration::from_secs(900);
const READY: Duration = Duration::from_secs(10);
const SETUP: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(3);

/// Everything around; gone when dropped.
pub struct Stage {
    accomplices: Vec<Running>,
    dir: PathBuf,
    cgroup: PathBuf,
}

impl Stage {
    /// Sets the stage of a world: one at a time.
    pub fn new(world: &World) -> Result<Self> {
        let dir = world.dir().join("stage");
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        second_wire(world)?;
        internet(world)?;
        queues(world, &dir)?;
        devices(world, &dir)?;
        let cgroup = delegated(world.dir())?;
        fs::write(dir.join("cgroup"), cgroup.display().to_string())?;
        let mut stage = Self {
            accomplices: Vec::new(),
            dir,
            cgroup,
        };
        let text = stage.dir.display().to_string();
        stage.start(world.command(world.bin("probe")), &["accomplice", &text])?;
        for user in [0, USER] {
            let command = world.command(world.bin("probe"));
            let line = stage.start(command, &["victim", &text, &user.to_string()])?;
            fs::write(stage.dir.join(format!("victim-{user}")), line)?;
        }
        let probe = programs::own_dir()?.join("probe");
        stage.start(world.internet_command(probe), &["multipath"])?;
        Ok(stage)
    }

    /// The folder where the accomplices are found.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts an accomplice and waits for its first line.
    fn start(&mut self, mut command: Command, arguments: &[&str]) -> Result<String> {
        command.args(arguments);
        let mut accomplice = Running::start(command, LIMIT)?;
        let end = Instant::now() + READY * patience();
        loop {
            let said = String::from_utf8_lossy(&accomplice.stdout()).into_owned();
            if let Some((line, _)) = said.split_once('\n') {
                self.accomplices.push(accomplice);
                return Ok(line.to_owned());
            }
            ensure!(
                !accomplice.ended()? && Instant::now() < end,
                "no {arguments:?}: {}",
                accomplice.stderr()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for accomplice in &mut self.accomplices {
            accomplice.close_stdin();
        }
        // They take their queues and memory with them, which no namespace does.
        let end = Instant::now() + END;
        let over = |one: &mut Running| one.ended().unwrap_or(true);
        while !self.accomplices.iter_mut().all(over) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        self.accomplices.clear();
        // Where the file is missing the kernel is too old for it; what is left says rmdir.
        drop(fs::write(self.cgroup.join("cgroup.kill"), "1"));
        let end = Instant::now() + END;
        for folder in ["launch/below", "sibling/below", "launch", "sibling", ""] {
            let folder = self.cgroup.join(folder);
            while folder.exists() && fs::remove_dir(&folder).is_err() {
                if Instant::now() > end {
                    eprintln!("{} is left behind", folder.display());
                    return;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// A second interface whose other end belongs to an accomplice, who claims the declared
/// addresses: a neighbour on another network, a hot spot, a container bridge.
fn second_wire(world: &World) -> Result<()> {
    let (allowed, allowed6) = (zone::ALLOWED, zone::ALLOWED6);
    let script = format!(
        "set -e
        ip link add up1 type veth peer name up1x
        ip link set up1x up
        ip link set up1 up
        ip address add 192.0.9.2/24 dev up1
        ip address add 2001:db8:9::2/64 dev up1 nodad
        ip route add default dev up1 metric 4096
        ip -6 route add default dev up1 metric 4096
        mac=$(cat /sys/class/net/up1x/address)
        ip neighbour add {allowed} lladdr $mac dev up1 nud permanent
        ip neighbour add {allowed6} lladdr $mac dev up1 nud permanent
        ip route add default dev up1 table 77
        ip rule add fwmark 0x77 lookup 77
        ip rule add tos 0x10 lookup 77
        ip rule add from 192.0.9.2 lookup 77
        ip mptcp limits set subflow 4 add_addr_accepted 4 || true
        echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start"
    );
    // /sys shows the network namespace that mounted it: read the address elsewhere.
    let script = script.replace(
        "$(cat /sys/class/net/up1x/address)",
        "$(ip -o link show up1x | sed 's/.*link.ether \\([^ ]*\\).*/\\1/')",
    );
    let mut command = world.command("sh");
    command.args(["-c", &script]);
    must(command, SETUP).context("the second wire").map(drop)
}

/// What the internet does for the vectors that need more than servers.
fn internet(world: &World) -> Result<()> {
    let script = format!(
        "ip address add fe80::1/64 dev up0 nodad
        ip mptcp limits set subflow 4 add_addr_accepted 4
        ip mptcp endpoint add {} dev lo signal
        for interface in all up0; do
            echo 1 > /proc/sys/net/ipv6/conf/$interface/seg6_enabled
        done
        true",
        zone::STRANGER
    );
    let mut command = world.internet_command("sh");
    command.args(["-c", &script]);
    must(command, SETUP)
        .context("the internet's side")
        .map(drop)
}

/// The message queues of the host as files, which distributions mount at /dev/mqueue. The
/// mount is gone with the world.
fn queues(world: &World, stage: &Path) -> Result<()> {
    let folder = stage.join("mqueue");
    fs::create_dir(&folder)?;
    let mut command = world.command("mount");
    command.args(["-t", "mqueue", "mqueue"]).arg(&folder);
    must(command, SETUP)
        .context("the message queues as files")
        .map(drop)
}

/// A TUN interface of the user's, as VPN clients leave them, and a device node outside /dev, as it
/// lies in a container's folder.
fn devices(world: &World, stage: &Path) -> Result<()> {
    let script = format!(
        "set -e
        ip tuntap add dev egt-user mode tun user {USER}
        mknod -m 666 {stage}/tun c 10 200
        mount --bind {stage}/tun /dev/net/tun
        mknod -m 666 {stage}/device c 1 8",
        stage = stage.display()
    );
    let mut command = world.command("sh");
    command.args(["-c", &script]);
    must(command, SETUP).context("devices").map(drop)
}

/// A cgroup as systemd delegates one to a user: `launch`, where the launcher is started, and
/// `sibling`.
fn delegated(world: &Path) -> Result<PathBuf> {
    let name = world.file_name().unwrap_or_default().to_string_lossy();
    let cgroup = cgroup2()?.join(format!("suite-{name}"));
    let user = Some(Uid::from_raw(USER));
    for folder in ["", "launch", "sibling"] {
        let folder = cgroup.join(folder);
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        for file in [
            "",
            "cgroup.procs",
            "cgroup.threads",
            "cgroup.subtree_control",
        ] {
            chown(&folder.join(file), user, None)?;
        }
    }
    Ok(cgroup)
}
