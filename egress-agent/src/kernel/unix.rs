//! The programs for unix sockets, which aya 0.14 cannot load: taken out of the same object,
//! pointed at the maps that aya made, and loaded with the hook's own type.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{Object, generated::bpf_insn};
use egress_common::abi::kfunc;
use egress_sys::{Hook, Instruction};

use super::{btf::Structures, load::PlaneError, pin::PinFolder};

/// Programs by their name in the object, and their hooks.
const PROGRAMS: &[(&str, Hook)] = &[
    ("connect_unix", Hook::Connect),
    ("sendmsg_unix", Hook::Sendmsg),
];

/// Loaded programs that wait to be attached.
pub struct UnixPrograms {
    programs: Vec<Loaded>,
    /// Whether they can lead an address elsewhere.
    pub leads: bool,
}

/// Name, hook and handle.
pub(super) type Loaded = (&'static str, Hook, OwnedFd);

/// Why there are no programs for unix sockets.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    /// The kernel has no such hooks, or not for this user.
    #[error("this kernel has no hooks for unix sockets (they need Linux 6.7 and CAP_PERFMON): {0}")]
    Refused(String),
    /// The object could not be taken apart: the build is broken.
    #[error("the built-in programs for unix sockets cannot be used: {0}")]
    Object(String),
}

impl UnixPrograms {
    /// Takes what was loaded; all or nothing.
    pub(super) fn take(
        all: Vec<Result<Loaded, UnixError>>,
        leads: bool,
    ) -> Result<Self, UnixError> {
        let programs = all.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { programs, leads })
    }

    /// Attaches the programs at a cgroup and pins their links. After an error none of them
    /// stays attached, unless its pin could not be removed.
    pub(super) fn attach(&self, cgroup: &File, pins: &PinFolder) -> Result<(), PlaneError> {
        let mut pinned = Vec::new();
        for (name, hook, program) in &self.programs {
            let path = pins.link(name);
            let attached =
                egress_sys::attach(*hook, program.as_fd(), cgroup.as_fd()).and_then(|link| {
                    let file = CString::new(path.as_os_str().as_bytes())?;
                    egress_sys::pin(link.as_fd(), &file)
                });
            if let Err(error) = attached {
                for path in pinned {
                    // A pin that stays keeps refusing; the next start removes it.
                    let _stays_closed = std::fs::remove_file(path);
                }
                return Err(PlaneError::Pin {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                });
            }
            pinned.push(path);
        }
        Ok(())
    }
}

/// A program that can be loaded.
pub(super) struct Code {
    name: &'static str,
    hook: Hook,
    license: CString,
    instructions: Vec<Instruction>,
}

impl Code {
    /// Loads it.
    pub(super) fn load(&self) -> Result<Loaded, UnixError> {
        let loaded = egress_sys::load(self.hook, self.name, &self.license, &self.instructions);
        let program = loaded.map_err(|refused| {
            let (error, log) = (refused.error, tail(&refused.log));
            UnixError::Refused(format!("{}: {error} {log}", self.name))
        })?;
        Ok((self.name, self.hook, program))
    }
}

/// Numbers of the kernel's functions that the programs call, in the order of [`kfunc::ALL`].
pub(super) type Functions = [u32; kfunc::ALL.len()];

/// Looks them up among the kernel's types. `None`: it has not all of them, or does not show its
/// types.
pub(super) fn functions(structures: &Structures) -> Option<Functions> {
    let mut found = Functions::default();
    for (number, (_, name)) in found.iter_mut().zip(kfunc::ALL) {
        *number = structures.function(name)?;
    }
    Some(found)
}

/// The programs of `object`, with the maps of `ebpf`, which was loaded from it.
pub(super) fn programs(
    object: &[u8],
    ebpf: &Ebpf,
    functions: Option<&Functions>,
) -> Result<Vec<Code>, UnixError> {
    instructions(object, ebpf, functions).map_err(UnixError::Object)
}

/// The instructions of each program, with every reference to a map replaced by its
/// descriptor in this process.
fn instructions(
    object: &[u8],
    ebpf: &Ebpf,
    functions: Option<&Functions>,
) -> Result<Vec<Code>, String> {
    let mut object = Object::parse(object).map_err(|error| error.to_string())?;
    let maps: HashMap<String, aya_obj::Map> = object.maps.drain().collect();
    let fds: HashMap<&str, RawFd> = ebpf
        .maps()
        .map(|(name, map)| (name, data(map).fd().as_fd().as_raw_fd()))
        .collect();
    let relocated = maps
        .iter()
        .filter_map(|(name, map)| Some((name.as_str(), *fds.get(name.as_str())?, map)));
    let text: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object
        .relocate_maps(relocated, &text)
        .map_err(|error| error.to_string())?;
    object
        .relocate_calls(&text)
        .map_err(|error| error.to_string())?;
    PROGRAMS
        .iter()
        .map(|(name, hook)| {
            let missing = || format!("{name} is missing");
            let program = object.programs.get(*name).ok_or_else(missing)?;
            let function = object.functions.get(&program.function_key());
            let code = &function.ok_or_else(missing)?.instructions;
            Ok(Code {
                name,
                hook: *hook,
                license: program.license.clone(),
                instructions: code
                    .iter()
                    .map(|one| instruction(&linked(*one, functions)))
                    .collect(),
            })
        })
        .collect()
}

/// `BPF_JMP | BPF_CALL`, `include/uapi/linux/bpf.h`.
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`: the number is that of a function of the kernel's.
const KFUNC: u8 = 2;
/// `BPF_ALU64 | BPF_MOV | BPF_K`: a number into a register.
const MOVE: u8 = 0xb7;

/// A call of one of the kernel's functions, with its number in this kernel. Where the kernel has
/// none, the call becomes one that fails, and the program refuses.
fn linked(mut one: bpf_insn, functions: Option<&Functions>) -> bpf_insn {
    let number = one.imm.cast_unsigned();
    let index = kfunc::ALL.iter().position(|(mark, _)| *mark == number);
    if let (CALL, 0, Some(index)) = (one.code, one.src_reg(), index) {
        match functions.and_then(|all| all.get(index)) {
            Some(id) => {
                one.set_src_reg(KFUNC);
                one.imm = id.cast_signed();
            }
            None => {
                one.code = MOVE;
                one.imm = -1;
            }
        }
    }
    one
}

/// `struct bpf_insn`, `include/uapi/linux/bpf.h`: two registers share a byte, the
/// destination in the half that comes first in memory order of bit fields.
fn instruction(from: &bpf_insn) -> Instruction {
    let (dst, src) = (from.dst_reg(), from.src_reg());
    let registers = if cfg!(target_endian = "big") {
        dst << 4 | src
    } else {
        src << 4 | dst
    };
    let [off0, off1] = from.off.to_ne_bytes();
    let [imm0, imm1, imm2, imm3] = from.imm.to_ne_bytes();
    [from.code, registers, off0, off1, imm0, imm1, imm2, imm3]
}

/// The handle inside any kind of map.
fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::BloomFilter(data)
        | Map::CgroupArray(data)
        | Map::CgroupStorage(data)
        | Map::CgrpStorage(data)
        | Map::CpuMap(data)
        | Map::DevMap(data)
        | Map::DevMapHash(data)
        | Map::HashMap(data)
        | Map::HashOfMaps(data)
        | Map::InodeStorage(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuCgroupStorage(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::PerfEventArray(data)
        | Map::ProgramArray(data)
        | Map::Queue(data)
        | Map::ReusePortSockArray(data)
        | Map::RingBuf(data)
        | Map::SockHash(data)
        | Map::SockMap(data)
        | Map::SkStorage(data)
        | Map::Stack(data)
        | Map::StackTraceMap(data)
        | Map::Unsupported(data)
        | Map::XskMap(data) => data,
    }
}

/// The verifier's last words.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().rev().take(6).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}

impl From<UnixError> for io::Error {
    fn from(error: UnixError) -> Self {
        Self::other(error)
    }
}
