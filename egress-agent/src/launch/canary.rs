//! The canary: a process below the instance's cgroup tries what only the programs for security
//! modules refuse.
//!
//! Loading and attaching them proves nothing: a kernel without `bpf` in its list of security
//! modules takes them and never runs them. The canary belongs to no connector, so it is refused
//! in audit mode, too, and nobody's account shows it.

use std::{
    fs, io,
    os::unix::process::parent_id,
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::spec::CANARY;
use crate::kernel::lsm::{LsmError, LsmPrograms};

/// Exit code: everything was refused.
const REFUSED: u8 = 0;
/// Exit code: something passed.
const PASSED: u8 = 3;
/// Exit code: it is refused without the programs, too, or nothing could be tried.
const UNPROVEN: u8 = 4;

/// Attaches the programs at a cgroup, sends a canary there and detaches them. Answers the
/// programs, where they fire.
pub fn prove(programs: LsmPrograms, cgroup: &Path) -> Result<LsmPrograms, LsmError> {
    let attached = programs.hold(cgroup)?;
    let sent = Command::new("/proc/self/exe")
        .arg(CANARY)
        .arg(cgroup.join("cgroup.procs"))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output();
    drop(attached);
    let output = sent.map_err(|error| LsmError::Unproven(error.to_string()))?;
    match output.status.code().map(u8::try_from) {
        Some(Ok(REFUSED)) => Ok(programs),
        Some(Ok(PASSED)) => Err(LsmError::Silent),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(LsmError::Unproven(format!(
                "{} ({})",
                said.trim(),
                output.status
            )))
        }
    }
}

/// Is the canary. Answers the exit code.
pub fn run(cgroup_procs: &Path) -> u8 {
    match sing(cgroup_procs) {
        Ok(true) => REFUSED,
        Ok(false) => PASSED,
        Err(error) => {
            eprintln!("{error}");
            UNPROVEN
        }
    }
}

/// Whether what passes outside is refused inside, and what must pass still does.
fn sing(cgroup_procs: &Path) -> Result<bool, String> {
    for attempt in ATTEMPTS {
        (attempt.try_it)()
            .map_err(|error| format!("{} fails outside, too: {error}", attempt.name))?;
    }
    fs::write(cgroup_procs, "0")
        .map_err(|error| format!("cannot join {}: {error}", cgroup_procs.display()))?;
    route_socket().map_err(|error| format!("a permitted socket fails inside: {error}"))?;
    let refused = |attempt: &Attempt| {
        (attempt.try_it)().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    Ok(ATTEMPTS.iter().all(refused))
}

struct Attempt {
    name: &'static str,
    try_it: fn() -> io::Result<()>,
}

/// Harmless, open to root on every host, and seen by no other hook of the data plane.
const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "a netlink socket for users",
        try_it: || netlink(SockProtocol::NetlinkUserSock),
    },
    Attempt {
        name: "looking at the agent",
        try_it: || fs::read_link(format!("/proc/{}/exe", parent_id())).map(drop),
    },
];

fn route_socket() -> io::Result<()> {
    netlink(SockProtocol::NetlinkRoute)
}

fn netlink(protocol: SockProtocol) -> io::Result<()> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        protocol,
    )?;
    Ok(())
}
