//! Process 1 of a connector's PID namespace: the program of `egress-init`, which this one carries.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};

/// Two kilobytes; `egress-agent/build.rs` builds them.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/egress-init"));
/// `MFD_EXEC`, `include/uapi/linux/memfd.h` (Linux 6.3): needed where `vm.memfd_noexec` is 1.
const MFD_EXEC: u32 = 0x10;

/// What the init says once nobody inside can take hold of it.
pub const READY: u8 = b'r';

/// Lays the program down in memory.
pub fn prepare() -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC;
    let file = match memfd_create(c"egress-init", flags | MFdFlags::from_bits_retain(MFD_EXEC)) {
        Err(Errno::EINVAL) => memfd_create(c"egress-init", flags),
        file => file,
    };
    let mut file = File::from(file?);
    file.write_all(PROGRAM)?;
    Ok(file)
}

/// All that the init holds.
pub struct ForInit {
    /// Hangs up with whoever the connector is to end with.
    pub caller: OwnedFd,
    /// What the agent hears.
    pub status: OwnedFd,
    /// What the caller hears, where that is not the agent.
    pub copy: Option<OwnedFd>,
}

/// Becomes the init. `first` is the process whose end it reports. Answers only an error.
pub fn become_init(program: &File, first: i32, given: ForInit) -> io::Error {
    Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0("egress-init")
        .arg(first.to_string())
        .env_clear()
        .stdin(given.caller)
        .stdout(given.status)
        .stderr(given.copy.map_or_else(Stdio::null, Stdio::from))
        .current_dir("/")
        .exec()
}
