//! From bytes in pieces of any size to whole JSON-RPC messages.
//!
//! A message is a line, or stands behind a `Content-Length` header: what begins with a `C` is a
//! header, since no JSON does.

use std::{borrow::Cow, io::BufRead as _};

/// Bytes of one message that is read. A longer one passes, and what it names is not known.
pub const MAX_MESSAGE: usize = 16 << 20;
/// Bytes of the headers before one message.
const MAX_HEADERS: usize = 8 << 10;

/// Why a message was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unread {
    /// More than [`MAX_MESSAGE`] bytes.
    #[error("a message of the client's is longer than {} MiB", MAX_MESSAGE >> 20)]
    TooLong,
    /// No JSON-RPC.
    #[error("a message of the client's is not JSON-RPC 2.0")]
    NoMessage,
    /// Headers without a usable `Content-Length`.
    #[error("a message of the client's has headers without a usable Content-Length")]
    Headers,
}

/// Bytes on their way to messages.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// The beginning of the message at hand, where it did not come in one piece.
    begun: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    /// Between messages.
    #[default]
    Between,
    /// In a message that ends with its line.
    Line,
    /// In headers, which end with an empty line.
    Headers,
    /// In a message that has so many bytes left.
    Body(usize),
    /// In one that is too long, to the end of its line.
    SkipLine,
    /// In one that is too long and has so many bytes left.
    SkipBody(usize),
}

/// A message without what is around it.
pub(crate) type Message<'a> = Result<&'a [u8], Unread>;

impl Messages {
    /// Takes the next bytes; answers every message that ends in them.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], message: &mut impl FnMut(Message<'_>)) {
        while !bytes.is_empty() {
            bytes = self.step(bytes, message);
        }
    }

    /// Whether a message whose length was said is not whole yet.
    pub(crate) fn in_body(&self) -> bool {
        matches!(self.state, State::Body(_) | State::SkipBody(_))
    }

    /// Takes the next part of the bytes, at least one, and returns the rest.
    fn step<'a>(&mut self, bytes: &'a [u8], message: &mut impl FnMut(Message<'_>)) -> &'a [u8] {
        match self.state {
            State::Between => {
                let rest = between(bytes);
                match rest.first() {
                    None => {}
                    Some(b'c' | b'C') => self.state = State::Headers,
                    Some(_) => self.state = State::Line,
                }
                rest
            }
            State::Line => {
                let (line, rest, ended) = line(bytes);
                if self.begun.len().saturating_add(line.len()) > MAX_MESSAGE {
                    self.begun = Vec::new();
                    message(Err(Unread::TooLong));
                    self.state = if ended {
                        State::Between
                    } else {
                        State::SkipLine
                    };
                } else if ended {
                    self.whole(line, message);
                } else {
                    self.begun.extend_from_slice(line);
                }
                rest
            }
            State::Headers => {
                let (line, rest, ended) = line(bytes);
                self.begun.extend_from_slice(line);
                if self.begun.len() > MAX_HEADERS {
                    self.begun = Vec::new();
                    message(Err(Unread::Headers));
                    self.state = if ended {
                        State::Between
                    } else {
                        State::SkipLine
                    };
                } else if ended {
                    self.header_line(message);
                }
                rest
            }
            State::Body(left) => {
                let (part, rest) = bytes.split_at(left.min(bytes.len()));
                if part.len() == left {
                    self.whole(part, message);
                } else {
                    self.begun.extend_from_slice(part);
                    self.state = State::Body(left.saturating_sub(part.len()));
                }
                rest
            }
            State::SkipLine => {
                let (_, rest, ended) = line(bytes);
                if ended {
                    self.state = State::Between;
                }
                rest
            }
            State::SkipBody(left) => {
                let (part, rest) = bytes.split_at(left.min(bytes.len()));
                self.state = match left.saturating_sub(part.len()) {
                    0 => State::Between,
                    left => State::SkipBody(left),
                };
                rest
            }
        }
    }

    /// The end of a message.
    fn whole(&mut self, end: &[u8], message: &mut impl FnMut(Message<'_>)) {
        self.state = State::Between;
        let bytes = if self.begun.is_empty() {
            Cow::Borrowed(end)
        } else {
            self.begun.extend_from_slice(end);
            Cow::Owned(std::mem::take(&mut self.begun))
        };
        message(Ok(bytes.trim_ascii()));
    }

    /// The end of a line of headers: the headers end with it where it is empty.
    fn header_line(&mut self, message: &mut impl FnMut(Message<'_>)) {
        let lines = self.begun.strip_suffix(b"\n").unwrap_or(&self.begun);
        let last = lines
            .rsplit(|&byte| byte == b'\n')
            .next()
            .unwrap_or_default();
        let last = last.trim_ascii().to_vec();
        if is_header(&last) {
            return;
        }
        let begun = std::mem::take(&mut self.begun);
        self.state = State::Between;
        if !last.is_empty() {
            // Something else that begins like a header, and ends here.
            message(Err(Unread::Headers));
            if matches!(last.first(), Some(b'{' | b'[')) {
                message(Ok(&last));
            }
            return;
        }
        match length(&begun) {
            None => message(Err(Unread::Headers)),
            Some(0) => {}
            Some(length) if length > MAX_MESSAGE => {
                message(Err(Unread::TooLong));
                self.state = State::SkipBody(length);
            }
            Some(length) => self.state = State::Body(length),
        }
    }
}

/// Whether a line can be a header of a message: `Content-Length` or `Content-Type`.
fn is_header(line: &[u8]) -> bool {
    const FIRST: &[u8] = b"content-";
    let first = line.get(..FIRST.len());
    first.is_some_and(|first| first.eq_ignore_ascii_case(FIRST)) && line.contains(&b':')
}

/// What follows blanks, line ends and a byte order mark.
fn between(bytes: &[u8]) -> &[u8] {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    let mut rest = bytes.trim_ascii_start();
    while let Some(behind) = rest.strip_prefix(MARK) {
        rest = behind.trim_ascii_start();
    }
    rest
}

/// The bytes to the end of the line, with it; those behind; whether the line has ended.
fn line(bytes: &[u8]) -> (&[u8], &[u8], bool) {
    let mut rest = bytes;
    // A slice is read without fail; its search is several bytes at a time.
    let taken = rest.skip_until(b'\n').unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(taken.min(bytes.len()));
    (line, rest, line.ends_with(b"\n"))
}

/// The one length that headers say.
fn length(headers: &[u8]) -> Option<usize> {
    let headers = std::str::from_utf8(headers).ok()?;
    let mut lengths = headers.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case("content-length")
            .then(|| value.trim())
    });
    let length = lengths.next().filter(|_| lengths.next().is_none())?;
    let plain = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    length.parse().ok().filter(|_| plain)
}
