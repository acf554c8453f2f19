//! Programs at a cgroup and the kernel's account of them (`bpf_stats`).
//!
//! Programs are known by their ids: other instances on this host have programs of the same
//! names.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::lpm_trie::{Key, LpmTrie},
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, Program,
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
    sys::{Stats, enable_stats},
};

use crate::programs;

/// The object that the agent's build script makes beside its own.
const OBJECT: &str = "egress-bench";
/// Where the agent's instances are pinned.
const PINS: &str = "/sys/fs/bpf/egress-agent";

/// The hooks that are measured.
const HOOKS: [&str; 5] = ["connect4", "connect6", "sendmsg4", "sock_create", "egress"];
/// One that only the agent has a program at; builds before it had none are measured without.
const INGRESS: &str = "ingress";

/// Prefixes of the filter: the destinations that are measured, and what systemd.resource-control(5)
/// calls localhost, link-local and multicast.
const ALLOW4: [(Ipv4Addr, u32); 6] = [
    (super::scene::NAMED, 32),
    (Ipv4Addr::new(198, 18, 1, 0), 24),
    // The DNS server.
    (crate::zone::v4(53), 32),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
];
const ALLOW6: [(Ipv6Addr, u32); 4] = [
    (super::scene::NAMED6, 128),
    (Ipv6Addr::LOCALHOST, 128),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
];

/// Switches the kernel's account of all programs on, for as long as it lives. Held by a
/// descriptor (`BPF_ENABLE_STATS`, Linux 5.8) and not by `kernel.bpf_stats_enabled`, so that
/// even a killed run leaves the host as it was.
pub(super) struct Account {
    _held: OwnedFd,
}

impl Account {
    pub(super) fn open() -> Result<Self> {
        let held = enable_stats(Stats::RunTime).context("bpf_stats (Linux 5.8 or newer)")?;
        Ok(Self { _held: held })
    }
}

/// Programs by their hooks.
pub(super) struct Plane {
    programs: BTreeMap<&'static str, OwnedFd>,
    /// Attached as long as this lives; nothing for the agent's own.
    _object: Option<Ebpf>,
}

/// What a program has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    nanos: u64,
    runs: u64,
}

impl Usage {
    /// Nanoseconds for each run since an earlier reading; `None`: it did not run.
    pub(super) fn each_since(self, before: Self) -> Option<f64> {
        let runs = self.runs - before.runs;
        (runs > 0).then(|| (self.nanos - before.nanos) as f64 / runs as f64)
    }
}

impl Plane {
    /// Programs that do nothing, at every hook that is measured.
    pub(super) fn noop(cgroup: &Path) -> Result<Self> {
        Self::comparison(cgroup, &HOOKS.map(|hook| (hook, format!("noop_{hook}"))))
    }

    /// The filter like systemd's.
    pub(super) fn filter(cgroup: &Path) -> Result<Self> {
        Self::comparison(cgroup, &[("egress", "filter_egress".to_owned())])
    }

    /// The data plane of a running agent's instance, which is whose name starts like this.
    pub(super) fn of_agent(start: &str) -> Result<Self> {
        let folder = pins_of_agent(start)?;
        let mut programs = BTreeMap::new();
        for hook in HOOKS.into_iter().chain([INGRESS]) {
            let pin = folder.join(format!("link_{hook}"));
            if hook == INGRESS && !pin.exists() {
                continue;
            }
            let link = PinnedLink::from_pin(&pin).with_context(|| pin.display().to_string())?;
            let id = FdLink::from(link).info()?.program_id();
            let program = loaded_programs()
                .filter_map(Result::ok)
                .find(|program| program.id() == id);
            let program = program.with_context(|| format!("{hook}: no program {id}"))?;
            programs.insert(hook, program.fd()?.as_fd().try_clone_to_owned()?);
        }
        Ok(Self {
            programs,
            _object: None,
        })
    }

    fn comparison(cgroup: &Path, wanted: &[(&'static str, String)]) -> Result<Self> {
        let object = object()?;
        let mut ebpf =
            Ebpf::load_file(&object).with_context(|| format!("load {}", object.display()))?;
        fill(&mut ebpf)?;
        let cgroup = File::open(cgroup)?;
        let mut programs = BTreeMap::new();
        for (hook, name) in wanted {
            let program = ebpf.program_mut(name).context("no such program");
            let program = program.and_then(|program| attach(program, &cgroup));
            programs.insert(*hook, program.with_context(|| name.clone())?);
        }
        Ok(Self {
            programs,
            _object: Some(ebpf),
        })
    }

    /// The account of every hook that has a program.
    pub(super) fn usage(&self) -> Result<BTreeMap<&'static str, Usage>> {
        let usage = |fd| {
            anyhow::Ok(Usage {
                nanos: field(fd, "run_time_ns")?,
                runs: field(fd, "run_cnt")?,
            })
        };
        let each = self.programs.iter();
        each.map(|(hook, fd)| Ok((*hook, usage(fd)?))).collect()
    }

    /// Instructions that the verifier walked through, all programs together.
    pub(super) fn verified(&self) -> Result<u64> {
        let each = self.programs.values();
        each.map(|fd| field(fd, "verified_insns")).sum()
    }
}

/// Loads and attaches one program. Answers its descriptor.
fn attach(program: &mut Program, cgroup: &File) -> Result<OwnedFd> {
    // A link is always one of several, whatever the mode says.
    let mode = CgroupAttachMode::Single;
    let fd = match program {
        Program::CgroupSockAddr(program) => {
            let program: &mut CgroupSockAddr = program;
            program.load()?;
            program.attach(cgroup, mode)?;
            program.fd()?
        }
        Program::CgroupSock(program) => {
            let program: &mut CgroupSock = program;
            program.load()?;
            program.attach(cgroup, mode)?;
            program.fd()?
        }
        Program::CgroupSkb(program) => {
            let program: &mut CgroupSkb = program;
            program.load()?;
            program.attach(cgroup, CgroupSkbAttachType::Egress, mode)?;
            program.fd()?
        }
        _ => anyhow::bail!("a program of another kind"),
    };
    Ok(fd.as_fd().try_clone_to_owned()?)
}

fn fill(ebpf: &mut Ebpf) -> Result<()> {
    const ALLOWED: [u32; 2] = [1, 0];
    let map = ebpf.map_mut("ALLOW4").context("no map ALLOW4")?;
    let mut trie: LpmTrie<_, u32, [u32; 2]> = LpmTrie::try_from(map)?;
    for (address, bits) in ALLOW4 {
        let data = u32::from_ne_bytes(address.octets());
        trie.insert(&Key::new(bits, data), ALLOWED, 0)?;
    }
    let map = ebpf.map_mut("ALLOW6").context("no map ALLOW6")?;
    let mut trie: LpmTrie<_, [u8; 16], [u32; 2]> = LpmTrie::try_from(map)?;
    for (address, bits) in ALLOW6 {
        trie.insert(&Key::new(bits, address.octets()), ALLOWED, 0)?;
    }
    Ok(())
}

/// A number in `/proc/self/fdinfo`, `kernel/bpf/syscall.c` `bpf_prog_show_fdinfo`.
fn field(fd: &OwnedFd, key: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|rest| rest.trim_start_matches(':').trim().parse().ok());
    number.with_context(|| format!("the kernel does not say {key}"))
}

/// The newest comparison object of this build: `target/ebpf/<toolchain>/<target>/release/`.
fn object() -> Result<PathBuf> {
    let build = programs::own_dir()?;
    let root = build.parent().context("no folder")?.join("ebpf");
    let mut found = Vec::new();
    for toolchain in folders(&root) {
        for target in folders(&toolchain) {
            let file = target.join("release").join(OBJECT);
            if let Ok(time) = file.metadata().and_then(|metadata| metadata.modified()) {
                found.push((time, file));
            }
        }
    }
    let newest = found.into_iter().max().map(|(_, file)| file);
    newest.with_context(|| {
        format!(
            "no {OBJECT} below {}: cargo build --release -p egress-agent",
            root.display()
        )
    })
}

/// The only folder whose name starts like this.
fn folder_of(parent: &Path, start: &str) -> Result<PathBuf> {
    let mut found = folders(parent);
    found.retain(|folder| {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start)
    });
    let one = found.pop().filter(|_| found.is_empty());
    one.with_context(|| format!("not one folder {start}* in {}", parent.display()))
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir()).collect()
}

/// The folder of the maps and links of the agent's instance whose name starts like this.
pub(super) fn pins_of_agent(start: &str) -> Result<PathBuf> {
    folder_of(&folder_of(Path::new(PINS), start)?, "")
}

/// The cgroup of the processes of the agent's instance whose name starts like this.
pub(super) fn cgroup_of_agent(start: &str, connector: &str) -> Result<PathBuf> {
    let all = crate::leftovers::cgroup2()?.join("egress-agent");
    let folder = folder_of(&all, start)?.join(connector).join("1");
    ensure!(folder.is_dir(), "no cgroup {}", folder.display());
    Ok(folder)
}
