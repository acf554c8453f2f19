//! A server's answer in HTTP/1.1 (RFC 9112): where it ends, and how it is written on. Pure.
//!
//! Answers are not judged. They are read leniently, as clients read them, and written anew, so that
//! both sides agree on where one ends.

/// Longest head. Bytes.
pub(super) const MAX_HEAD: usize = 256 * 1024;
/// Longest line with a chunk's size. Bytes.
const MAX_SIZE_LINE: usize = 4_096;

/// The head of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    /// The server speaks HTTP/1.0.
    old: bool,
    /// The status.
    pub(super) status: u16,
    reason: Vec<u8>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where its body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ends {
    /// There is none.
    Here,
    /// After so many bytes.
    After(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// Reads a head. `None`: more is needed. An error says what is wrong.
pub(super) fn head(bytes: &[u8]) -> Result<Option<(Answer, usize)>, &'static str> {
    let mut at = 0;
    let mut lines: Vec<&[u8]> = Vec::new();
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return match bytes.len() > MAX_HEAD {
                true => Err("its head is too long"),
                false => Ok(None),
            };
        };
        let line = rest.get(..end).unwrap_or_default();
        at = at.saturating_add(end).saturating_add(1);
        if at > MAX_HEAD {
            return Err("its head is too long");
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let (first, rest) = lines.split_first().ok_or("it begins with an empty line")?;
    let (old, status, reason) = status_line(first).ok_or("its first line is no status line")?;
    let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(rest.len());
    for line in rest {
        if line.iter().any(|&byte| byte == 0 || byte == b'\r') {
            return Err("a field has control characters");
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            // A value that goes on in the next line (RFC 9112 section 5.2).
            let (_, value) = fields.last_mut().ok_or("it begins with half a field")?;
            value.push(b' ');
            value.extend(line.trim_ascii());
            continue;
        }
        let colon = line.iter().position(|&byte| byte == b':');
        let (name, value) = colon
            .and_then(|at| line.split_at_checked(at))
            .ok_or("a field has no colon")?;
        let name = name.trim_ascii_end();
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err("a field has no proper name");
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        fields.push((name.to_vec(), value.to_vec()));
    }
    let answer = Answer {
        old,
        status,
        reason: reason.to_vec(),
        fields,
    };
    Ok(Some((answer, at)))
}

/// `HTTP/1.1 200 OK`; the reason may be missing, with its blank too.
fn status_line(line: &[u8]) -> Option<(bool, u16, &[u8])> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (&minor, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(b" ")?;
    let (digits, reason) = rest.split_at_checked(3)?;
    let status = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let reason = match reason {
        [] => reason,
        [b' ', reason @ ..] => reason,
        _ => return None,
    };
    let odd = |&byte: &u8| byte.is_ascii_control() && byte != b'\t';
    (minor.is_ascii_digit() && (100..=999).contains(&status) && !reason.iter().any(odd))
        .then_some((minor == b'0', status, reason))
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Fields that belong to one connection (RFC 9110 section 7.6.1), those that say where the body
/// ends, which is said anew, and offers of other ways to the server, which nobody may take.
const OWN: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "te",
    "alt-svc",
];

impl Answer {
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |(own, _)| own.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.as_slice())
    }

    /// The members of a list, in lower case.
    fn members(&self, name: &str) -> Vec<Vec<u8>> {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(|member| member.trim_ascii().to_ascii_lowercase())
            .filter(|member| !member.is_empty())
            .collect()
    }

    /// Whether the connection lives on behind this answer.
    pub(super) fn keeps(&self) -> bool {
        let said = self.members("connection");
        let has = |what: &[u8]| said.iter().any(|member| member == what);
        !has(b"close") && (!self.old || has(b"keep-alive"))
    }

    /// Where the body ends that answers a request with this method (RFC 9112 section 6.3).
    pub(super) fn ends(&self, method: &str) -> Result<Ends, &'static str> {
        if method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(Ends::Here);
        }
        let codings = self.members("transfer-encoding");
        if let Some(last) = codings.last() {
            return match (codings.len(), last.as_slice()) {
                (1, b"chunked") => Ok(Ends::Chunked),
                _ => Err("it has a transfer encoding that is not known"),
            };
        }
        let lengths = self.members("content-length");
        let Some(first) = lengths.first() else {
            return Ok(Ends::Close);
        };
        let digits = first.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(first)
            .ok()
            .and_then(|it| it.parse().ok());
        match length {
            Some(length) if digits && lengths.iter().all(|it| it == first) => {
                Ok(Ends::After(length))
            }
            _ => Err("it has two lengths, or none that is a number"),
        }
    }

    /// Writes the head. `ends`: how the body is written; `close`: the connection ends behind it.
    pub(super) fn write(&self, ends: Ends, close: bool, out: &mut Vec<u8>) {
        let listed = self.members("connection");
        out.extend(format!("HTTP/1.1 {} ", self.status).as_bytes());
        out.extend(&self.reason);
        out.extend(b"\r\n");
        for (name, value) in &self.fields {
            let lower = name.to_ascii_lowercase();
            // Without a body, its length is information (HEAD, 304).
            let told = ends == Ends::Here && lower == b"content-length" && self.status >= 200;
            let own = OWN.iter().any(|own| own.as_bytes() == lower.as_slice());
            if !told && (own || listed.contains(&lower)) {
                continue;
            }
            out.extend(name);
            out.extend(b": ");
            out.extend(value);
            out.extend(b"\r\n");
        }
        match ends {
            Ends::After(length) => out.extend(format!("Content-Length: {length}\r\n").as_bytes()),
            Ends::Chunked => out.extend(b"Transfer-Encoding: chunked\r\n"),
            Ends::Here | Ends::Close => {}
        }
        if close {
            out.extend(b"Connection: close\r\n");
        }
        out.extend(b"\r\n");
    }
}

/// A body in chunks (RFC 9112 section 7.1).
#[derive(Default)]
pub(super) struct Chunks {
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers(Vec<u8>),
}

/// What comes next in the input.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Piece {
    /// More is needed.
    More,
    /// So many bytes at its beginning were read and hold no data.
    Skip(usize),
    /// So many bytes at its beginning are data.
    Data(usize),
    /// So many bytes at its beginning are the end; these are the trailers, with their line ends.
    End(usize, Vec<u8>),
}

impl Chunks {
    /// Reads on. The input's beginning is what the answer before did not use.
    pub(super) fn next(&mut self, input: &[u8]) -> Result<Piece, &'static str> {
        if let State::Data(left) = &mut self.state {
            let len = input
                .len()
                .min(usize::try_from(*left).unwrap_or(usize::MAX));
            if len == 0 {
                return Ok(Piece::More);
            }
            *left = left.saturating_sub(u64::try_from(len).unwrap_or(u64::MAX));
            if *left == 0 {
                self.state = State::DataEnd;
            }
            return Ok(Piece::Data(len));
        }
        let Some(end) = input.iter().position(|&byte| byte == b'\n') else {
            return match input.len() > MAX_SIZE_LINE {
                true => Err("a chunk's line is too long"),
                false => Ok(Piece::More),
            };
        };
        let line = input.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let used = end.saturating_add(1);
        match &mut self.state {
            State::Size => {
                self.state = match size(line).ok_or("a chunk has no size")? {
                    0 => State::Trailers(Vec::new()),
                    size => State::Data(size),
                };
            }
            State::DataEnd if line.is_empty() => self.state = State::Size,
            State::DataEnd | State::Data(_) => return Err("a chunk is longer than it says"),
            State::Trailers(trailers) => {
                if line.is_empty() {
                    return Ok(Piece::End(used, std::mem::take(trailers)));
                }
                if trailers.len() > MAX_HEAD || line.iter().any(|&byte| byte == 0 || byte == b'\r')
                {
                    return Err("its trailers are too long, or no text");
                }
                trailers.extend(line);
                trailers.extend(b"\r\n");
            }
        }
        Ok(Piece::Skip(used))
    }
}

/// The size in front of a chunk; extensions say nothing.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii();
    let digits = std::str::from_utf8(digits).ok()?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    (plain && digits.len() <= 16).then_some(())?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
