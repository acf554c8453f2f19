//! What a daemon that is gone has left: connectors that run on, confined and without names.
//!
//! Their callers hold what keeps them alive. Nobody answers their questions for names any more and
//! nothing is granted to them; they end with their callers, or where somebody ends them.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::{
    control::protocol::Row,
    host::CgroupError,
    kernel::{
        instance::InstanceError,
        leftovers::{Orphan, orphans},
    },
};

/// Those that somebody may see; `None`: all.
pub(super) fn rows(only: Option<u32>) -> Result<Vec<Row>, InstanceError> {
    let rows = orphans()?.into_iter().map(|orphan| {
        let pid = pids(&orphan).first().copied();
        Row {
            connector: connector(&orphan.name).to_owned(),
            instance: orphan.name,
            caller: None,
            uid: pid.and_then(owner),
            pid,
            age: None,
            state: "orphaned".to_owned(),
            mode: None,
        }
    });
    Ok(rows
        .filter(|row| only.is_none() || row.uid == only)
        .collect())
}

/// Ends those of a name, or of a connector, that somebody may see. Answers their names.
pub(super) fn end(what: &str, only: Option<u32>) -> Result<Vec<String>, InstanceError> {
    let mut ended = Vec::new();
    for orphan in orphans()? {
        let uid = pids(&orphan).first().copied().and_then(owner);
        let named = orphan.name == what || connector(&orphan.name) == what;
        if named && (only.is_none() || uid == only) {
            orphan
                .kill()
                .map_err(|error: CgroupError| InstanceError::from(error))?;
            ended.push(orphan.name);
        }
    }
    Ok(ended)
}

/// Processes that are not the init, which belongs to root.
fn pids(orphan: &Orphan) -> Vec<u32> {
    let all = orphan.pids().unwrap_or_default();
    let (own, init): (Vec<u32>, Vec<u32>) = all.into_iter().partition(|pid| owner(*pid) != Some(0));
    if own.is_empty() { init } else { own }
}

fn owner(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}"))
        .ok()
        .map(|facts| facts.uid())
}

/// The connector of an instance: its name less process, time and number of the start.
fn connector(instance: &str) -> &str {
    instance.rsplitn(4, '-').last().unwrap_or(instance)
}
