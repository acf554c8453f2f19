//! The daemon's side of the socket: who may connect, how much is read of them, and for how long.
//!
//! Nobody is trusted with more than one request within a few seconds: a client that says nothing,
//! says it slowly or says too much is cut off, and however many there are, they hold a bounded
//! number of descriptors and bytes. Each user has a part of the places, so that one who fills them
//! keeps nobody else out.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    future::Future,
    io::{self, ErrorKind, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    rc::Rc,
    time::Duration,
};

use nix::{
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, chown},
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    task::spawn_local,
    time::{sleep, timeout},
};

use super::{
    peer::Peer,
    protocol::{Answer, EXEC_DESCRIPTORS, Garbage, Incoming, Request, message},
};

/// Connections that have not said yet what they want: of all users, and of one who is not root.
const WAITING: usize = 256;
const WAITING_EACH: usize = 32;
/// Connections of one user that are served. Each can have one connector.
const SERVED_EACH: usize = 512;
/// How long a request may take from its first to its last byte, and an answer likewise.
const WITHIN: Duration = Duration::from_secs(5);
/// What is read at once.
const PIECE: usize = 64 << 10;
/// How long nobody is taken after the system had no descriptor left.
const BREATHER: Duration = Duration::from_millis(100);

/// Why a connection cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The other side is gone.
    #[error("the connection was closed")]
    Gone,
    /// It takes too long.
    #[error("it took longer than {} s", WITHIN.as_secs())]
    Slow,
    /// It says what nobody understands.
    #[error(transparent)]
    Garbage(#[from] Garbage),
    /// More descriptors than any request has.
    #[error("too many descriptors came with it")]
    Descriptors,
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The socket on which the daemon is reached.
pub struct Server(UnixListener);

/// One connection.
pub struct Connection {
    stream: UnixStream,
    incoming: Incoming,
    descriptors: Vec<OwnedFd>,
}

/// A request, and everything around it.
pub struct Call {
    /// Who asks.
    pub peer: Peer,
    /// What is asked.
    pub request: Request,
    /// Descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
    /// Where answers go.
    pub connection: Connection,
}

impl Server {
    /// Makes the socket, in a folder that only root can write to. Its group and mode are set
    /// before anybody can connect. Must be called inside a tokio runtime.
    pub fn bind(path: &Path, group: Option<u32>, mode: u32) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let made = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let before = umask(Mode::from_bits_truncate(0o777));
        let bound = UnixAddr::new(path)
            .and_then(|address| bind(std::os::fd::AsRawFd::as_raw_fd(&made), &address));
        umask(before);
        bound?;
        chown(path, Some(Uid::from_raw(0)), group.map(Gid::from_raw))?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        // From here on it takes connections.
        listen(&made, Backlog::new(1024)?)?;
        Ok(Self(UnixListener::from_std(made.into())?))
    }

    /// Serves connections, each in a task of its own, for ever. To be called inside a
    /// `LocalSet`.
    pub async fn serve<F: Future<Output = ()> + 'static>(
        self,
        handle: impl Fn(Call) -> F + Clone + 'static,
    ) {
        let places = Rc::new(RefCell::new(Places::default()));
        loop {
            let Ok((stream, _)) = self.0.accept().await else {
                // The system is out of descriptors, or the client is gone already.
                sleep(BREATHER).await;
                continue;
            };
            let Ok(peer) = Peer::of(stream.as_fd()) else {
                continue;
            };
            let Some(place) = Place::take(&places, peer.uid) else {
                continue;
            };
            let handle = handle.clone();
            spawn_local(async move { serve(stream, peer, place, handle).await });
        }
    }
}

async fn serve<F: Future<Output = ()>>(
    stream: UnixStream,
    peer: Peer,
    mut place: Place,
    handle: impl Fn(Call) -> F,
) {
    let mut connection = Connection::new(stream);
    match timeout(WITHIN, connection.hear()).await {
        Ok(Ok(request)) => {
            if !place.served() {
                connection
                    .tell_off("you have too many connections to the daemon")
                    .await;
                return;
            }
            let descriptors = std::mem::take(&mut connection.descriptors);
            handle(Call {
                peer,
                request,
                descriptors,
                connection,
            })
            .await;
        }
        Ok(Err(Broken::Gone)) | Err(_) => {}
        Ok(Err(broken)) => connection.tell_off(&broken.to_string()).await,
    }
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            incoming: Incoming::default(),
            descriptors: Vec::new(),
        }
    }

    /// The next request. Safe to cancel.
    pub async fn hear(&mut self) -> Result<Request, Broken> {
        loop {
            if let Some(request) = self.incoming.take()? {
                return Ok(request);
            }
            self.receive().await?;
        }
    }

    /// Answers. A client that does not read is given up.
    pub async fn say(&mut self, answer: &Answer) -> Result<(), Broken> {
        let bytes = message(answer)?;
        let written = timeout(WITHIN, self.stream.write_all(&bytes)).await;
        Ok(written.map_err(|_| Broken::Slow)??)
    }

    /// Answers, with a descriptor.
    pub async fn say_with(&mut self, answer: &Answer, fd: BorrowedFd<'_>) -> Result<(), Broken> {
        let bytes = message(answer)?;
        let sent = self.stream.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut attached = SendAncillaryBuffer::new(&mut space);
            let all = [fd];
            if !attached.push(SendAncillaryMessage::ScmRights(&all)) {
                return Err(io::Error::other("no room for a descriptor"));
            }
            let flags = SendFlags::NOSIGNAL;
            Ok(sendmsg(
                &self.stream,
                &[IoSlice::new(&bytes)],
                &mut attached,
                flags,
            )?)
        });
        let sent = timeout(WITHIN, sent).await.map_err(|_| Broken::Slow)??;
        let rest = bytes.get(sent..).unwrap_or_default();
        let written = timeout(WITHIN, self.stream.write_all(rest)).await;
        Ok(written.map_err(|_| Broken::Slow)??)
    }

    async fn tell_off(&mut self, why: &str) {
        // Who sends garbage may not read either.
        let _nobody_reads = self.say(&Answer::failed(125, why)).await;
    }

    async fn receive(&mut self) -> Result<(), Broken> {
        let Self {
            stream,
            incoming,
            descriptors,
        } = self;
        let mut odd = false;
        let length = stream
            .async_io(Interest::READABLE, || {
                let mut piece = vec![0; PIECE];
                let mut space =
                    [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(EXEC_DESCRIPTORS))];
                let mut attached = RecvAncillaryBuffer::new(&mut space);
                let flags = RecvFlags::CMSG_CLOEXEC;
                let mut into = [IoSliceMut::new(&mut piece)];
                let received = recvmsg(&*stream, &mut into, &mut attached, flags)?;
                // What found no room the kernel has closed.
                odd |= received.flags.contains(ReturnFlags::CTRUNC);
                for message in attached.drain() {
                    if let RecvAncillaryMessage::ScmRights(some) = message {
                        descriptors.extend(some);
                    }
                }
                incoming.push(piece.get(..received.bytes).unwrap_or_default());
                Ok(received.bytes)
            })
            .await;
        match length {
            Ok(0) => Err(Broken::Gone),
            Ok(_) if odd || descriptors.len() > EXEC_DESCRIPTORS => {
                descriptors.clear();
                Err(Broken::Descriptors)
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(Broken::Gone),
            Err(error) => Err(error.into()),
        }
    }
}

/// Connections by user: those that wait, those that are served.
#[derive(Default)]
struct Places {
    waiting: usize,
    by_user: HashMap<u32, (usize, usize)>,
}

/// One connection's place, given back when it is dropped.
struct Place {
    places: Rc<RefCell<Places>>,
    uid: u32,
    served: bool,
}

impl Place {
    /// `None`: there is none.
    fn take(places: &Rc<RefCell<Places>>, uid: u32) -> Option<Self> {
        let mut all = places.borrow_mut();
        let (waiting, _) = all.by_user.get(&uid).copied().unwrap_or_default();
        // Root's are not counted among those of all: an operator always gets through.
        if uid != 0 && (all.waiting >= WAITING || waiting >= WAITING_EACH) {
            return None;
        }
        all.waiting = all.waiting.saturating_add(usize::from(uid != 0));
        let user = all.by_user.entry(uid).or_default();
        user.0 = user.0.saturating_add(1);
        Some(Self {
            places: Rc::clone(places),
            uid,
            served: false,
        })
    }

    /// From here on it is served; `false`: the user has too many of those.
    fn served(&mut self) -> bool {
        let mut all = self.places.borrow_mut();
        let waiting = all.waiting.saturating_sub(usize::from(self.uid != 0));
        let user = all.by_user.entry(self.uid).or_default();
        if self.uid != 0 && user.1 >= SERVED_EACH {
            return false;
        }
        *user = (user.0.saturating_sub(1), user.1.saturating_add(1));
        all.waiting = waiting;
        self.served = true;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.places.borrow_mut();
        let user = all.by_user.entry(self.uid).or_default();
        if self.served {
            user.1 = user.1.saturating_sub(1);
        } else {
            user.0 = user.0.saturating_sub(1);
        }
        if *user == (0, 0) {
            all.by_user.remove(&self.uid);
        }
        if !self.served && self.uid != 0 {
            all.waiting = all.waiting.saturating_sub(1);
        }
    }
}
