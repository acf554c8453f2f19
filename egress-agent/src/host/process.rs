//! What /proc says about a process (proc(5)).
//!
//! A process can end at any moment, so everything that is not there is `None`. Texts are as
//! the process chose them, control bytes included; only bytes that are no UTF-8 are
//! replaced.
//!
//! [`Process::read`] reads memory of the process (`cmdline`), which a hostile process can
//! back with a file system that never answers: call it where a wait does no harm.
//! [`Stat::read`] never waits for the process.

use std::{
    fs::File,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};

/// Arguments of a command line that are kept.
pub const MAX_ARGS: usize = 32;
/// Bytes of a command line that are kept.
pub const MAX_CMDLINE: usize = 4096;

/// A process, as it was when it was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// What does not need the memory of the process.
    pub stat: Stat,
    /// Real user id.
    pub uid: u32,
    /// Path of the program; a kernel note such as ` (deleted)` may follow it.
    pub exe: Option<String>,
    /// Arguments, program name first; at most [`MAX_ARGS`] and [`MAX_CMDLINE`] bytes. Where
    /// that cut something off, the last one ends in `…`.
    pub cmdline: Vec<String>,
    /// Path below the root of the cgroup2 hierarchy, for example `/user.slice`.
    pub cgroup: Option<PathBuf>,
}

/// The first fields of `/proc/PID/stat`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Process id.
    pub pid: u32,
    /// Parent's process id; 0 = none, or outside this pid namespace.
    pub ppid: u32,
    /// Name of the main thread.
    pub comm: String,
    /// Start, in clock ticks since boot. With the pid it names one process.
    pub start_ticks: u64,
}

impl Process {
    /// Reads a process. `None`: it is gone.
    pub fn read(pid: u32) -> Option<Self> {
        Self::read_below(Path::new("/proc"), pid)
    }

    fn read_below(proc: &Path, pid: u32) -> Option<Self> {
        let folder = proc.join(pid.to_string());
        let stat = Stat::read_below(proc, pid)?;
        let process = Self {
            uid: real_uid(&bounded(&folder.join("status"), MAX_CMDLINE)?)?,
            exe: std::fs::read_link(folder.join("exe"))
                .ok()
                .map(|path| lossy(path.as_os_str().as_bytes())),
            cmdline: arguments(&bounded(&folder.join("cmdline"), MAX_CMDLINE + 1)?),
            cgroup: cgroup_path(&bounded(&folder.join("cgroup"), 64 * 1024)?),
            stat,
        };
        // The pid may have become another process's between two of these files.
        let again = Stat::read_below(proc, pid)?;
        (again.start_ticks == process.stat.start_ticks).then_some(process)
    }

    /// Parents, nearest first, at most `limit`. It ends early where a parent is gone.
    pub fn parents(&self, limit: usize) -> Vec<Stat> {
        parents_of(self.stat.ppid, limit)
    }
}

/// The process `ppid` and its parents, nearest first, at most `limit`.
pub fn parents_of(ppid: u32, limit: usize) -> Vec<Stat> {
    let mut parents: Vec<Stat> = Vec::new();
    let mut next = ppid;
    while parents.len() < limit && next != 0 {
        // Pids that are reused while the chain is walked can close it to a ring.
        if parents.iter().any(|seen| seen.pid == next) {
            break;
        }
        let Some(stat) = Stat::read(next) else { break };
        next = stat.ppid;
        parents.push(stat);
    }
    parents
}

impl Stat {
    /// Reads `/proc/PID/stat`. `None`: the process is gone.
    pub fn read(pid: u32) -> Option<Self> {
        Self::read_below(Path::new("/proc"), pid)
    }

    fn read_below(proc: &Path, pid: u32) -> Option<Self> {
        Self::parse(&bounded(&proc.join(format!("{pid}/stat")), MAX_CMDLINE)?)
    }

    /// Reads the text of `/proc/PID/stat`.
    ///
    /// The name stands in parentheses and may itself hold parentheses, blanks and line
    /// ends; the last `)` ends it, because only numbers follow.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let open = bytes.iter().position(|&byte| byte == b'(')?;
        let close = bytes.iter().rposition(|&byte| byte == b')')?;
        let pid = std::str::from_utf8(bytes.get(..open)?).ok()?;
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        Some(Self {
            pid: pid.trim().parse().ok()?,
            comm: lossy(bytes.get(open + 1..close)?),
            // Fields 4 (ppid) and 22 (starttime) of proc_pid_stat(5); `rest` starts at 3.
            ppid: fields.nth(1)?.parse().ok()?,
            start_ticks: fields.nth(17)?.parse().ok()?,
        })
    }

    /// Start on the boot clock, nanoseconds, rounded down to a clock tick.
    pub fn start_ns(&self) -> u64 {
        self.start_ticks.saturating_mul(tick_ns())
    }

    /// Whether this process had been started by a time on the boot clock. A clock tick of
    /// doubt is in its favour.
    pub fn started_by(&self, boot_ns: u64) -> bool {
        self.start_ns() <= boot_ns
    }
}

/// Whether this process was started with SIGHUP ignored, as nohup(1) starts it.
pub fn ignores_hangup() -> bool {
    const SIGHUP: u64 = 1;
    let status = bounded(Path::new("/proc/self/status"), MAX_CMDLINE).unwrap_or_default();
    let mut lines = status.split(|&byte| byte == b'\n');
    let mask = lines.find_map(|line| line.strip_prefix(b"SigIgn:\t"));
    let mask = mask.and_then(|mask| std::str::from_utf8(mask).ok());
    let mask = mask.and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.is_some_and(|mask| mask & SIGHUP != 0)
}

/// A thread, and the process it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thread {
    /// Process id.
    pub pid: u32,
    /// Real user id.
    pub uid: u32,
    /// Name of the thread, NUL-padded.
    pub comm: [u8; 16],
}

/// Looks a thread up without waiting for its process. `None`: it is gone.
pub fn thread_group(tid: u32) -> Option<Thread> {
    let folder = PathBuf::from(format!("/proc/{tid}"));
    let status = bounded(&folder.join("status"), MAX_CMDLINE)?;
    let name = bounded(&folder.join("comm"), 17)?;
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().zip(name) {
        *to = *from;
    }
    Some(Thread {
        pid: number(&status, b"Tgid:")?,
        uid: real_uid(&status)?,
        comm,
    })
}

/// Whether this process sees the pids that the kernel reports to the data plane: those of
/// the initial pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
pub fn in_initial_pid_namespace() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

/// Nanoseconds of one clock tick of /proc.
fn tick_ns() -> u64 {
    let hz = sysconf(SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|hz| u64::try_from(hz).ok())
        .filter(|&hz| hz > 0)
        .unwrap_or(100);
    1_000_000_000 / hz
}

fn bounded(path: &Path, limit: usize) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(u64::try_from(limit).ok()?)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

fn real_uid(status: &[u8]) -> Option<u32> {
    number(status, b"Uid:")
}

/// The first number of a line of proc_pid_status(5). A name cannot forge one: the kernel writes
/// its line ends as `\n`.
fn number(status: &[u8], key: &[u8]) -> Option<u32> {
    let line = status
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(key))?;
    std::str::from_utf8(line)
        .ok()?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The arguments of a `/proc/PID/cmdline`: each ends with NUL. Bounded; an ellipsis marks what
/// was left out.
pub fn arguments(bytes: &[u8]) -> Vec<String> {
    let kept = bytes.get(..MAX_CMDLINE).unwrap_or(bytes);
    let text = kept.strip_suffix(b"\0").unwrap_or(kept);
    if text.is_empty() {
        return Vec::new();
    }
    let mut parts = text.split(|&byte| byte == 0);
    let mut arguments: Vec<String> = parts.by_ref().take(MAX_ARGS).map(lossy).collect();
    if (bytes.len() > MAX_CMDLINE || parts.next().is_some())
        && let Some(last) = arguments.last_mut()
    {
        last.push('…');
    }
    arguments
}

/// The line of the unified hierarchy, `0::PATH` (cgroups(7)).
pub fn cgroup_path(bytes: &[u8]) -> Option<PathBuf> {
    bytes
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))
        .map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use super::*;
    use crate::host::clock::boot_ns;

    #[test]
    fn this_process() {
        let own = Process::read(std::process::id()).unwrap();
        assert_eq!(own.stat.pid, std::process::id());
        assert_eq!(own.uid, nix::unistd::getuid().as_raw());
        assert!(own.exe.unwrap().contains("egress_agent"));
        assert!(own.cgroup.unwrap().is_absolute());
        assert!(own.stat.started_by(boot_ns()));
        assert!(!own.stat.started_by(1));
    }

    #[test]
    fn parents_come_nearest_first_and_bounded() {
        let own = Process::read(std::process::id()).unwrap();
        let parents = own.parents(2);
        assert!(parents.len() <= 2);
        assert_eq!(parents.first().unwrap().pid, own.stat.ppid);
        assert!(own.parents(0).is_empty());
    }

    #[test]
    fn gone() {
        assert_eq!(Process::read(u32::MAX), None);
        assert_eq!(Stat::read(0), None);
        assert!(parents_of(u32::MAX, 3).is_empty());
    }

    #[test]
    fn a_name_cannot_forge_the_fields() {
        let line = b"42 (a) R 1 (x\n\x1b[31m) S 7 42 42 0 -1 1 2 3 4 5 6 7 8 9 20 0 1 0 12345 1 2";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.ppid, stat.start_ticks), (42, 7, 12345));
        assert_eq!(stat.comm, "a) R 1 (x\n\x1b[31m");
        for broken in [
            &b""[..],
            b"42",
            b"42 (x",
            b"42 )x(",
            b"42 (x) S 7",
            b"x (x) S 7",
        ] {
            assert_eq!(Stat::parse(broken), None);
        }
    }

    #[test]
    fn command_lines_are_bounded() {
        assert_eq!(arguments(b"node\0-e\0\0"), ["node", "-e", ""]);
        assert!(arguments(b"").is_empty());
        let many: Vec<u8> = b"x\0".repeat(MAX_ARGS + 1);
        let cut = arguments(&many);
        assert_eq!(cut.len(), MAX_ARGS);
        assert_eq!(cut.last().unwrap(), "x…");
        let long = vec![b'y'; MAX_CMDLINE + 1];
        assert_eq!(
            arguments(&long).concat().len(),
            MAX_CMDLINE + '…'.len_utf8()
        );
        assert_eq!(arguments(b"\xff\x1b"), ["\u{fffd}\x1b"]);
    }

    #[test]
    fn other_files() {
        assert_eq!(real_uid(b"Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(1000));
        assert_eq!(real_uid(b"Name:\tx\n"), None);
        assert_eq!(
            cgroup_path(b"1:cpu:/x\n0::/a b/c\n"),
            Some(PathBuf::from("/a b/c"))
        );
        assert_eq!(cgroup_path(b"1:cpu:/x\n"), None);
    }
}
