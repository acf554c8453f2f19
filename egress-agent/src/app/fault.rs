//! Why a run failed.

use nix::sys::signal::Signal;

use crate::{
    event::pump::PumpError,
    exit, forward,
    host::layers::Unmet,
    instance::{DataPlaneError, Full},
    kernel::{instance::InstanceError, lsm::LsmError, probe},
    launch::{self, LaunchError},
    reload,
};

/// Why a run failed; the connector was not started, or ended with the agent's help.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// This host cannot carry the data plane.
    #[error(transparent)]
    Host(#[from] probe::HostFault),
    /// The instance could not be made or ended.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// A cgroup could not be read.
    #[error(transparent)]
    Cgroup(#[from] crate::host::CgroupError),
    /// The data plane was refused.
    #[error(transparent)]
    Plane(#[from] crate::kernel::PlaneError),
    /// The data plane cannot be used.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    /// Other connectors have all the room.
    #[error("{0}; nothing was started")]
    Full(#[from] Full),
    /// The policy is not in the data plane.
    #[error(transparent)]
    Start(#[from] reload::fault::StartError),
    /// A changed policy left the data plane open.
    #[error("{0}; the connector was ended")]
    Reload(#[from] reload::fault::Broken),
    /// The DNS door could not be opened.
    #[error("cannot open the DNS door on loopback: {0}")]
    Door(#[source] std::io::Error),
    /// The policy requires layers that do not hold.
    #[error("{0}; nothing was started")]
    Required(#[from] Unmet),
    /// Permitted names have no address.
    #[error(
        "a permitted name has no address, and nothing was started, because the policy says \
         “start: strict”: {0}; mend the policy or the resolver, or start nevertheless with \
         --start-unresolved"
    )]
    Unresolved(String),
    /// A rule for a unix socket on a kernel that cannot judge those.
    #[error(transparent)]
    Unix(#[from] launch::Unenforceable),
    /// The programs for security modules fired a moment ago and cannot be attached now.
    #[error("{0}; the connector was not started")]
    Modules(#[from] LsmError),
    /// No loopback addresses are left for the names that go through a proxy.
    #[error("cannot lead names to the proxy: {0}")]
    Range(#[source] std::io::Error),
    /// The daemon's socket cannot be made.
    #[error("cannot make the control socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The connector would reach the proxy itself.
    #[error("{0}; nothing was started")]
    Passed(String),
    /// The process beside the connector did not start.
    #[error("{0}; the connector was not started")]
    Forward(#[from] forward::ForwardError),
    /// A signal came before the connector was started.
    #[error("ended by {0} before the connector was started")]
    Signal(Signal),
    /// The launcher failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The stream of events could not be opened.
    #[error(transparent)]
    Stream(#[from] PumpError),
    /// Waiting for the connector or a signal failed.
    #[error("cannot wait for the connector: {0}")]
    Wait(#[source] std::io::Error),
}

impl RunError {
    /// The exit code for this failure.
    pub fn code(&self) -> u8 {
        match self {
            Self::Launch(LaunchError::Failed { code, .. }) => *code,
            Self::Signal(signal) => exit::of_signal(*signal as i32),
            _ => exit::AGENT_FAILED,
        }
    }
}
