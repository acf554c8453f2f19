//! The launcher: the same binary, re-executed, on its way to become the connector.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{ErrorKind, IoSlice, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _, fs::MetadataExt as _, net::UnixStream, process::CommandExt as _,
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use egress_common::abi::OWN_TEMPORARY;
use egress_sys::process::{Fork, fork, inherited};
use nix::{
    sys::{prctl, signal::Signal},
    unistd::{AccessFlags, access},
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{
    devices, filter, harden, identity,
    init::{self, ForInit},
    mounts, own, pinned, queues, scope,
    spec::{Cwd, GO, Lines, NONE, Said, Spec, say},
    trust,
};
use crate::{
    host::{
        memory,
        switch::{self, Part, Step},
        temporary::Temporary,
    },
    kernel::probe::{kernel_release, kernel_version},
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

/// Numbers of the descriptors that the agent left open.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// The pipe with commands.
    pub commands: i32,
    /// The socket for answers.
    pub answers: i32,
    /// The pipe of the init.
    pub status: i32,
    /// The pipe that hangs up with the caller; [`NONE`]: that with commands does.
    pub lifeline: i32,
    /// Another pipe for what the init says at the end; or [`NONE`].
    pub copy: i32,
}

/// Becomes the connector. Comes back only when it failed, with the exit code.
pub fn run(numbers: Numbers) -> u8 {
    let optional = |number: i32| (number != NONE).then(|| inherited(number)).transpose();
    let ways = inherited(numbers.commands).and_then(|commands| {
        let answers = UnixStream::from(inherited(numbers.answers)?);
        let commands = File::from(commands);
        let for_init = ForInit {
            caller: match optional(numbers.lifeline)? {
                Some(lifeline) => lifeline,
                None => commands.try_clone()?.into(),
            },
            status: inherited(numbers.status)?,
            copy: optional(numbers.copy)?,
        };
        Ok((commands, answers, for_init))
    });
    let (commands, mut answers, for_init) = match ways {
        Ok(ways) => ways,
        Err(error) => {
            eprintln!("egress-agent: the launcher is not meant to be called by hand: {error}");
            return FAILED;
        }
    };
    let (code, message) = become_connector(commands, &mut answers, for_init);
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
fn become_connector(commands: File, answers: &mut UnixStream, for_init: ForInit) -> (u8, String) {
    match prepare(commands, answers, for_init) {
        Ok(spec) => execute(&spec),
        Err(message) => (FAILED, message),
    }
}

fn prepare(commands: File, answers: &mut UnixStream, for_init: ForInit) -> Result<Spec, String> {
    let mut commands = Lines::new(commands);
    let spec: Spec = commands
        .hear()
        .map_err(|error| format!("the launcher did not understand the agent: {error}"))?
        .ok_or("the agent is gone; the connector was not started")?;
    enclosed(&spec)?;
    let pid = divided(&spec, for_init)?;
    deprived(&spec)?;
    if spec.enforced && !switch::is_off(Part::Connect) {
        probe()?;
    }
    switch::reached(Step::Probed);
    say(answers, &Said::Ready { pid }).map_err(|error| format!("the agent is gone: {error}"))?;
    match commands.hear::<String>() {
        Ok(Some(word)) if word == GO => {}
        _ => return Err("the agent did not let the connector start".to_owned()),
    }
    drop(commands);
    filtered(&spec, answers)?;
    Ok(spec)
}

/// Inside, as root: cgroup, namespaces, mounts.
fn enclosed(spec: &Spec) -> Result<(), String> {
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
    harden::separate().map_err(|error| error.to_string())
}

/// Mounts, and two processes out of one: the init, which does not come back, and the one that
/// becomes the connector. Answers the latter's number on the host.
fn divided(spec: &Spec, for_init: ForInit) -> Result<u32, String> {
    let failed = |what: &str, error: std::io::Error| {
        format!("cannot {what}: {error}; the connector was not started")
    };
    // The host's view of processes, in which the agent looks.
    let host = File::open("/proc").map_err(|error| failed("open /proc", error))?;
    let program = init::prepare().map_err(|error| failed("make the init", error))?;
    switch::reached(Step::Separated);
    if !switch::is_off(Part::Mounts) {
        mounted(spec)?;
    }
    if let Some(pinned) = &spec.pinned {
        pinned::check(pinned, spec.uid, &spec.command, &spec.env)?;
    }
    switch::reached(Step::Mounted);
    if spec.host_processes || switch::is_off(Part::Processes) {
        return Ok(std::process::id());
    }
    match fork().map_err(|error| failed("make the connector's process", error))? {
        Fork::Parent(first) => {
            let error = init::become_init(&program, first, for_init);
            Err(failed("start the init", error))
        }
        Fork::Child => {
            let own = format!("/proc/self/fd/{}/self", host.as_raw_fd());
            let own = fs::read_link(own).map_err(|error| failed("read /proc/self", error))?;
            let pid = own.to_str().and_then(|pid| pid.parse().ok());
            harden::own_session().map_err(|error| error.to_string())?;
            pid.ok_or_else(|| "/proc/self is no process; the connector was not started".to_owned())
        }
    }
}

/// Without rights.
fn deprived(spec: &Spec) -> Result<(), String> {
    harden::drop_rights(spec.uid, spec.gid, &spec.groups).map_err(|error| error.to_string())?;
    if let Some(cwd) = &spec.cwd {
        enter(cwd)?;
    }
    if spec.host_processes {
        // Nobody else ends it with the agent. Not before: a change of user forgets it.
        prctl::set_pdeathsig(Signal::SIGKILL)
            .map_err(|error| format!("cannot be ended with the agent: {error}"))?;
    }
    switch::reached(Step::Dropped);
    Ok(())
}

/// Goes where the caller is, with the rights of the connector: by the path, so that it is a place of
/// this mount namespace, and only where that is what the caller has there.
fn enter(cwd: &Cwd) -> Result<(), String> {
    let path = cwd.path.display();
    std::env::set_current_dir(&cwd.path).map_err(|error| {
        format!("cannot enter the working directory {path}: {error}; the connector was not started")
    })?;
    let here = fs::metadata(".").map_err(|error| format!("cannot look at {path}: {error}"))?;
    if *cwd != Cwd::root() && (here.dev(), here.ino()) != cwd.is {
        return Err(format!(
            "the working directory {path} is another folder for the daemon than for you: it runs \
             in another mount namespace (a container, or a private /tmp of its unit); start from \
             a folder that both see"
        ));
    }
    Ok(())
}

/// What comes last: the next step is the connector.
fn filtered(spec: &Spec, answers: &UnixStream) -> Result<(), String> {
    if !switch::is_off(Part::Descriptors) {
        harden::close_descriptors(&[answers.as_raw_fd()]).map_err(|error| error.to_string())?;
    }
    switch::reached(Step::Closed);
    if !switch::is_off(Part::Landlock) {
        let temporary = spec.temporary.as_ref().map(Temporary::path);
        scope::install(spec.unix.landlock, temporary.as_deref())?;
    }
    if !switch::is_off(Part::Seccomp) {
        let wanted = filter::Wanted {
            unix: spec.unix.sockets,
            binds: spec.unix.binds && !switch::is_off(Part::Landlock),
            host_processes: spec.host_processes,
            multipath: kernel_version(&kernel_release())
                .is_some_and(|version| version >= filter::MULTIPATH),
        };
        let listener = filter::install(wanted).map_err(|error| error.to_string())?;
        hand_over(&listener, answers).map_err(|error| format!("the agent is gone: {error}"))?;
    }
    switch::reached(Step::Filtered);
    Ok(())
}

/// Sends the line [`Said::Filtered`] and the descriptor with it.
fn hand_over(listener: &OwnedFd, mut answers: &UnixStream) -> std::io::Result<()> {
    let mut line = Vec::new();
    say(&mut line, &Said::Filtered)?;
    let descriptors = [listener.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = SendAncillaryBuffer::new(&mut space);
    if !attached.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(std::io::Error::other("no room for a descriptor"));
    }
    let flags = SendFlags::NOSIGNAL;
    let sent = sendmsg(answers, &[IoSlice::new(&line)], &mut attached, flags)?;
    answers.write_all(line.get(sent..).unwrap_or_default())
}

/// The connector's view of the file system.
fn mounted(spec: &Spec) -> Result<(), String> {
    own::namespace().map_err(|error| error.to_string())?;
    if !switch::is_off(Part::Ipc) {
        queues::cover()?;
    }
    if !spec.host_processes && !switch::is_off(Part::Processes) {
        mounts::own_processes().map_err(|error| error.to_string())?;
    }
    if !switch::is_off(Part::Devices) {
        devices::install(&spec.devices, &spec.unix.paths).map_err(|error| error.to_string())?;
    }
    identity::show(&spec.entries).map_err(|error| error.to_string())?;
    if let Some(trust) = &spec.trust {
        trust::show(trust).map_err(|error| error.to_string())?;
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

/// Looks for a program as execvp(3) does, with the rights that it will have.
fn search(program: &OsStr, folders: &OsStr) -> PathBuf {
    if program.as_bytes().contains(&b'/') {
        return PathBuf::from(program);
    }
    let mut candidates = std::env::split_paths(folders)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program));
    let runs = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|facts| facts.is_file())
            && access(path, AccessFlags::X_OK).is_ok()
    };
    // Not a bare name: that would be looked for again, and elsewhere.
    candidates
        .find(runs)
        .unwrap_or_else(|| Path::new("/nonexistent").join(program))
}

fn execute(spec: &Spec) -> (u8, String) {
    let Some((program, arguments)) = spec.command.split_first() else {
        return (FAILED, "there is no command to start".to_owned());
    };
    if let Err(error) = spec.inherited.take_up() {
        let why = format!("cannot set the caller's own limits and signals: {error}");
        return (FAILED, why);
    }
    let found = match &spec.search {
        Some(folders) => search(program, folders),
        None => PathBuf::from(program),
    };
    let error = Command::new(&found)
        .arg0(program)
        .args(arguments)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .exec();
    let code = match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    let mut why = format!("cannot execute {}: {error}", program.display());
    // execve(2), EPERM: the one cause of it that is left here.
    if error.raw_os_error() == Some(nix::errno::Errno::EPERM as i32) {
        why += "; a program whose file has capabilities (getcap(8)) cannot be a connector, \
                which has none";
    }
    (code, why)
}
