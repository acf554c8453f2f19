//! The launcher: the same binary, re-executed, on its way to become the connector.

use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    time::Duration,
};

use egress_common::abi::OWN_TEMPORARY;
use nix::unistd::close;

use super::{
    filter, harden, mounts, own, queues, scope,
    spec::{GO, Lines, Said, Spec, say},
};
use crate::host::{
    memory,
    switch::{self, Part, Step},
    temporary::Temporary,
};

/// Exit code: the agent or launcher failed and nothing was started.
const FAILED: u8 = 125;
/// Exit code: the program cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code: there is no such program.
const NOT_FOUND: u8 = 127;

/// A destination no policy can mean: "this network" (RFC 1122 section 3.2.1.3). Nothing
/// leaves for it even where the boundary does not hold.
pub const PROBE: (Ipv4Addr, u16) = (Ipv4Addr::new(0, 0, 0, 1), 1);

/// Becomes the connector. `commands` and `answers` are the numbers of the two pipes that the
/// agent left open. Comes back only when it failed, with the exit code.
pub fn run(commands: i32, answers: i32) -> u8 {
    // Reopened by path: taking a descriptor by its number cannot be done without `unsafe`.
    let reopened = reopen(commands, answers);
    let (commands, mut answers) = match reopened {
        Ok(pipes) => pipes,
        Err(error) => {
            eprintln!("egress-agent: the launcher is not meant to be called by hand: {error}");
            return FAILED;
        }
    };
    let (code, message) = become_connector(commands, &mut answers);
    let said = say(
        &mut answers,
        &Said::Failed {
            code,
            message: message.clone(),
        },
    );
    if said.is_err() {
        eprintln!("egress-agent: {message}");
    }
    code
}

/// The story of a start, in order. Answers why it ended.
fn become_connector(commands: File, answers: &mut File) -> (u8, String) {
    match prepare(commands, answers) {
        Ok(spec) => execute(&spec),
        Err(message) => (FAILED, message),
    }
}

fn prepare(commands: File, answers: &mut File) -> Result<Spec, String> {
    let mut commands = Lines::new(commands);
    let spec: Spec = commands
        .hear()
        .map_err(|error| format!("the launcher did not understand the agent: {error}"))?
        .ok_or("the agent is gone; the connector was not started")?;
    switch::reached(Step::Joining);
    fs::write(&spec.cgroup_procs, "0").map_err(|error| {
        format!(
            "cannot join the cgroup {}: {error}",
            spec.cgroup_procs.display()
        )
    })?;
    switch::reached(Step::Joined);
    if let Some(value) = spec.oom_score_adj {
        memory::set(value).map_err(|error| {
            format!(
                "cannot give up the agent's oom_score_adj: {error}; the connector was not started"
            )
        })?;
    }
    harden::separate().map_err(|error| error.to_string())?;
    switch::reached(Step::Separated);
    if !switch::is_off(Part::Mounts) {
        mounted(&spec)?;
    }
    switch::reached(Step::Mounted);
    harden::drop_rights(spec.uid, spec.gid, &spec.groups).map_err(|error| error.to_string())?;
    switch::reached(Step::Dropped);
    if spec.enforced && !switch::is_off(Part::Connect) {
        probe()?;
    }
    switch::reached(Step::Probed);
    say(answers, &Said::Ready).map_err(|error| format!("the agent is gone: {error}"))?;
    match commands.hear::<String>() {
        Ok(Some(word)) if word == GO => {}
        _ => return Err("the agent did not let the connector start".to_owned()),
    }
    drop(commands);
    if !switch::is_off(Part::Descriptors) {
        harden::close_descriptors(&[raw(answers)]).map_err(|error| error.to_string())?;
    }
    switch::reached(Step::Closed);
    if !switch::is_off(Part::Landlock) {
        let temporary = spec.temporary.as_ref().map(Temporary::path);
        scope::install(spec.unix.landlock, temporary.as_deref())?;
    }
    if !switch::is_off(Part::Seccomp) {
        filter::install(spec.unix.sockets).map_err(|error| error.to_string())?;
    }
    switch::reached(Step::Filtered);
    Ok(spec)
}

/// The connector's view of the file system.
fn mounted(spec: &Spec) -> Result<(), String> {
    own::namespace().map_err(|error| error.to_string())?;
    if !switch::is_off(Part::Ipc) {
        queues::cover()?;
    }
    if spec.uid == 0 {
        mounts::seal().map_err(|error| error.to_string())?;
    }
    own::folder(spec.uid, spec.gid).map_err(|error| error.to_string())?;
    if let Some(temporary) = &spec.temporary {
        temporary.enter(Path::new(OWN_TEMPORARY)).map_err(|error| {
            format!(
                "cannot enter the temporary folder {}: {error}; the connector was not started",
                temporary.path().display()
            )
        })?;
    }
    for socket in &spec.unix.paths {
        own::keep(socket, spec.uid, socket).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A connection that no rule permits must be refused by the data plane, or this host does
/// not enforce what it seems to: a foreign program on an ancestor cgroup can turn a refusal
/// into a permission.
fn probe() -> Result<(), String> {
    let wait = Duration::from_secs(1);
    match TcpStream::connect_timeout(&SocketAddr::from(PROBE), wait) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        Ok(_) => Err(open_boundary("succeeded")),
        Err(error) => Err(open_boundary(&format!("failed with \"{error}\""))),
    }
}

fn open_boundary(outcome: &str) -> String {
    format!(
        "the boundary does not hold on this host: a probe that must be refused {outcome}. \
         Another cgroup program may overrule it (`bpftool cgroup tree`). \
         The connector was not started"
    )
}

fn execute(spec: &Spec) -> (u8, String) {
    let Some((program, arguments)) = spec.command.split_first() else {
        return (FAILED, "there is no command to start".to_owned());
    };
    if let Err(error) = spec.inherited.take_up() {
        let why = format!("cannot set the caller's own limits and signals: {error}");
        return (FAILED, why);
    }
    let error = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .exec();
    let code = match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    (
        code,
        format!("cannot execute {}: {error}", program.display()),
    )
}

/// The two pipes that the agent left open, by their numbers.
pub(crate) fn reopen(commands: i32, answers: i32) -> std::io::Result<(File, File)> {
    let reader = File::open(format!("/proc/self/fd/{commands}"))?;
    let writer = OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{answers}"))?;
    close(commands)?;
    close(answers)?;
    Ok((reader, writer))
}

fn raw(file: &File) -> i32 {
    use std::os::fd::AsRawFd as _;
    file.as_raw_fd()
}
