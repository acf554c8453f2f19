//! Standard input, output and error on their way into the boundary.
//!
//! Files, pipes and terminals are handed over as they are: they carry bytes alone. Anything else
//! is not. Over a unix socket its other end can pass the connector a socket made outside, which
//! no hook of the data plane ever sees; an IP socket made outside can be dissolved and connected
//! elsewhere; a folder leads to what is in it. MCP clients written for node give their servers
//! unix sockets. So the connector gets a pipe, and a thread of the agent carries the bytes:
//! what was attached to them (`SCM_RIGHTS`, unix(7)) is gone with `read`.
//!
//! Where somebody reads along ([`Tap`]), input and output are always carried so. Not a byte is
//! changed, and none is held back but for the moment in which it is read.

use std::{
    fs::{File, Metadata},
    io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    libc::makedev,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{Uid, fchown, pipe2},
};
use tokio::{sync::oneshot, time::timeout};

use crate::host::switch::{self, Part};

/// As much as a pipe holds.
const BUFFER: usize = 64 * 1024;
/// A thread of the relay needs no more: its buffer is elsewhere.
const STACK: usize = 64 * 1024;
/// How long a client that reads nothing holds up the end of a run.
const PATIENCE: Duration = Duration::from_secs(5);
/// Null, zero, full, random, urandom (`Documentation/admin-guide/devices.txt`).
const HARMLESS: [u32; 5] = [3, 5, 7, 8, 9];
const MEMORY: u32 = 1;

/// What the launcher gets, and what is to be carried.
pub struct Standard {
    /// Input, output, error.
    pub given: [OwnedFd; 3],
    /// Not running yet.
    pub relay: Relay,
}

/// The ways that carry bytes between the connector's pipes and what the agent was given.
#[derive(Default)]
pub struct Relay(Vec<Lane>);

/// Who reads along: each piece is given to it before it is passed on.
pub struct Tap {
    /// What goes to the connector.
    pub client: Reader,
    /// What comes from it.
    pub server: Reader,
}

/// Reads one direction, piece by piece.
pub type Reader = Box<dyn FnMut(&[u8]) + Send>;

struct Lane {
    from: File,
    to: File,
    reader: Option<Reader>,
    outward: bool,
}

/// A relay at work.
#[derive(Default)]
pub struct Relaying {
    outward: Vec<oneshot::Receiver<()>>,
    carried: Arc<AtomicU64>,
}

/// Looks at the agent's own standard descriptors. The pipes belong to `uid`, so that programs can
/// open them by name (`/dev/stderr`).
pub fn standard(uid: u32, tap: Option<Tap>) -> io::Result<Standard> {
    let own = [
        io::stdin().as_fd().try_clone_to_owned()?,
        io::stdout().as_fd().try_clone_to_owned()?,
        io::stderr().as_fd().try_clone_to_owned()?,
    ];
    let [input, output, error] = own.map(File::from);
    let mut lanes = Vec::new();
    let tapped = tap.is_some();
    let (client, mut server) = match tap {
        Some(tap) => (Some(tap.client), Some(tap.server)),
        None => (None, None),
    };
    let given_in = if !tapped && carries_bytes_alone(&input)? {
        OwnedFd::from(input)
    } else {
        let (reader, writer) = pipe(uid)?;
        lanes.push(Lane {
            from: input,
            to: writer.into(),
            reader: client,
            outward: false,
        });
        reader
    };
    let (out_is, error_is) = (identity(&output)?, identity(&error)?);
    let mut outward = |file: File, along: Option<Reader>| -> io::Result<(OwnedFd, bool)> {
        if along.is_none() && carries_bytes_alone(&file)? {
            return Ok((file.into(), false));
        }
        let (reader, writer) = pipe(uid)?;
        lanes.push(Lane {
            from: reader.into(),
            to: file,
            reader: along,
            outward: true,
        });
        Ok((writer, true))
    };
    let given_out = outward(output, server.take())?;
    let given_error = match &given_out {
        // One way for both, or their lines would change places.
        (writer, true) if out_is == error_is => writer.try_clone()?,
        _ => outward(error, None)?.0,
    };
    Ok(Standard {
        given: [given_in, given_out.0, given_error],
        relay: Relay(lanes),
    })
}

/// Looks at descriptors that somebody else has sent. What does not carry bytes alone is refused: who
/// sends it has to carry the bytes, and not this process, which may end before the connector.
pub fn foreign(given: [OwnedFd; 3]) -> io::Result<Standard> {
    for fd in &given {
        if !carries_bytes_alone(&File::from(fd.try_clone()?))? {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "only files, pipes and terminals are handed over",
            ));
        }
    }
    Ok(Standard {
        given,
        relay: Relay::default(),
    })
}

impl Relay {
    /// Starts one thread a way. A read that waits for the client ends with the agent.
    pub fn start(self) -> io::Result<Relaying> {
        let mut relaying = Relaying::default();
        for lane in self.0 {
            let (done, ended) = oneshot::channel();
            let carried = Arc::clone(&relaying.carried);
            if lane.outward {
                relaying.outward.push(ended);
            }
            thread::Builder::new()
                .name("stdio".to_owned())
                .stack_size(STACK)
                .spawn(move || {
                    // Either side is gone; the other one is told by the end of this one.
                    let _ended = carry(lane.from, lane.to, lane.reader, &carried);
                    drop(done);
                })?;
        }
        Ok(relaying)
    }
}

impl Relaying {
    /// Waits until the client has what the connector wrote. Every process of the connector must
    /// be gone. A client that takes nothing for five seconds goes without the rest.
    pub async fn finish(self) {
        for mut ended in self.outward {
            loop {
                let before = self.carried.load(Ordering::Relaxed);
                let waited = timeout(PATIENCE, &mut ended).await;
                if waited.is_ok() || self.carried.load(Ordering::Relaxed) == before {
                    break;
                }
            }
        }
    }
}

fn carry(
    mut from: File,
    mut to: File,
    mut reader: Option<Reader>,
    carried: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) => {
                wait_after(&error, &from, PollFlags::POLLIN)?;
                continue;
            }
        };
        let mut rest = buffer.get(..length).unwrap_or_default();
        if let Some(read) = &mut reader {
            read(rest);
        }
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    carried.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => wait_after(&error, &to, PollFlags::POLLOUT)?,
            }
        }
    }
}

/// The client may have left its end of a socket non-blocking.
fn wait_after(error: &io::Error, file: &File, event: PollFlags) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock => {
            poll(&mut [PollFd::new(file.as_fd(), event)], PollTimeout::NONE)?;
            Ok(())
        }
        kind => Err(kind.into()),
    }
}

fn carries_bytes_alone(file: &File) -> io::Result<bool> {
    if switch::is_off(Part::Stdio) {
        return Ok(true);
    }
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    Ok(kind.is_file()
        || kind.is_fifo()
        || kind.is_char_device() && (file.is_terminal() || is_harmless(&metadata)))
}

fn is_harmless(device: &Metadata) -> bool {
    let known = HARMLESS.map(|minor| makedev(MEMORY, minor));
    known.contains(&device.rdev())
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn pipe(uid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    // Both ends are one inode.
    fchown(&writer, Some(Uid::from_raw(uid)), None)?;
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{fd::OwnedFd, unix::net::UnixStream},
    };

    use super::*;

    #[test]
    fn sockets_and_folders_are_not_handed_over() -> io::Result<()> {
        let (socket, _other) = UnixStream::pair()?;
        let (reader, _writer) = pipe2(OFlag::O_CLOEXEC)?;
        for (fd, expected) in [
            (OwnedFd::from(socket), false),
            (File::open("/")?.into(), false),
            (reader, true),
            (File::open("/dev/null")?.into(), true),
            (File::open("/proc/self/exe")?.into(), true),
        ] {
            assert_eq!(carries_bytes_alone(&File::from(fd))?, expected);
        }
        Ok(())
    }
}
