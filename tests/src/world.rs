//! The embedded internet and the host beside it: two network namespaces joined by a wire.
//!
//! Nothing here touches an address outside the two. The namespaces have names with the process
//! id and start time of the test process in it, so that leftovers of a killed run are known and
//! removed by the next.

use std::{
    fs::{self, File},
    io::BufRead,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Pid, Uid, chown},
};
use tempfile::TempDir;

use crate::{
    namespaces::{NETNS, Namespaces, PREFIX, WIRE, own_name, pids},
    pipe::Pipe,
    process::patience,
    programs,
    protocol::{
        Config, Connection, FlowCount, HttpRequest, Proxied, Query, Record, Reply, Request,
        Sighting,
    },
    token, zone,
};

const FENCE: Duration = Duration::from_secs(5);
const FENCE_PORT: u16 = 9;
const LOCK: &str = "/run/egress-tests.lock";
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where programs are looked for on the host of a world.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The user that connectors run as: `nobody`, `nogroup`.
pub const USER: u32 = 65534;

/// TCP ports served on every address from the start.
pub const TCP_PORTS: [u16; 12] = [
    25, 80, 443, 853, 4443, 5432, 6379, 8080, 8443, 9000, 9418, 9999,
];

/// Both namespaces and the servers; gone when dropped.
pub struct World {
    // Dropped in this order: first who writes, then what was written to.
    internet: Mutex<Pipe>,
    host: Mutex<Pipe>,
    _namespaces: Namespaces,
    dir: TempDir,
    name: String,
    runs: AtomicU32,
    _lock: Flock<File>,
}

impl World {
    /// A world with the standard zone. Any number can exist at a time. Errors: not root, a tool
    /// or kernel feature is missing; they say which.
    pub fn new() -> Result<Self> {
        Self::build(FlockArg::LockShared)
    }

    /// A world while no other of any process exists: for tests that look at what is left on the
    /// machine.
    pub fn alone() -> Result<Self> {
        Self::build(FlockArg::LockExclusive)
    }

    fn build(kind: FlockArg) -> Result<Self> {
        ensure!(
            Uid::effective().is_root(),
            "the embedded internet is made of network namespaces: run this as root"
        );
        let lock = lock(LOCK, kind)?;
        mount_bpffs()?;
        let name = format!("{PREFIX}{}", own_name()?);
        let namespaces = Namespaces::create(&name)?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;

        let internet = Pipe::start(&namespaces.internet(), &["serve"])?;
        let config = serde_json::to_string(&Config {
            interface: WIRE.to_owned(),
            dns: vec![zone::DNS, zone::DNS6, zone::OTHER_DNS],
            zone: zone::standard(),
            tcp: TCP_PORTS.to_vec(),
            udp: echoes(),
        })?;
        let reply = internet.ask(&config)?;
        let Reply::Ready(authority) = serde_json::from_str(&reply)? else {
            bail!("the embedded internet did not start: {reply}");
        };
        fill(dir.path(), &authority)?;
        let host = Pipe::start(
            &namespaces.host(),
            &["host", &dir.path().display().to_string()],
        )?;
        host.ready()?;
        Ok(Self {
            internet: Mutex::new(internet),
            host: Mutex::new(host),
            _namespaces: namespaces,
            dir,
            name,
            runs: AtomicU32::new(0),
            _lock: lock,
        })
    }

    /// A folder of this world that every user may read; `bin/` in it holds the programs of this
    /// crate, `cache/` the installed client libraries, `home/` belongs to the connector's user.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a program of this crate that the connector's user can start.
    pub fn bin(&self, name: &str) -> String {
        self.dir.path().join("bin").join(name).display().to_string()
    }

    /// A path in the world's folder that no other call returns.
    pub fn path(&self, name: &str) -> PathBuf {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(format!("{run}-{name}"))
    }

    /// A command that runs on the host of this world, as root, with an environment in which
    /// clients trust the world's authority. Its process id is the program's.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, program: S) -> Command {
        let pid = self.host().child.id();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={NETNS}/{}-host", self.name))
            .arg(format!("--mount=/proc/{pid}/ns/mnt"))
            .arg(format!("--wd={}/home", self.dir.path().display()))
            .arg("--")
            .arg(program)
            .env_clear();
        for (key, value) in self.environment() {
            command.env(key, value);
        }
        command
    }

    /// A command that runs beside the servers, in the network namespace of the internet.
    pub fn internet_command<S: AsRef<std::ffi::OsStr>>(&self, program: S) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={NETNS}/{}-net", self.name))
            .arg("--")
            .arg(program);
        command
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let dir = self.dir.path().display();
        let bundle = format!("{dir}/bundle.pem");
        vec![
            ("PATH", PATH.to_owned()),
            ("HOME", format!("{dir}/home")),
            ("LANG", "C.UTF-8".to_owned()),
            ("SSL_CERT_FILE", bundle.clone()),
            ("CURL_CA_BUNDLE", bundle.clone()),
            ("REQUESTS_CA_BUNDLE", bundle),
            ("NODE_EXTRA_CA_CERTS", format!("{dir}/authority.pem")),
            ("CLIENTS", format!("{dir}/cache")),
            ("NODE_PATH", format!("{dir}/cache/node/node_modules")),
            ("PYTHONPATH", format!("{dir}/cache/python")),
            ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ]
    }

    /// Replaces the host's `/etc/hosts`.
    pub fn set_hosts(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.dir.path().join("hosts"), text)?)
    }

    /// Replaces the host's `/etc/resolv.conf`.
    pub fn set_resolv_conf(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.dir.path().join("resolv.conf"), text)?)
    }

    /// Asks the embedded internet.
    pub fn ask(&self, request: &Request) -> Result<Reply> {
        let internet = self.internet.lock().unwrap_or_else(PoisonError::into_inner);
        let line = internet.ask(&serde_json::to_string(request)?)?;
        match serde_json::from_str(&line)? {
            Reply::Failed(why) => bail!("{request:?}: {why}"),
            reply => Ok(reply),
        }
    }

    /// Where a token arrived so far.
    pub fn sightings(&self, token: &str) -> Result<Vec<Sighting>> {
        match self.ask(&Request::Token(token.to_owned()))? {
            Reply::Sightings(places) => Ok(places),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Packets that arrived for an address so far.
    pub fn packets(&self, ip: impl Into<IpAddr>) -> Result<Vec<FlowCount>> {
        match self.ask(&Request::Packets(ip.into()))? {
            Reply::Flows(flows) => Ok(flows),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Questions the DNS servers got so far.
    pub fn queries(&self) -> Result<Vec<Query>> {
        match self.ask(&Request::Queries)? {
            Reply::Queries(queries) => Ok(queries),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// HTTP requests so far.
    pub fn requests(&self) -> Result<Vec<HttpRequest>> {
        match self.ask(&Request::Requests)? {
            Reply::Requests(requests) => Ok(requests),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// TCP connections to an address that a server accepted so far.
    pub fn connections(&self, ip: impl Into<IpAddr>) -> Result<Vec<Connection>> {
        match self.ask(&Request::Connections(ip.into()))? {
            Reply::Connections(connections) => Ok(connections),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// What was asked of proxies so far.
    pub fn proxied(&self) -> Result<Vec<Proxied>> {
        match self.ask(&Request::Proxied)? {
            Reply::Proxied(asked) => Ok(asked),
            other => bail!("unexpected {other:?}"),
        }
    }

    /// Adds or replaces a name.
    pub fn set(&self, record: Record) -> Result<()> {
        self.ask(&Request::Set(record)).map(drop)
    }

    /// Returns once everything that the host has sent was looked at: sends a packet of its own
    /// behind it and waits for that one. Errors: it never came, or packets were missed.
    pub fn fence(&self) -> Result<()> {
        let token = token::new();
        self.host().ask(&format!("fence {token}"))?;
        let end = Instant::now() + FENCE * patience();
        while self.sightings(&token)?.is_empty() {
            ensure!(
                Instant::now() < end,
                "the wire between host and internet is dead"
            );
            thread::sleep(Duration::from_millis(2));
        }
        match self.ask(&Request::Missed)? {
            Reply::Missed(0) => Ok(()),
            other => bail!("packets arrived that nobody looked at: {other:?}"),
        }
    }

    /// Process ids of everything that runs on the host of this world.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let keeper = self.host().child.id().cast_signed();
        let mut pids = pids(&format!("{}-host", self.name))?;
        pids.retain(|pid| pid.as_raw() != keeper);
        Ok(pids)
    }

    fn host(&self) -> std::sync::MutexGuard<'_, Pipe> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What runs inside the host's network namespace for as long as the world: it keeps the mount
/// namespace, and sends the packets of [`World::fence`].
pub fn keep_host(dir: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("mount namespace")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let bind = |from: PathBuf, to: PathBuf| {
        mount(Some(&from), &to, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("cannot bind {} to {}", from.display(), to.display()))
    };
    bind(dir.join("resolv.conf"), "/etc/resolv.conf".into())?;
    bind(dir.join("hosts"), "/etc/hosts".into())?;
    bind(dir.join("bundle.pem"), BUNDLE.into())?;
    bind(programs::own_dir()?, dir.join("bin"))?;
    bind(programs::cache_dir()?, dir.join("cache"))?;
    println!("ready");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    for line in std::io::stdin().lock().lines() {
        if let Some(token) = line?.strip_prefix("fence ") {
            socket.send_to(token.as_bytes(), (zone::v4(1), FENCE_PORT))?;
            println!("sent");
        }
    }
    Ok(())
}

fn echoes() -> Vec<SocketAddr> {
    let addresses: [IpAddr; 4] = [
        zone::ALLOWED.into(),
        zone::ALLOWED6.into(),
        zone::STRANGER.into(),
        zone::STRANGER6.into(),
    ];
    let ports = [443, 9999];
    let pairs = addresses
        .into_iter()
        .flat_map(|ip| ports.map(|port| (ip, port)));
    pairs.map(SocketAddr::from).collect()
}

fn fill(dir: &Path, authority: &str) -> Result<()> {
    let write = |name: &str, text: &str| fs::write(dir.join(name), text);
    let system =
        fs::read_to_string(BUNDLE).with_context(|| format!("{BUNDLE} (ca-certificates)"))?;
    write("authority.pem", authority)?;
    write("bundle.pem", &format!("{authority}{system}"))?;
    write("resolv.conf", &format!("nameserver {}\n", zone::DNS))?;
    write("hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    for folder in ["bin", "cache", "home"] {
        fs::create_dir(dir.join(folder))?;
    }
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    chown(&dir.join("home"), Some(user), Some(group))?;
    Ok(())
}

/// bpffs is shared by everything on a machine, so it is mounted before the mount namespaces
/// are made, where it is missing.
fn mount_bpffs() -> Result<()> {
    const BPFFS: &str = "/sys/fs/bpf";
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounted = |line: &str| line.split(' ').nth(1) == Some(BPFFS);
    let none: Option<&str> = None;
    if !mounts.lines().any(mounted) && Path::new(BPFFS).exists() {
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), none).context("mount bpffs")?;
    }
    Ok(())
}

pub(crate) fn lock(path: &str, kind: FlockArg) -> Result<Flock<File>> {
    let file = File::options().create(true).append(true).open(path)?;
    Flock::lock(file, kind).map_err(|(_, error)| error.into())
}
