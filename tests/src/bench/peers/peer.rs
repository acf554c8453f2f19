//! One of those that are compared.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{case::Case, daemon::Daemon, errand::Proxy, firewall::Rules};
use crate::bench::{lane::Process, scene::Scene};

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing at all.
    Nothing,
    /// The same once more: how far two equal ones are apart.
    Again,
    /// This project.
    Own,
    /// This project, where requests are judged.
    Judging,
    /// Decides in the kernel.
    Kernel,
    /// Everything passes through a process.
    Proxy,
}

/// Set up and seen to refuse.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) proxy: Proxy,
    /// Whose certificates its clients take.
    pub(super) authority: PathBuf,
    /// Why a case is not offered.
    pub(super) lacks: fn(Case) -> Option<&'static str>,
    /// In force during its turns.
    pub(super) rules: Option<Rules>,
    /// What stands between.
    pub(super) daemon: Option<Daemon>,
    pub(super) start: Start,
}

/// Where its worker is.
pub(super) enum Place {
    /// One of the scene's lanes.
    Lane(usize),
    /// Its own.
    Own(Process),
}

/// Made anew each time.
type Made<T> = Box<dyn Fn(&Scene) -> Result<T>>;

/// How a start through it is measured.
pub(super) enum Start {
    /// A command that starts a program which ends at once.
    Command(Made<Command>),
    /// Before any connector, once: until it listens.
    Daemon(Made<Daemon>),
    /// Not, and why.
    None(&'static str),
}

/// What the peers are set up with.
pub(super) struct Stage<'a> {
    pub(super) scene: &'a Scene,
    /// Where those are that no distribution packs.
    pub(super) programs: &'a Path,
}

impl Peer {
    /// The process that works.
    pub(super) fn worker<'a>(&'a mut self, scene: &'a mut Scene) -> &'a mut Process {
        match &mut self.place {
            Place::Lane(index) => &mut scene.lanes[*index].worker,
            Place::Own(process) => process,
        }
    }
}
