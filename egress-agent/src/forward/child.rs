//! The forwarder: the same binary, re-executed, on its way to its work.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    net::{Ipv4Addr, TcpListener},
    os::fd::AsRawFd as _,
};

use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::close,
};

use super::{
    filter,
    serve::{Forwarding, serve},
    spec::{Said, Spec},
};
use crate::{
    host::{
        memory,
        switch::{self, Part},
    },
    kernel,
    launch::{harden, spec::say},
};

/// Exit code: the forwarder did not come to its work.
const FAILED: u8 = 125;
/// The agent's first line is shorter. Bytes.
const MAX_LINE: usize = 64 * 1024;
/// Descriptors: two for each connection, and some.
const DESCRIPTORS: u64 = 4_096;
/// Memory. Bytes.
const MEMORY: u64 = 256 * 1024 * 1024;

/// Becomes the forwarder. `commands` and `answers` are the numbers of the two pipes that the agent
/// left open. Answers the exit code, when the agent is gone.
pub fn run(commands: i32, answers: i32) -> u8 {
    let (commands, mut answers) = match reopen(commands, answers) {
        Ok(pipes) => pipes,
        Err(error) => {
            eprintln!("egress-agent: the forwarder is not meant to be called by hand: {error}");
            return FAILED;
        }
    };
    match prepare(commands, &answers) {
        Ok((runtime, forwarding)) => {
            drop(answers);
            runtime.block_on(serve(forwarding));
            0
        }
        Err(message) => {
            // The agent that is gone has nobody to tell.
            let _gone = say(&mut answers, &Said::Failed(message));
            FAILED
        }
    }
}

/// The story of its start, in order: into its cgroup, where the kernel bounds it; a listener, which
/// is made there and so is bounded, too; then every right away.
fn prepare(
    commands: File,
    answers: &File,
) -> Result<(tokio::runtime::Runtime, Forwarding), String> {
    let spec: Spec = one_line(&commands)
        .map_err(|error| format!("it did not understand the agent: {error}"))?
        .ok_or("the agent is gone")?;
    fs::write(&spec.cgroup_procs, "0")
        .map_err(|error| format!("cannot join {}: {error}", spec.cgroup_procs.display()))?;
    if let Some(value) = spec.oom_score_adj {
        memory::set(value).map_err(|error| format!("cannot set oom_score_adj: {error}"))?;
    }
    harden::separate().map_err(|error| error.to_string())?;
    let listener = listen(spec.net).map_err(|error| format!("cannot listen: {error}"))?;
    kernel::proxy::enter(&spec.listener, &listener).map_err(|error| error.to_string())?;
    limits().map_err(|error| format!("cannot set limits: {error}"))?;
    std::env::set_current_dir("/").map_err(|error| format!("cannot leave the folder: {error}"))?;
    harden::drop_rights(spec.uid, spec.uid, &[]).map_err(|error| error.to_string())?;
    prctl::set_dumpable(false).map_err(|error| format!("cannot hide the memory: {error}"))?;
    let keep = [
        commands.as_raw_fd(),
        answers.as_raw_fd(),
        listener.as_raw_fd(),
    ];
    harden::close_descriptors(&keep).map_err(|error| error.to_string())?;
    let runtime = runtime().map_err(|error| format!("cannot start: {error}"))?;
    let forwarding = {
        let _inside = runtime.enter();
        answers
            .try_clone()
            .and_then(|answers| Forwarding::new(listener, commands, answers, spec.authorization))
            .map_err(|error| format!("cannot start: {error}"))?
    };
    if !switch::is_off(Part::Landlock) {
        filter::files()?;
    }
    if !switch::is_off(Part::Seccomp) {
        filter::calls()?;
    }
    Ok((runtime, forwarding))
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
}

/// Reads one line and nothing behind it, which is for the runtime.
fn one_line(mut commands: &File) -> io::Result<Option<Spec>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_LINE && line.last() != Some(&b'\n') {
        if commands.read(&mut byte)? == 0 {
            return Ok(None);
        }
        line.extend(byte);
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// On the first address of the range, which stands for no name: nobody is led there.
fn listen(net: Ipv4Addr) -> io::Result<TcpListener> {
    let own = Ipv4Addr::from_bits(net.to_bits() | 1);
    let listener = TcpListener::bind((own, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn limits() -> nix::Result<()> {
    for (resource, most) in [
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, most, most)?;
    }
    Ok(())
}

/// The two pipes that the agent left open, by their numbers. Opened again by path: taking a
/// descriptor by its number cannot be done without `unsafe`.
fn reopen(commands: i32, answers: i32) -> io::Result<(File, File)> {
    let reader = File::open(format!("/proc/self/fd/{commands}"))?;
    let writer = OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{answers}"))?;
    close(commands)?;
    close(answers)?;
    Ok((reader, writer))
}
