//! The other side of the socket: what `exec`, `ps` and their like say to the daemon.

use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::protocol::{Answer, EXEC_DESCRIPTORS, Garbage, Incoming, Request, message};

/// Where the daemon is reached, unless somebody says otherwise.
pub const SOCKET: &str = "/run/egress-agent/control.sock";
/// What is read at once.
const PIECE: usize = 64 << 10;

/// Why nothing is to be had of the daemon.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "no daemon listens at {path}; start it with `sudo systemctl start egress-agent` or `sudo egress-agent daemon`"
    )]
    Nobody {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The socket is not for this user.
    #[error(
        "you may not connect to the daemon at {path}; its `socket.mode` and `socket.group` say who may (agent.yaml)"
    )]
    NotPermitted {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The request is too long.
    #[error(
        "the request does not fit into a message ({0}): the environment, or the arguments, are too long"
    )]
    Long(#[source] Garbage),
    /// The daemon says what nobody understands.
    #[error("the daemon says what this version does not understand: {0}")]
    Garbage(#[from] Garbage),
    /// The daemon has closed the connection.
    #[error("the daemon closed the connection; `egress-agent status` says more")]
    Gone,
    /// The system refused.
    #[error("cannot speak to the daemon: {0}")]
    Io(#[from] io::Error),
}

/// A connection to the daemon.
pub struct Client {
    stream: UnixStream,
    incoming: Incoming,
    /// The last descriptor that came.
    descriptor: Option<OwnedFd>,
}

impl Client {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => ClientError::Nobody {
                path: path.to_owned(),
            },
            ErrorKind::PermissionDenied => ClientError::NotPermitted {
                path: path.to_owned(),
            },
            _ => error.into(),
        })?;
        Ok(Self {
            stream,
            incoming: Incoming::default(),
            descriptor: None,
        })
    }

    /// Asks, with descriptors where there are some.
    pub fn ask(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let bytes = message(request).map_err(ClientError::Long)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(EXEC_DESCRIPTORS))];
        let mut attached = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !attached.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors").into());
        }
        let flags = SendFlags::NOSIGNAL;
        let sent = sendmsg(&self.stream, &[IoSlice::new(&bytes)], &mut attached, flags)
            .map_err(io::Error::from)?;
        Ok(self
            .stream
            .write_all(bytes.get(sent..).unwrap_or_default())?)
    }

    /// The next answer.
    pub fn hear(&mut self) -> Result<Answer, ClientError> {
        loop {
            if let Some(answer) = self.incoming.take()? {
                return Ok(answer);
            }
            if self.receive()? == 0 {
                return Err(ClientError::Gone);
            }
        }
    }

    /// The descriptor that came with the last answer.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Another handle of the connection, to say something while somebody else listens.
    pub fn another(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut piece = vec![0; PIECE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut attached = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut piece)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(self.stream.as_fd(), &mut into, &mut attached, flags) {
            Err(rustix::io::Errno::INTR) => return self.receive(),
            Err(rustix::io::Errno::CONNRESET) => return Ok(0),
            received => received?,
        };
        for message in attached.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                self.descriptor = some.last();
            }
        }
        let length = received.bytes;
        self.incoming.push(piece.get(..length).unwrap_or_default());
        Ok(length)
    }
}
