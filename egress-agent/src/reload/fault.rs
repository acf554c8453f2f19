//! What keeps a policy from being put in force.

use std::io;

use crate::{
    grant::KeeperError,
    host::{CgroupError, layers::Unmet},
    instance::{DataPlaneError, Full},
    kernel::PlaneError,
    policy::{Faults, change::Overfull, slots::OutOfSlots},
};

/// Why the first policy is not in the data plane.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It does not fit.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A table was not written.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The connector's cgroup cannot be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its place in the data plane.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
}

/// Why a policy cannot take the place of the one in force, which stays.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It has faults, or does not fit the data plane.
    #[error("{0}")]
    Faults(#[from] Faults),
    /// No number is left for its new rules.
    #[error(transparent)]
    Slots(#[from] OutOfSlots),
    /// No room for both policies at once.
    #[error(transparent)]
    Overfull(#[from] Overfull),
    /// No room beside other connectors.
    #[error(transparent)]
    Full(#[from] Full),
    /// It requires a layer that does not hold.
    #[error(transparent)]
    Unmet(#[from] Unmet),
}

/// Why the data plane took a policy only in part.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A table was not written.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// A grant was not deleted.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// A running flow that is now denied could not be ended.
    #[error(
        "running flows that a denial now covers cannot be ended: {0} (the kernel needs \
         CONFIG_INET_DIAG_DESTROY)"
    )]
    Flows(#[source] io::Error),
    /// The rules could not be switched off either. The connector must not run on.
    #[error("the rules of the connector cannot be switched off: {0}")]
    Open(#[source] PlaneError),
}
