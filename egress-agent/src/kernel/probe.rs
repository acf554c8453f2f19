//! What this host offers, before anything is started.

use std::{fs, path::Path};

use nix::{
    sys::{statfs, utsname::uname},
    unistd::geteuid,
};

/// The oldest kernel with every feature the data plane needs: `bpf_sk_storage_get` and the
/// current cgroup in all hooks, the ring buffer (5.8), links (5.7).
pub const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Why the data plane cannot be brought up on this host.
#[derive(Debug, thiserror::Error)]
pub enum HostFault {
    /// Not root.
    #[error("egress-agent run needs root to load the data plane; start it with sudo")]
    NotRoot,
    /// Kernel too old.
    #[error("Linux {release} is too old: the data plane needs {}.{} or newer", OLDEST_KERNEL.0, OLDEST_KERNEL.1)]
    Kernel {
        /// What `uname -r` says.
        release: String,
    },
    /// No bpf file system.
    #[error(
        "no bpf file system at {}; mount it with: mount -t bpf bpf {}",
        super::pin::MOUNT,
        super::pin::MOUNT
    )]
    NoBpfFs,
    /// A boot clock of its own.
    #[error(
        "this time namespace moves the boot clock by {0}; the kernel judges grants by the host's, so run the agent in the host's time namespace (nsenter --time --target 1)"
    )]
    Clock(String),
}

/// Checks what can be checked without changing anything.
pub fn check_host() -> Result<(), HostFault> {
    check_kernel()?;
    check_access()
}

/// Whether the kernel is one the data plane was made for.
pub fn check_kernel() -> Result<(), HostFault> {
    new_enough(kernel_release())
}

/// Whether this process may load the data plane, can pin it, and has the clock it goes by.
pub fn check_access() -> Result<(), HostFault> {
    if !geteuid().is_root() {
        return Err(HostFault::NotRoot);
    }
    if !is_bpffs(Path::new(super::pin::MOUNT)) {
        return Err(HostFault::NoBpfFs);
    }
    // Absent before Linux 5.6, and so is the namespace.
    let clocks = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    match moved_boot_clock(&clocks) {
        Some(by) => Err(HostFault::Clock(by)),
        None => Ok(()),
    }
}

/// Whether a kernel of this release is one the data plane was made for. What it really offers
/// is seen when the programs are loaded; older ones were never tried.
fn new_enough(release: String) -> Result<(), HostFault> {
    if kernel_version(&release).is_some_and(|version| version < OLDEST_KERNEL) {
        return Err(HostFault::Kernel { release });
    }
    Ok(())
}

/// What `uname -r` says; empty if the call fails.
pub fn kernel_release() -> String {
    uname().map_or_else(
        |_| String::new(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

/// Major and minor number of a kernel release such as `6.1.0-28-cloud-amd64`.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Security modules that are active, as `/sys/kernel/security/lsm` lists them.
pub fn security_modules() -> Option<Vec<String>> {
    let list = fs::read_to_string("/sys/kernel/security/lsm").ok()?;
    Some(list.trim().split(',').map(str::to_owned).collect())
}

/// By how much a time namespace moves `CLOCK_BOOTTIME` (time_namespaces(7)): a line with the
/// clock, seconds and nanoseconds.
fn moved_boot_clock(offsets: &str) -> Option<String> {
    let line = offsets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("boottime")).then_some(words)
    })?;
    let by: Vec<&str> = line.collect();
    let moved = by.iter().any(|number| number.parse() != Ok(0_i64));
    moved.then(|| format!("{} s", by.join(".")))
}

fn is_bpffs(path: &Path) -> bool {
    statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type() == statfs::BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::{kernel_version, moved_boot_clock, new_enough};

    #[test]
    fn kernels_before_5_10_are_refused_by_name() {
        let said =
            |release: &str| new_enough(release.to_owned()).map_err(|fault| fault.to_string());
        let old = "Linux 5.9.16-1 is too old: the data plane needs 5.10 or newer";
        assert_eq!(said("5.9.16-1"), Err(old.to_owned()));
        assert!(said("4.19.0-27-cloud-amd64").is_err());
        assert_eq!(said("5.10.0-46-cloud-amd64"), Ok(()));
    }

    #[test]
    fn reads_offsets_of_clocks() {
        let host = "monotonic           0         0\nboottime            0         0\n";
        assert_eq!(moved_boot_clock(host), None);
        assert_eq!(moved_boot_clock(""), None);
        let moved = "monotonic           0         0\nboottime       -86400         0\n";
        assert_eq!(moved_boot_clock(moved), Some("-86400.0 s".to_owned()));
    }

    #[test]
    fn reads_release_numbers() {
        assert_eq!(kernel_version("6.1.0-28-cloud-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("5.10.209"), Some((5, 10)));
        assert_eq!(kernel_version("7.2+debian"), Some((7, 2)));
        assert_eq!(kernel_version("six"), None);
    }
}
