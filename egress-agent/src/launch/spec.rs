//! What agent and launcher say to each other, one JSON line each way at a time.
//!
//! agent → launcher: [`Spec`], then [`GO`]. launcher → agent: [`Said::Ready`], then
//! [`Said::Filtered`], then either [`Said::Failed`] or, when `execve` closes the socket, nothing.

use std::{
    ffi::OsString,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{identity::Entry, pinned::Pinned, scope::Landlocked, trust::Trust};
use crate::host::inherited::Inherited;
use crate::host::temporary::Temporary;

/// Everything the launcher needs. The environment travels here and not as the launcher's
/// own: `LD_PRELOAD` and its like must not reach a process that is still root.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// The `cgroup.procs` file to join.
    pub cgroup_procs: PathBuf,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Program and arguments; never empty.
    pub command: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Whether the boundary must refuse the probe; false for an audited connector.
    pub enforced: bool,
    /// Unix sockets.
    pub unix: UnixSockets,
    /// What the agent inherited from its caller.
    pub inherited: Inherited,
    /// Where it begins; `None`: where the launcher is.
    pub cwd: Option<Cwd>,
    /// Folders in which the program is looked for, as in `PATH`; `None`: those of `env`.
    pub search: Option<OsString>,
    /// The temporary folder that it shares with its caller, where it has one.
    pub temporary: Option<Temporary>,
    /// How soon the kernel ends it where memory runs out; `None`: as the launcher.
    pub oom_score_adj: Option<i16>,
    /// What `/etc/passwd` and `/etc/group` lack of its user.
    pub entries: Vec<Entry>,
    /// Whom it trusts besides, where its requests are judged.
    pub trust: Option<Trust>,
    /// It sees and signals the processes of the host.
    pub host_processes: bool,
    /// What has to be as it was reviewed.
    pub pinned: Option<Pinned>,
    /// What it gets below `/dev` besides the harmless devices; absolute paths.
    pub devices: Vec<PathBuf>,
}

/// The working directory of whoever asked for a connector.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cwd {
    /// Its path, as the caller has it.
    pub path: PathBuf,
    /// Device and inode of what the caller has there: the path must lead the connector to the same.
    pub is: (u64, u64),
}

impl Cwd {
    /// The root folder, whatever it is.
    pub fn root() -> Self {
        Self {
            path: PathBuf::from("/"),
            is: (0, 0),
        }
    }
}

/// What the launcher does about unix sockets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UnixSockets {
    /// Whether they can be made at all: not where the data plane cannot judge them. Pairs of
    /// connected ones always can.
    pub sockets: bool,
    /// Whether the agent is asked where they are made: elsewhere than in own folders it is refused,
    /// or would be.
    pub binds: bool,
    /// What Landlock does about them.
    pub landlock: Landlocked,
    /// Paths that rules permit, which the connector must not lead elsewhere.
    pub paths: Vec<PathBuf>,
}

/// What the launcher says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Said {
    /// Inside, without rights, the probe was refused. Waits for [`GO`].
    Ready {
        /// The process that becomes the connector, as the agent's `/proc` numbers it.
        pid: u32,
    },
    /// The system call filter is in place. The descriptor that answers for it comes with this
    /// line.
    Filtered,
    /// The connector was not started.
    Failed {
        /// Exit code for this failure: 125, 126 or 127.
        code: u8,
        /// What happened and what to do.
        message: String,
    },
}

/// The hidden subcommand under which the binary calls itself.
pub const LAUNCHER: &str = "__launch";

/// What stands for a descriptor that the launcher is not given.
pub const NONE: i32 = 0;

/// The hidden subcommand under which it calls itself to try the security modules.
pub const CANARY: &str = "__canary";

/// What the agent says after [`Said::Ready`].
pub const GO: &str = "go";

/// A line longer than this is not one of ours. `execve` itself takes 2 MiB by default.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// Writes one line.
pub fn say<T: Serialize>(to: &mut impl Write, what: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}

/// Reads lines of the other side.
pub struct Lines<R>(BufReader<R>);

impl<R: Read> Lines<R> {
    /// Reads from `source`.
    pub fn new(source: R) -> Self {
        Self(BufReader::new(source))
    }

    /// The next line; `None` when the other side is gone.
    pub fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        let read = (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the line is not whole",
            ));
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}
