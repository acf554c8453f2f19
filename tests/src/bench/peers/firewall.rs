//! The host's own packet filters, asked for the sender's cgroup: nftables (`socket cgroupv2`)
//! and iptables (`-m cgroup --path`). Addresses are permitted, for neither knows names.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    errand::Proxy,
    peer::{Kind, Peer, Place, Stage, Start},
};
use crate::{
    bench::{
        job::Job,
        lane::Process,
        scene::{NAMED, NAMED6, RANGED, at, worker},
        server::HOLE,
    },
    leftovers::cgroup2,
    process::must,
    world::World,
    zone,
};

const LIMIT: Duration = Duration::from_secs(10);
/// Where nft(8) looks for cgroups, wherever they are mounted.
const NFT_ROOT: &str = "/sys/fs/cgroup";

/// Shell words that put rules into force and take them out again.
#[derive(Clone)]
pub(super) struct Rules {
    on: String,
    off: String,
}

impl Rules {
    pub(super) fn on(&self, world: &World) -> Result<()> {
        must(shell(world, &self.on), LIMIT).map(drop)
    }

    pub(super) fn off(&self, world: &World) -> Result<()> {
        must(shell(world, &self.off), LIMIT).map(drop)
    }
}

/// nftables, with its sets.
pub(super) fn nft(stage: &Stage<'_>) -> Result<Peer> {
    let name = "nftables";
    let (parent, leaf) = stage.scene.cgroups.add(name)?;
    let path = below_root(&parent)?;
    let level = path.split('/').count();
    let dns = zone::DNS;
    let file = stage.scene.world.path("rules.nft");
    fs::write(
        &file,
        format!(
            "table inet egress_bench {{\n\
             set allow4 {{ type ipv4_addr; elements = {{ {NAMED}, {dns} }}; }}\n\
             set allow6 {{ type ipv6_addr; elements = {{ {NAMED6} }}; }}\n\
             chain confined {{ ip daddr @allow4 accept; ip6 daddr @allow6 accept; drop; }}\n\
             chain out {{ type filter hook output priority filter; policy accept;\n\
             socket cgroupv2 level {level} \"{path}\" goto confined; }}\n\
             }}\n"
        ),
    )?;
    let root = cgroup2()?;
    let mut on = format!("nft -f {}", file.display());
    if root != Path::new(NFT_ROOT) {
        // Where both versions of cgroups are mounted; seen by this command alone.
        let mount = format!("mount --bind {} {NFT_ROOT}", root.display());
        on = format!("unshare --mount sh -c '{mount} && {on}'");
    }
    let off = "nft delete table inet egress_bench".to_owned();
    peer(stage, name, &leaf, Rules { on, off })
}

/// iptables, whose rules name each address.
pub(super) fn iptables(stage: &Stage<'_>) -> Result<Peer> {
    let name = "iptables";
    let (parent, leaf) = stage.scene.cgroups.add(name)?;
    let path = below_root(&parent)?;
    let file = |tool: &str, allowed: &[String]| -> Result<String> {
        let accept: String = allowed
            .iter()
            .map(|address| format!("-A egress_bench -d {address} -j ACCEPT\n"))
            .collect();
        let file = stage.scene.world.path(tool);
        fs::write(
            &file,
            format!(
                "*filter\n:egress_bench - [0:0]\n{accept}-A egress_bench -j DROP\n\
                 -A OUTPUT -m cgroup --path {path} -j egress_bench\nCOMMIT\n"
            ),
        )?;
        Ok(format!("{tool}-restore --noflush {}", file.display()))
    };
    let v4 = file("iptables", &[NAMED.to_string(), zone::DNS.to_string()])?;
    let v6 = file("ip6tables", &[NAMED6.to_string()])?;
    let off = "iptables -F && iptables -X && ip6tables -F && ip6tables -X".to_owned();
    let on = format!("{v4} && {v6}");
    peer(stage, name, &leaf, Rules { on, off })
}

fn peer(stage: &Stage<'_>, name: &'static str, leaf: &Path, rules: Rules) -> Result<Peer> {
    let world = &stage.scene.world;
    let mut process = worker(world, leaf)?;
    rules.on(world)?;
    let refused = refuses(&mut process);
    rules.off(world)?;
    refused?;
    let procs = leaf.join("cgroup.procs").display().to_string();
    let (on, off) = (rules.on.clone(), rules.off.clone());
    let start = Start::Command(Box::new(move |scene| {
        // The rules of the last time are gone first, outside the measurement.
        let _none_yet = must(shell(&scene.world, &off), LIMIT);
        let script = format!("{on} && echo 0 > {procs} && exec /bin/true");
        Ok(shell(&scene.world, &script))
    }));
    Ok(Peer {
        name,
        kind: Kind::Kernel,
        place: Place::Own(process),
        proxy: Proxy::None,
        authority: stage.scene.authority.clone(),
        lacks: |_| None,
        rules: Some(rules),
        daemon: None,
        start,
    })
}

/// A dropped packet of UDP is an error of `send()`; one of TCP would be waited for.
fn refuses(worker: &mut Process) -> Result<()> {
    let send = |ip| Job::Datagrams {
        to: at(ip, HOLE),
        count: 1,
        size: 1,
        connected: false,
    };
    worker.work(&send(NAMED)).context("it refuses too much")?;
    let other = worker.work(&send(RANGED));
    ensure!(other.is_err(), "it does not refuse here");
    Ok(())
}

/// A cgroup's path as both tools want it.
fn below_root(cgroup: &Path) -> Result<String> {
    Ok(cgroup.strip_prefix(cgroup2()?)?.display().to_string())
}

fn shell(world: &World, script: &str) -> Command {
    let mut command = world.command("sh");
    command.args(["-c", script]);
    command
}
