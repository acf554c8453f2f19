//! One question to one server: over UDP, and over TCP where the answer does not fit.
//!
//! Each question has a socket, and with it a port, of its own, and a number of its own; the
//! kernel takes nothing from other addresses (RFC 5452 section 9). Plain DNS, as C libraries
//! speak it, unless `options edns0` asks for more.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name as WireName, RecordType},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::{Instant, sleep_until, timeout_at},
};

/// The payload that EDNS announces: fits one packet of the smallest IPv6 path.
const PAYLOAD: u16 = 1232;
/// Bytes of an answer's header. RFC 1035 section 4.1.1.
const HEADER: usize = 12;
/// Room for an answer over UDP. None that was asked for is longer; what some servers send all the
/// same is cut off there, and fetched over TCP.
const ROOM: usize = 4096;

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Question {
    /// A complete name.
    pub(super) name: WireName,
    /// For which records.
    pub(super) kind: RecordType,
}

/// How it is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// With EDNS, until the server shows that it does not speak it.
    pub(super) edns: bool,
    /// Over TCP alone.
    pub(super) tcp: bool,
    /// How often it is sent over UDP.
    pub(super) sends: u32,
    /// How long to wait before it is sent again.
    pub(super) resend: Duration,
    /// When to give up.
    pub(super) deadline: Instant,
}

/// An answer: NOERROR or NXDOMAIN.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) message: Message,
    /// The server does not speak EDNS.
    pub(super) plain: bool,
}

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerFault {
    /// Nothing listens there, or no way leads there.
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    /// Nothing came.
    #[error("no answer")]
    Silent,
    /// It says that it cannot.
    #[error("it answers “{0}”")]
    Said(ResponseCode),
    /// It does not know and names nobody who does.
    #[error("it does not resolve names for others")]
    Lame,
    /// The answer is none.
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
}

/// Asks until there is an answer, a fault, or no time left.
pub(super) async fn ask(
    server: SocketAddr,
    question: &Question,
    manner: &Manner,
) -> Result<Answer, ServerFault> {
    if manner.tcp {
        let message = over_tcp(server, question, manner.edns, manner.deadline).await?;
        return Ok(answer(message, false));
    }
    let any = match server.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut edns = manner.edns;
    let mut asked = Asked::new(question, edns)?;
    socket.send(&asked.bytes).await?;
    let mut sends = 1;
    let mut resend = Instant::now() + manner.resend;
    // EDNS may be what a server, or a box on the way, is silent to.
    let most = manner.sends.saturating_add(u32::from(edns));
    let mut buffer = vec![0; ROOM];
    loop {
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                let received = buffer.get(..received?).unwrap_or_default();
                let cut_off = received.len() == ROOM;
                match asked.read(received) {
                    Reading::Foreign => {}
                    Reading::Answer(message) => return Ok(answer(message, manner.edns && !edns)),
                    Reading::Truncated => {
                        let message = over_tcp(server, question, edns, manner.deadline).await?;
                        return Ok(answer(message, manner.edns && !edns));
                    }
                    Reading::Fault(ServerFault::Unreadable(_)) if cut_off => {
                        let message = over_tcp(server, question, edns, manner.deadline).await?;
                        return Ok(answer(message, manner.edns && !edns));
                    }
                    Reading::Fault(ServerFault::Said(
                        ResponseCode::FormErr | ResponseCode::NotImp,
                    )) if edns => {
                        edns = false;
                        asked = Asked::new(question, edns)?;
                        socket.send(&asked.bytes).await?;
                    }
                    Reading::Fault(fault) => return Err(fault),
                }
            }
            () = sleep_until(resend), if sends < most => {
                if edns {
                    edns = false;
                    asked = Asked::new(question, edns)?;
                }
                socket.send(&asked.bytes).await?;
                sends = sends.saturating_add(1);
                resend = Instant::now() + manner.resend;
            }
            () = sleep_until(manner.deadline) => return Err(ServerFault::Silent),
        }
    }
}

fn answer(message: Message, plain: bool) -> Answer {
    Answer { message, plain }
}

async fn over_tcp(
    server: SocketAddr,
    question: &Question,
    edns: bool,
    deadline: Instant,
) -> Result<Message, ServerFault> {
    let exchange = async {
        let asked = Asked::new(question, edns)?;
        let mut stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let length = u16::try_from(asked.bytes.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&asked.bytes);
        stream.write_all(&framed).await?;
        let mut bytes = Vec::new();
        loop {
            let length = stream.read_u16().await?;
            bytes.resize(usize::from(length), 0);
            stream.read_exact(&mut bytes).await?;
            match asked.read(&bytes) {
                Reading::Foreign => {}
                Reading::Answer(message) => return Ok(message),
                Reading::Truncated => {
                    return Err(ServerFault::Unreadable("it is cut short".to_owned()));
                }
                Reading::Fault(fault) => return Err(fault),
            }
        }
    };
    timeout_at(deadline, exchange)
        .await
        .map_err(|_| ServerFault::Silent)?
}

/// A question as it was sent.
struct Asked {
    bytes: Vec<u8>,
    /// How many of them are the question itself.
    question: usize,
}

enum Reading {
    /// Not about what was asked.
    Foreign,
    Answer(Message),
    Truncated,
    Fault(ServerFault),
}

impl Asked {
    fn new(question: &Question, edns: bool) -> Result<Self, ServerFault> {
        // With a random number.
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(question.name.clone(), question.kind));
        let unwritable = |error: hickory_proto::ProtoError| io::Error::other(error);
        let plain = message.to_vec().map_err(unwritable)?;
        let length = plain.len().saturating_sub(HEADER);
        let bytes = if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD);
            message.set_edns(edns);
            message.to_vec().map_err(unwritable)?
        } else {
            plain
        };
        Ok(Self {
            bytes,
            question: length,
        })
    }

    /// Whether it is an answer to this, and which. A question comes back as it was sent, but
    /// for the case of its letters (RFC 5452 section 9.1); servers that do not understand one
    /// may leave it out.
    fn read(&self, bytes: &[u8]) -> Reading {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Reading::Foreign;
        };
        let [id0, id1, flags, more, _, questions, answers @ ..] = header;
        let response = flags & 0x80 != 0 && flags & 0x78 == 0;
        if !response || !self.bytes.starts_with(&[*id0, *id1]) {
            return Reading::Foreign;
        }
        let code = ResponseCode::from_low(more & 0xf);
        let answered = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        let own = self.bytes.get(HEADER..).unwrap_or_default();
        let about = rest
            .get(..self.question)
            .zip(own.get(..self.question))
            .is_some_and(|(one, other)| one.eq_ignore_ascii_case(other));
        if !(about && *questions == 1 || !answered && *questions == 0) {
            return Reading::Foreign;
        }
        if !answered {
            return Reading::Fault(ServerFault::Said(code));
        }
        if flags & 0x02 != 0 {
            return Reading::Truncated;
        }
        // glibc calls such an answer a lame referral, and asks the next server
        // (`resolv/res_send.c`).
        let [high, low, _, _, more_high, more_low] = answers;
        let empty = [high, low, more_high, more_low]
            .iter()
            .all(|&&byte| byte == 0);
        let (authoritative, recursion) = (flags & 0x04 != 0, more & 0x80 != 0);
        if code == ResponseCode::NoError && empty && !authoritative && !recursion {
            return Reading::Fault(ServerFault::Lame);
        }
        match Message::from_vec(bytes) {
            Ok(message) => Reading::Answer(message),
            Err(error) => Reading::Fault(ServerFault::Unreadable(error.to_string())),
        }
    }
}
