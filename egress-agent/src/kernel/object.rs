//! Programs that aya 0.14 cannot load, or not cheaply: taken out of the same object, pointed at the
//! maps that aya made, and loaded with the hook's own type.

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::{Object, generated::bpf_insn};
use egress_common::abi::kfunc;
use egress_sys::{Hook, Instruction};

use super::{load::PlaneError, unix::Functions};

/// A program of the object that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Its name in the object.
    pub(super) name: &'static str,
    pub(super) hook: Hook,
    /// The number of the function of the kernel's that it hooks; 0 where the hook says all.
    pub(super) function: u32,
}

/// A program that can be loaded.
pub(super) struct Code {
    wanted: Wanted,
    license: CString,
    instructions: Vec<Instruction>,
}

impl Code {
    /// Its name in the object.
    pub(super) const fn name(&self) -> &'static str {
        self.wanted.name
    }

    /// What it is loaded for.
    pub(super) const fn hook(&self) -> Hook {
        self.wanted.hook
    }

    /// Loads it. Errors: what the kernel said, and the verifier's last words.
    pub(super) fn load(&self) -> Result<OwnedFd, String> {
        let loaded = egress_sys::load(&egress_sys::Program {
            hook: self.wanted.hook,
            function: self.wanted.function,
            name: self.wanted.name,
            license: &self.license,
            instructions: &self.instructions,
        });
        loaded.map_err(|refused| {
            let (error, log) = (refused.error, tail(&refused.log));
            format!("{error} {log}").trim_end().to_owned()
        })
    }
}

/// The wanted programs of `object`, with every reference to a map replaced by the descriptor of that
/// of `ebpf`, which was loaded from it.
pub(super) fn programs(
    object: &[u8],
    ebpf: &Ebpf,
    functions: Option<&Functions>,
    wanted: impl Iterator<Item = Wanted>,
) -> Result<Vec<Code>, PlaneError> {
    instructions(object, ebpf, functions, wanted).map_err(PlaneError::Object)
}

fn instructions(
    object: &[u8],
    ebpf: &Ebpf,
    functions: Option<&Functions>,
    wanted: impl Iterator<Item = Wanted>,
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
    wanted
        .map(|wanted| {
            let missing = || format!("{} is missing", wanted.name);
            let program = object.programs.get(wanted.name).ok_or_else(missing)?;
            let function = object.functions.get(&program.function_key());
            let code = &function.ok_or_else(missing)?.instructions;
            Ok(Code {
                license: program.license.clone(),
                instructions: code
                    .iter()
                    .map(|one| instruction(&linked(*one, functions)))
                    .collect(),
                wanted,
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
