//! POSIX message queues: those of the host are not the connector's.
//!
//! The launcher has an IPC namespace of its own, so `mq_open()` finds no queue of a helper
//! outside. A mounted mqueue file system, however, shows the queues of the namespace that
//! mounted it, and a file opened there is a queue like any other (mq_overview(7)). So each
//! such mount is covered by one of the launcher's own namespace.

use std::fs;

use nix::mount::{MsFlags, mount};

use crate::host::mountinfo;

/// Covers the mounted queues of the host. Needs CAP_SYS_ADMIN, the launcher's own IPC and
/// mount namespaces, and comes before `/proc` or `/dev` change.
pub fn cover() -> Result<(), String> {
    let table = fs::read("/proc/self/mountinfo").map_err(|error| failed("read", &error))?;
    for found in mountinfo::parse(&table) {
        // One that lies hidden below another mount is reached by nobody.
        if found.fs_type != b"mqueue" || !found.point.exists() {
            continue;
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("mqueue"),
            &found.point,
            Some("mqueue"),
            flags,
            None::<&str>,
        )
        .map_err(|error| failed("cover", &error))?;
    }
    Ok(())
}

fn failed(what: &str, why: &dyn std::error::Error) -> String {
    format!("cannot {what} the mounted message queues: {why}; the connector was not started")
}
