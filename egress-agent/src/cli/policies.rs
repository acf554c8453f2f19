//! Where a connector's policy is looked for by its name.

use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::{
    run::POLICIES,
    scan::{DAEMON, OWN},
};
use crate::{
    host::calling_user,
    policy::{self, Loaded},
};

/// The user's own folder of policies, below the home.
pub(super) fn own() -> Result<PathBuf, String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.filter(|home| home.is_absolute());
    let home = match home {
        Some(home) => home,
        None => calling_user().map_err(|error| error.to_string())?.home,
    };
    Ok(home.join(OWN))
}

/// The folder that policies are made in: the daemon's for root, otherwise the user's own.
pub(super) fn made_in() -> Result<PathBuf, String> {
    if geteuid().is_root() {
        return Ok(PathBuf::from(DAEMON));
    }
    own()
}

/// The policy of a connector: in one folder, or in each that the agent knows. `None`: there is none.
pub(super) fn find(connector: &str, folder: Option<&Path>) -> Result<Option<Loaded>, String> {
    let folders = match folder {
        Some(folder) => vec![folder.to_owned()],
        None => vec![PathBuf::from(POLICIES), PathBuf::from(DAEMON), own()?],
    };
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        match policy::find(folder, connector) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(faults) => {
                let faults = faults.into_vec();
                let own = faults
                    .iter()
                    .find(|fault| fault.file.file_stem().is_some_and(|stem| stem == connector));
                if let Some(fault) = own {
                    return Err(format!("its policy has a fault: {fault}"));
                }
            }
        }
    }
    Ok(None)
}
