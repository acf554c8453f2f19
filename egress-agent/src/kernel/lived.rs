//! Where an instance lived, written on its cgroup: for whoever ends it when its agent is dead.

use std::io;

use nix::errno::Errno;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::instance::{InstanceError, io_error};
use crate::host::{Cgroup, netns::NetNs};

/// Only CAP_SYS_ADMIN reads and writes such names (xattr(7)).
const NAME: &str = "trusted.egress-agent.lived";
/// Room for seven numbers.
const ROOM: usize = 256;

/// The network namespace of an instance and the ids of its cgroups. Those are needed where the
/// cgroups are gone and sockets are not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lived {
    namespace: NetNs,
    cgroups: Vec<u64>,
}

impl Lived {
    /// In this thread's network namespace.
    pub(super) fn here<const N: usize>(cgroups: [&Cgroup; N]) -> Result<Self, InstanceError> {
        let ids = cgroups.iter().map(|cgroup| cgroup.id());
        Ok(Self {
            namespace: own()?,
            cgroups: ids.collect::<Result<_, _>>()?,
        })
    }

    /// What is written on a cgroup; `None`: nothing, as agents before this one left it.
    pub(super) fn of(cgroup: &Cgroup) -> Result<Option<Self>, InstanceError> {
        let mut bytes = [0; ROOM];
        let failed =
            |source| io_error(format!("cannot read where {} lived", shown(cgroup)), source);
        let length = match getxattr(cgroup.path(), NAME, &mut bytes[..]) {
            Ok(length) => length,
            Err(error) if is_absent(error.raw_os_error()) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let text = bytes.get(..length).map(String::from_utf8_lossy);
        parse(&text.unwrap_or_default()).map(Some).map_err(failed)
    }

    /// Writes it on a cgroup.
    pub(super) fn record(&self, cgroup: &Cgroup) -> Result<(), InstanceError> {
        let text = self.to_string();
        setxattr(cgroup.path(), NAME, text.as_bytes(), XattrFlags::empty()).map_err(|error| {
            io_error(
                format!("cannot write on {} where it lives", shown(cgroup)),
                error.into(),
            )
        })
    }

    /// Whether this thread is certainly in its network namespace.
    pub(super) fn is_here(&self) -> Result<bool, InstanceError> {
        Ok(self.namespace.is(&own()?))
    }

    /// Its network namespace.
    pub(super) fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// Ids of its cgroups.
    pub(super) fn cgroups(&self) -> impl Iterator<Item = u64> {
        self.cgroups.iter().copied()
    }
}

/// The namespace, a colon, and the ids with blanks between.
impl std::fmt::Display for Lived {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<String> = self.cgroups.iter().map(u64::to_string).collect();
        write!(f, "{}:{}", self.namespace, ids.join(" "))
    }
}

fn parse(text: &str) -> io::Result<Lived> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is not ours"));
    let (namespace, ids) = text.split_once(':').ok_or_else(odd)?;
    let ids = ids.split_whitespace().map(str::parse);
    Ok(Lived {
        namespace: namespace.parse()?,
        cgroups: ids.collect::<Result<_, _>>().map_err(|_| odd())?,
    })
}

fn own() -> Result<NetNs, InstanceError> {
    NetNs::own().map_err(|source| {
        io_error(
            "cannot tell which network namespace this is".to_owned(),
            source,
        )
    })
}

/// Never written, written on a cgroup that is gone, or a kernel without such names.
fn is_absent(error: i32) -> bool {
    let error = Errno::from_raw(error);
    matches!(error, Errno::ENODATA | Errno::ENOENT | Errno::EOPNOTSUPP)
}

fn shown(cgroup: &Cgroup) -> String {
    cgroup.path().display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() -> Result<(), InstanceError> {
        let lived = Lived {
            namespace: own()?,
            cgroups: vec![1, u64::MAX, 7],
        };
        assert_eq!(parse(&lived.to_string()).ok(), Some(lived));
        for text in ["", "1 2", "1 2:x", "x:1", "1 2:3:4"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        Ok(())
    }
}
