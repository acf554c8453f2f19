//! Moving bytes between the two sides of a conversation in HTTP/1.1.

use std::{future::pending, io, time::Duration};

use egress_envelope::judge::Refusal;
use tokio::{
    io::{
        AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadHalf,
        WriteHalf, copy, sink, split,
    },
    net::TcpStream,
    time::timeout,
};

use super::{
    answer::{self, Answer, Chunks, Ends, Piece},
    buffer::Buffer,
    incoming::Stop,
};

/// What a program may send ahead of its turn. Bytes.
const AHEAD: usize = 64 * 1024;
/// What is read and thrown away of a program that was refused, so that it sees why. Bytes.
const DRAINED: u64 = 1 << 20;
/// How long that may take.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// What is taken from a socket at once: TLS by itself asks for 4 KiB at a time. Bytes.
const TAKEN: usize = 32 * 1024;

/// A connection below TLS.
pub(super) type Tcp = BufReader<TcpStream>;

/// The same, with fewer system calls.
pub(super) fn buffered(stream: TcpStream) -> Tcp {
    BufReader::with_capacity(TAKEN, stream)
}

/// One side of a conversation.
pub(super) struct Side<S> {
    pub(super) reader: ReadHalf<S>,
    pub(super) writer: WriteHalf<S>,
    pub(super) input: Buffer,
}

/// What broke, and with that the exchange.
#[derive(Debug)]
pub(super) enum Broken {
    /// The program's side.
    Client,
    /// The server's side.
    Server(io::Error),
    /// The server's answer is no HTTP.
    Garbled(&'static str),
    /// The request's body is no proper one.
    Refused(Refusal),
}

impl From<Stop> for Broken {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Gone => Self::Client,
            Stop::Refused(refusal) => Self::Refused(refusal),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Side<S> {
    pub(super) fn new(stream: S) -> Self {
        let (reader, writer) = split(stream);
        Self {
            reader,
            writer,
            input: Buffer::default(),
        }
    }

    /// Reads more. Answers how much; 0: the other side has ended. Safe to cancel.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        self.input.fill(&mut self.reader).await
    }

    /// The connection again. What was read and not used is gone.
    pub(super) fn whole(self) -> S {
        self.reader.unsplit(self.writer)
    }

    /// Says goodbye, and takes what still comes, so that the last words are read before the
    /// connection is reset for what nobody took.
    pub(super) async fn part(mut self) {
        if self.writer.shutdown().await.is_ok() {
            let (mut rest, mut nowhere) = ((&mut self.reader).take(DRAINED), sink());
            let gone = copy(&mut rest, &mut nowhere);
            let _ends_anyway = timeout(DRAIN_WITHIN, gone).await;
        }
    }
}

/// Writes and does not wait for more.
pub(super) async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Watches a program that waits for its answer. Never ends but where its connection is broken.
pub(super) async fn watch(
    reader: &mut (impl AsyncRead + Unpin),
    input: &mut Buffer,
) -> Result<std::convert::Infallible, Broken> {
    while input.left().len() < AHEAD {
        match input.fill(reader).await {
            // It says that it will say no more, and may well listen.
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return Err(Broken::Client),
        }
    }
    pending().await
}

/// Reads the head of the final answer; those before it (RFC 9110 section 15.2) are written on.
/// `interim`: the program knows such answers.
pub(super) async fn final_head<S: AsyncRead + AsyncWrite + Unpin>(
    reader: &mut ReadHalf<S>,
    input: &mut Buffer,
    client: &mut (impl AsyncWrite + Unpin),
    interim: bool,
) -> Result<Answer, Broken> {
    loop {
        match answer::head(input.left()).map_err(Broken::Garbled)? {
            Some((head, used)) => {
                input.take(used);
                match head.status {
                    // Ours to say (RFC 9110 section 10.1.1).
                    100 => {}
                    101 => return Err(Broken::Garbled("it changes to a protocol unasked")),
                    102..=199 if interim => {
                        let mut out = Vec::new();
                        head.write(Ends::Here, false, &mut out);
                        send(client, &out).await.map_err(|_| Broken::Client)?;
                    }
                    102..=199 => {}
                    _ => return Ok(head),
                }
            }
            None => more(reader, input).await?,
        }
    }
}

/// Moves a body to the program, behind `out`, which is its head. `ends`: where it ends at the
/// server; `chunked`: it is written in chunks. Answers whether it came to its proper end, which
/// without a length nobody knows.
pub(super) async fn download<S: AsyncRead + AsyncWrite + Unpin>(
    reader: &mut ReadHalf<S>,
    input: &mut Buffer,
    client: &mut (impl AsyncWrite + Unpin),
    mut out: Vec<u8>,
    ends: Ends,
    chunked: bool,
) -> Result<bool, Broken> {
    match ends {
        Ends::Here => {
            sent(client, &mut out).await?;
            Ok(true)
        }
        Ends::After(mut left) => {
            while left > 0 {
                if input.left().is_empty() {
                    sent(client, &mut out).await?;
                    more(reader, input).await?;
                }
                let there = input.left();
                let len = there.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let piece = there.get(..len).unwrap_or(there);
                if out.is_empty() {
                    send(client, piece).await.map_err(|_| Broken::Client)?;
                } else {
                    out.extend(piece);
                    sent(client, &mut out).await?;
                }
                left = left.saturating_sub(u64::try_from(len).unwrap_or(u64::MAX));
                input.take(len);
            }
            sent(client, &mut out).await?;
            Ok(true)
        }
        Ends::Chunked => {
            let mut chunks = Chunks::default();
            loop {
                match chunks.next(input.left()).map_err(Broken::Garbled)? {
                    Piece::More => {
                        sent(client, &mut out).await?;
                        more(reader, input).await?;
                    }
                    Piece::Skip(used) => input.take(used),
                    Piece::Data(len) => {
                        let piece = input.left().get(..len).unwrap_or_default();
                        framed(piece, chunked, &mut out);
                        input.take(len);
                    }
                    Piece::End(used, trailers) => {
                        input.take(used);
                        if chunked {
                            out.extend(b"0\r\n");
                            out.extend(trailers);
                            out.extend(b"\r\n");
                        }
                        sent(client, &mut out).await?;
                        return Ok(true);
                    }
                }
            }
        }
        Ends::Close => loop {
            out.extend(input.left());
            sent(client, &mut out).await?;
            input.take(input.left().len());
            match input.fill(reader).await {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                // Without TLS' own goodbye it may have been cut (RFC 8446 section 6.1).
                Err(_) => return Ok(false),
            }
        },
    }
}

/// Sends what has gathered, if anything has.
async fn sent(client: &mut (impl AsyncWrite + Unpin), out: &mut Vec<u8>) -> Result<(), Broken> {
    if !out.is_empty() {
        send(client, out).await.map_err(|_| Broken::Client)?;
        out.clear();
    }
    Ok(())
}

/// Writes a piece, in a chunk of its own where that is wanted.
pub(super) async fn chunk(
    to: &mut (impl AsyncWrite + Unpin),
    piece: &[u8],
    chunked: bool,
) -> io::Result<()> {
    if chunked {
        let mut out = Vec::with_capacity(piece.len().saturating_add(16));
        framed(piece, chunked, &mut out);
        send(to, &out).await
    } else {
        send(to, piece).await
    }
}

/// A piece, in a chunk of its own where that is wanted.
fn framed(piece: &[u8], chunked: bool, out: &mut Vec<u8>) {
    if chunked {
        out.extend(format!("{:x}\r\n", piece.len()).as_bytes());
    }
    out.extend(piece);
    if chunked {
        out.extend(b"\r\n");
    }
}

/// Reads more of an answer that is not over.
async fn more<S: AsyncRead + AsyncWrite + Unpin>(
    reader: &mut ReadHalf<S>,
    input: &mut Buffer,
) -> Result<(), Broken> {
    match input.fill(reader).await {
        Ok(0) => Err(Broken::Server(io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => Ok(()),
        Err(error) => Err(Broken::Server(error)),
    }
}
