//! A confined process beside a connector, on its way to its work: what the forwarder and the
//! envelope proxy have in common.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    net::{Ipv4Addr, TcpListener},
    os::fd::AsRawFd as _,
    path::PathBuf,
};

use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::close,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::runtime::{Builder, Runtime};

use super::filter;
use crate::{
    host::{
        memory,
        switch::{self, Part},
    },
    kernel,
    launch::harden,
};

/// Exit code: the process did not come to its work.
pub const FAILED: u8 = 125;
/// Descriptors: two for each connection, and some.
const DESCRIPTORS: u64 = 4_096;
/// What is read of the agent's first line at once. Bytes.
const PIECE: usize = 64 * 1024;

/// Where such a process belongs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The `cgroup.procs` file to join.
    pub cgroup_procs: PathBuf,
    /// The pinned table that its listener goes into.
    pub listener: PathBuf,
    /// Where its addresses begin.
    pub net: Ipv4Addr,
    /// User and group id.
    pub uid: u32,
    /// How soon the kernel ends it where memory runs out; `None`: as the agent.
    pub oom_score_adj: Option<i16>,
}

/// The two pipes that the agent left open, by their numbers. Opened again by path: taking a
/// descriptor by its number cannot be done without `unsafe`.
pub fn reopen(commands: i32, answers: i32) -> io::Result<(File, File)> {
    let reader = File::open(format!("/proc/self/fd/{commands}"))?;
    let writer = OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{answers}"))?;
    close(commands)?;
    close(answers)?;
    Ok((reader, writer))
}

/// Reads the agent's first line, of at most so many bytes. The agent says nothing behind it before
/// it is answered.
pub fn first_line<T: DeserializeOwned>(mut commands: &File, most: usize) -> Result<T, String> {
    let misread =
        |error: &dyn std::fmt::Display| format!("it did not understand the agent: {error}");
    let (mut line, mut piece) = (Vec::new(), vec![0; PIECE]);
    while line.last() != Some(&b'\n') {
        let read = commands.read(&mut piece).map_err(|error| misread(&error))?;
        if read == 0 {
            return Err("the agent is gone".to_owned());
        }
        line.extend(piece.iter().take(read));
        if line.len() > most {
            return Err(misread(&"the first line is too long"));
        }
    }
    serde_json::from_slice(&line).map_err(|error| misread(&error))
}

/// Into its cgroup, where the kernel bounds it; a listener, which is made there and so is bounded,
/// too; then every right away. What is left open are the listener and the two pipes. `most`: bytes
/// of memory.
pub fn enter(
    place: &Place,
    (commands, answers): (&File, &File),
    most: u64,
) -> Result<(Runtime, TcpListener), String> {
    fs::write(&place.cgroup_procs, "0")
        .map_err(|error| format!("cannot join {}: {error}", place.cgroup_procs.display()))?;
    if let Some(value) = place.oom_score_adj {
        memory::set(value).map_err(|error| format!("cannot set oom_score_adj: {error}"))?;
    }
    harden::separate().map_err(|error| error.to_string())?;
    let listener = listen(place.net).map_err(|error| format!("cannot listen: {error}"))?;
    kernel::proxy::enter(&place.listener, &listener).map_err(|error| error.to_string())?;
    limits(most).map_err(|error| format!("cannot set limits: {error}"))?;
    std::env::set_current_dir("/").map_err(|error| format!("cannot leave the folder: {error}"))?;
    harden::drop_rights(place.uid, place.uid, &[]).map_err(|error| error.to_string())?;
    prctl::set_dumpable(false).map_err(|error| format!("cannot hide the memory: {error}"))?;
    let keep = [
        commands.as_raw_fd(),
        answers.as_raw_fd(),
        listener.as_raw_fd(),
    ];
    harden::close_descriptors(&keep).map_err(|error| error.to_string())?;
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    Ok((runtime, listener))
}

/// Takes away files and system calls. Everything that is opened has been.
pub fn close_up() -> Result<(), String> {
    if !switch::is_off(Part::Landlock) {
        filter::files()?;
    }
    if !switch::is_off(Part::Seccomp) {
        filter::calls()?;
    }
    Ok(())
}

/// On the first address of the range, which stands for no name: nobody is led there.
fn listen(net: Ipv4Addr) -> io::Result<TcpListener> {
    let own = Ipv4Addr::from_bits(net.to_bits() | 1);
    let listener = TcpListener::bind((own, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn limits(memory: u64) -> nix::Result<()> {
    for (resource, most) in [
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_AS, memory),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, most, most)?;
    }
    Ok(())
}
