//! What stays for the whole run: the world, the server, the agent and the lanes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Result;

use super::{
    lane::{Cgroups, Lane, Process},
    plane::{Plane, cgroup_of_agent},
};
use crate::{
    process::must,
    programs,
    protocol::Record,
    world::{USER, World},
    zone,
};

/// The server, permitted by name. Benchmarking space (RFC 2544); on the host's loopback
/// device, so that no wire is measured.
pub(super) const NAMED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The same over IPv6 (RFC 5180).
pub(super) const NAMED6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1);
/// The server, permitted by its address range.
pub(super) const RANGED: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 1);
/// The name of [`NAMED`].
pub(super) const NAME: &str = "server.bench.example";
/// The name that is asked.
pub(super) const ASKED: &str = "allowed.example";

/// No programs.
pub(super) const NONE: usize = 0;
/// No programs once more: how far two equal lanes are apart.
pub(super) const AGAIN: usize = 1;
/// Programs that do nothing.
pub(super) const NOOP: usize = 2;
/// The filter like systemd's.
pub(super) const FILTER: usize = 3;
/// The data plane alone, with a worker that no launcher hardened.
pub(super) const PLANE: usize = 4;
/// A connector of `egress-agent run`.
pub(super) const AGENT: usize = 5;

/// The name of the measured connector.
pub(super) const CONNECTOR: &str = "bench";
const SETUP: Duration = Duration::from_secs(10);

/// The policy of every agent here.
const POLICY: &str = r#"version: 1
connector: bench
mode: enforce
allow:
  - host: server.bench.example
    ports: ["7001-7004", 7006]
    protocol: any
    private: true
    why: the server of the measurements, by name
  - host: server.bench.example
    ports: [7005]
    tls: require
    private: true
    why: the same, with the name checked
  - host: server.bench.example
    ports: [443]
    private: true
    why: the same, with the name checked as everywhere on this port
  - cidr: 198.18.1.0/24
    ports: [7001]
    why: the same by address
  - allowed.example:443
"#;

/// Everything, gone when dropped, in this order.
pub(super) struct Scene {
    /// By the numbers above.
    pub(super) lanes: Vec<Lane>,
    /// Where the agent of the lanes writes its events.
    pub(super) events: PathBuf,
    /// The certificate that the server's is signed with, PEM.
    pub(super) authority: PathBuf,
    pub(super) cgroups: Cgroups,
    _server: Process,
    /// Where it takes place.
    pub(super) world: World,
}

impl Scene {
    /// Sets it up; about two seconds.
    pub(super) fn new() -> Result<Self> {
        let world = World::new()?;
        world.set(Record {
            a: vec![NAMED],
            aaaa: vec![NAMED6],
            ttl: 3600,
            name: NAME.to_owned(),
            ..Record::default()
        })?;
        for address in [format!("{NAMED}/32"), format!("{RANGED}/32")] {
            own_address(&world, &address)?;
        }
        own_address(&world, &format!("{NAMED6}/128"))?;
        let mut serve = world.command(world.bin("bench"));
        let authority = world.path("authority.pem");
        serve.arg("serve").arg(&authority);
        let server = Process::start(serve)?;

        let cgroups = Cgroups::create()?;
        let events = world.path("events.jsonl");
        let lanes = lanes(&world, &cgroups, &events)?;
        Ok(Self {
            lanes,
            events,
            authority,
            cgroups,
            _server: server,
            world,
        })
    }

    /// How the name of the instance of the agent that is measured starts.
    pub(super) fn instance(&self, connector: &str) -> String {
        instance(connector, &self.lanes[AGENT].worker)
    }

    /// An order of lanes in which each round begins with another one.
    pub(super) fn turn<const N: usize>(&self, mut lanes: [usize; N], round: usize) -> [usize; N] {
        lanes.rotate_left(round % N);
        lanes
    }
}

fn lanes(world: &World, cgroups: &Cgroups, events: &Path) -> Result<Vec<Lane>> {
    let lane = |name, plane: Option<fn(&Path) -> Result<Plane>>| {
        let (parent, leaf) = cgroups.add(name)?;
        let plane = plane.map(|attach| attach(&parent)).transpose()?;
        let worker = worker(world, &leaf)?;
        anyhow::Ok(Lane {
            name,
            worker,
            plane,
        })
    };
    let mut lanes = vec![
        lane("none", None)?,
        lane("none-again", None)?,
        lane("no-op", Some(Plane::noop))?,
        lane("systemd-like", Some(Plane::filter))?,
    ];
    let agent = Process::start(agent(world, events, &[&world.bin("bench"), "worker"])?)?;
    let instance = instance(CONNECTOR, &agent);
    lanes.push(Lane {
        name: "data plane",
        worker: worker(world, &cgroup_of_agent(&instance, CONNECTOR)?)?,
        plane: None,
    });
    lanes.push(Lane {
        name: "egress-agent",
        worker: agent,
        plane: Some(Plane::of_agent(&instance)?),
    });
    Ok(lanes)
}

/// A worker that no launcher hardened.
pub(super) fn worker(world: &World, cgroup: &Path) -> Result<Process> {
    let mut command = world.command(world.bin("bench"));
    command.arg("worker").arg(cgroup);
    Process::start(command)
}

/// `egress-agent run` with the policy of the measurements.
pub(super) fn agent(world: &World, events: &Path, words: &[&str]) -> Result<Command> {
    agent_of(&programs::agent()?, world, events, words)
}

/// The same with the agent of another build.
pub(super) fn agent_of(
    program: &Path,
    world: &World,
    events: &Path,
    words: &[&str],
) -> Result<Command> {
    let policy = world.path("policy.yaml");
    fs::write(&policy, POLICY)?;
    let mut command = world.command(program);
    command.args(["run", "--quiet", "--user", &USER.to_string()]);
    command.arg("--policy").arg(policy);
    command.arg("--events").arg(events);
    command.arg("--").args(words);
    Ok(command)
}

/// A port of the server.
pub(super) fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// The DNS server of the world.
pub(super) fn upstream() -> SocketAddr {
    SocketAddr::new(zone::DNS, 53)
}

fn instance(connector: &str, agent: &Process) -> String {
    format!("{connector}-{}-", agent.pid())
}

fn own_address(world: &World, address: &str) -> Result<()> {
    let mut command = world.command("ip");
    command.args(["address", "add", address, "dev", "lo"]);
    must(command, SETUP).map(drop)
}
