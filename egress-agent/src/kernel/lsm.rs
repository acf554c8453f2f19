//! The programs at the hooks of the Linux security modules: loaded where the kernel lets them,
//! attached once the launcher has given up its rights, and trusted only after a canary.
//!
//! A kernel without `bpf` in its list of modules (`lsm=` on its command line) takes these
//! programs, attaches them and never runs them.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use egress_common::abi::global::offset;
use egress_sys::Hook;

use crate::host::switch::{self, Part};

use super::{
    btf::Structures,
    object::{Code, Wanted},
    pin::PinFolder,
};

/// Programs and the hooks that each may have: the first that the kernel knows.
const PROGRAMS: &[&[(&str, &str)]] = &[
    &[("lsm_socket_create", "socket_create")],
    &[("lsm_file_receive", "file_receive")],
    &[("lsm_ptrace_access_check", "ptrace_access_check")],
    &[("lsm_capable", "capable")],
    &[("lsm_key_alloc", "key_alloc")],
    &[("lsm_task_alloc", "task_alloc")],
    &[("lsm_file_open", "file_open")],
    // The first came with Linux 6.16.
    &[
        ("lsm_uring_allowed", "uring_allowed"),
        ("lsm_uring_sqpoll", "uring_sqpoll"),
    ],
];

/// Constants of the programs, and the member whose place each one is.
const OFFSETS: &[(&str, &str, &str)] = &[
    (offset::TASK_CGROUPS, "task_struct", "cgroups"),
    (offset::TASK_CRED, "task_struct", "real_cred"),
    (offset::CSS_SET_CGROUP, "css_set", "dfl_cgrp"),
    (offset::CGROUP_LEVEL, "cgroup", "level"),
    // Linux 6.1; numbers instead of pointers before.
    (offset::CGROUP_ANCESTORS, "cgroup", "ancestors"),
    (offset::CGROUP_NODE, "cgroup", "kn"),
    (offset::NODE_ID, "kernfs_node", "id"),
    (offset::SOCKET_SOCK, "socket", "sk"),
    (offset::SOCK_CGROUP, "sock", "sk_cgrp_data"),
    (offset::FILE_INODE, "file", "f_inode"),
    (offset::FILE_MODE, "file", "f_mode"),
    (offset::INODE_SUPER, "inode", "i_sb"),
    (offset::SUPER_MAGIC, "super_block", "s_magic"),
];

/// What the names of these programs begin with.
const PREFIX: &str = "lsm_";

/// Why the layer is missing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LsmError {
    /// The kernel is older, or was built without.
    #[error(
        "this kernel has no BPF programs for security modules (they need Linux 6.1 with CONFIG_BPF_LSM and CONFIG_DEBUG_INFO_BTF): {0}"
    )]
    Unsupported(String),
    /// The kernel did not take a program.
    #[error("the kernel did not take the program {name}: {why}")]
    Program {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        why: String,
    },
    /// The canary was not refused.
    #[error("attached but does not fire: add bpf to lsm= on the kernel command line")]
    Silent,
    /// The canary could not say.
    #[error("attached, but whether it fires could not be told: {0}")]
    Unproven(String),
}

/// What the running kernel's types say: where its structures keep what the programs read, and which
/// functions they hook.
pub(super) struct Types {
    offsets: Vec<(&'static str, u32)>,
    wanted: Vec<Wanted>,
}

impl Types {
    /// Takes what is needed out of the running kernel's types.
    pub(super) fn read(structures: Result<&Structures, &io::Error>) -> Result<Self, LsmError> {
        if switch::is_off(Part::Lsm) {
            return Err(LsmError::Unsupported("switched off by a test".to_owned()));
        }
        let structures = structures.map_err(|error| unsupported(&error))?;
        let mut offsets = Vec::new();
        for (constant, structure, member) in OFFSETS {
            let place = structures.offset(structure, member);
            let place = place.ok_or_else(|| {
                LsmError::Unsupported(format!("no member {member} in struct {structure}"))
            })?;
            offsets.push((*constant, place));
        }
        let wanted = PROGRAMS.iter().map(|some| first(structures, some));
        let wanted = wanted.collect::<Result<_, _>>()?;
        Ok(Self { offsets, wanted })
    }

    /// The programs, as they are taken out of the object.
    pub(super) fn wanted(&self) -> impl Iterator<Item = Wanted> {
        self.wanted.iter().copied()
    }

    /// The constants of the programs.
    pub(super) fn offsets(&self) -> &[(&'static str, u32)] {
        &self.offsets
    }
}

/// Loaded programs that wait to be attached.
pub struct LsmPrograms(Vec<Loaded>);

struct Loaded {
    name: &'static str,
    program: OwnedFd,
}

impl LsmPrograms {
    /// Loads the programs, whose constants were set from [`Types`].
    pub(super) fn load(all: &[Code]) -> Result<Self, LsmError> {
        all.iter()
            .map(|code| {
                let name = code.name();
                let program = code.load();
                let program = program.map_err(|why| LsmError::Program { name, why })?;
                Ok(Loaded { name, program })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Attaches the programs at a cgroup for as long as the answer lives: for a canary.
    pub fn hold(&self, cgroup: &Path) -> Result<Vec<OwnedFd>, LsmError> {
        let cgroup = File::open(cgroup).map_err(|error| unsupported(&error))?;
        let link = |program: &Loaded| link(program, &cgroup);
        self.0.iter().map(link).collect()
    }

    /// Attaches the programs at a cgroup, below which nothing privileged may be left to do, and
    /// pins their links. `of`: whose they are, where they are attached at several cgroups. After an
    /// error none of them stays attached, unless its pin could not be removed.
    pub fn attach(
        &self,
        cgroup: &Path,
        pins: &PinFolder,
        of: Option<&str>,
    ) -> Result<(), LsmError> {
        let prefix = of.map_or(PREFIX.to_owned(), prefix);
        let links = self.hold(cgroup)?;
        let pinned = self.0.iter().zip(&links).try_for_each(|(program, link)| {
            let name = program.name.trim_start_matches(PREFIX);
            let path = CString::new(pins.link(&format!("{prefix}{name}")).as_os_str().as_bytes());
            let path = path.map_err(|error| refused(program, &error.into()))?;
            egress_sys::pin(link.as_fd(), &path).map_err(|error| refused(program, &error))
        });
        if pinned.is_err() {
            // A pin that stays keeps refusing; the next start removes it.
            let _stays_closed = pins.remove_links(&prefix);
        }
        pinned
    }
}

/// What the names of an instance's links begin with.
pub fn prefix(instance: &str) -> String {
    format!("{PREFIX}{instance}_")
}

fn link(program: &Loaded, cgroup: &File) -> Result<OwnedFd, LsmError> {
    egress_sys::attach(Hook::Lsm, program.program.as_fd(), cgroup.as_fd())
        .map_err(|error| refused(program, &error))
}

fn refused(program: &Loaded, error: &io::Error) -> LsmError {
    LsmError::Program {
        name: program.name,
        why: error.to_string(),
    }
}

/// The first of several programs whose hook the kernel has: as a function of its own, that is, which
/// programs take the place of (`include/linux/bpf_lsm.h`).
fn first(
    structures: &Structures,
    alternatives: &[(&'static str, &'static str)],
) -> Result<Wanted, LsmError> {
    let found = alternatives.iter().find_map(|(name, hook)| {
        Some(Wanted {
            name,
            hook: Hook::Lsm,
            function: structures.function(&format!("bpf_lsm_{hook}"))?,
        })
    });
    found.ok_or_else(|| {
        let hooks: Vec<&str> = alternatives.iter().map(|(_, hook)| *hook).collect();
        LsmError::Unsupported(format!("no hook {}", hooks.join(" or ")))
    })
}

fn unsupported(error: &dyn std::fmt::Display) -> LsmError {
    LsmError::Unsupported(error.to_string())
}
