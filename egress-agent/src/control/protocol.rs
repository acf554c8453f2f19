//! What a client and the daemon say to each other. Pure.
//!
//! A message is its length, four bytes in network order, and that many bytes of JSON. Each side
//! knows how long a message may be before it reads one, and the daemon gives an unprivileged client
//! one request a connection, so that nobody makes it keep more than [`MAX_MESSAGE`] bytes.
//!
//! client → daemon: one [`Request`]; after [`Request::Exec`] any number of [`Request::Signal`].
//! daemon → client: [`Answer`]s, until one of them is the last ([`Answer::is_last`]).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned};

use crate::host::inherited::Inherited;

/// Version of this protocol. A daemon answers one of another version with [`Answer::Failed`].
pub const VERSION: u32 = 1;
/// Bytes of one message: what `execve(2)` takes of arguments and environment (2 MiB by default),
/// where most of it is plain text.
pub const MAX_MESSAGE: usize = 3 << 20;
/// Bytes of the length in front of a message.
pub const HEADER: usize = 4;
/// Descriptors of [`Request::Exec`]: standard input, output and error, the reading end of a pipe
/// that hangs up with the client, and the writing end of the one for the wait status.
pub const EXEC_DESCRIPTORS: usize = 5;

/// What a client wants.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Start a connector.
    Exec(Box<Exec>),
    /// Send the started connector a signal.
    Signal(i32),
    /// The instances that the client may see.
    Ps,
    /// The connectors and the daemon itself.
    Status,
    /// End instances: one by its name, or all of a connector that the client may see.
    Stop(String),
    /// Read policies again: of one connector, or of all.
    Reload(Option<String>),
    /// The events that the client may see: the last so many, and, to follow, what comes.
    Events {
        /// Of what is there.
        last: usize,
        /// And go on.
        follow: bool,
    },
}

/// A connector to start.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// [`VERSION`].
    pub version: u32,
    /// Its name.
    pub connector: String,
    /// Program and arguments; empty: the policy's.
    pub command: Vec<Text>,
    /// The caller's environment.
    pub env: Vec<(Text, Text)>,
    /// The caller's working directory.
    pub cwd: Text,
    /// Its device and inode.
    pub cwd_is: (u64, u64),
    /// Limits, signals and umask of the caller.
    pub inherited: Inherited,
}

/// What the daemon says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The connector runs. A descriptor of its first process (pidfd_open(2)) comes with it.
    Started {
        /// The instance.
        instance: String,
        /// Number of the first process.
        pid: u32,
    },
    /// The connector has ended, with this wait status.
    Ended {
        /// As wait(2) has it.
        status: i32,
    },
    /// It was not done.
    Failed {
        /// Exit code for this failure.
        code: u8,
        /// What happened and what to do.
        message: String,
    },
    /// Instances.
    Instances(Vec<Row>),
    /// The daemon and its connectors.
    Status(Box<Overview>),
    /// A line of the events, as JSON with its line end.
    Event(String),
    /// Lines that came faster than they were read.
    Missed(u64),
    /// It was done; a line for people, or nothing.
    Done(String),
}

impl Answer {
    /// Whether no other one follows.
    pub fn is_last(&self) -> bool {
        !matches!(
            self,
            Self::Started { .. } | Self::Event(_) | Self::Missed(_)
        )
    }

    /// Something that was not done.
    pub fn failed(code: u8, message: impl Into<String>) -> Self {
        Self::Failed {
            code,
            message: message.into(),
        }
    }
}

/// One instance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub instance: String,
    /// Its connector's; of an instance that an earlier daemon left, as far as the name says it.
    pub connector: String,
    /// User who started it; `None`: not known.
    pub caller: Option<u32>,
    /// User as whom it runs; `None`: not known.
    pub uid: Option<u32>,
    /// Number of its first process; `None`: it is still being started, or not known.
    pub pid: Option<u32>,
    /// Seconds since its start; `None`: not known.
    pub age: Option<u64>,
    /// `starting`, `running`, or `orphaned`: confined, without names, left by an earlier daemon.
    pub state: String,
    /// `enforce` or `audit`; of an orphan as it was.
    pub mode: Option<String>,
}

/// The daemon and its connectors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Overview {
    /// Version of the daemon.
    pub version: String,
    /// Number of its process.
    pub pid: u32,
    /// Seconds since its start.
    pub age: u64,
    /// The connectors that the client may start or see.
    pub connectors: Vec<State>,
    /// What is wrong with policy files that are no connector's; for root and the group.
    pub faults: Vec<String>,
}

/// One connector.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Its name.
    pub connector: String,
    /// Its policy file.
    pub policy: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// Rules of its policy.
    pub rules: u64,
    /// Instances that the client may see.
    pub instances: u64,
    /// What is wrong with the file as it is now: the policy before it is in force.
    pub fault: Option<String>,
}

/// Any bytes, as text in which each character stands for one byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text(pub Vec<u8>);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = self.0.iter().map(|&byte| char::from(byte)).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        let bytes = bytes.map_err(|_| de::Error::custom("a character stands for no byte"))?;
        // Neither argument nor variable nor path can have one.
        if bytes.contains(&0) {
            return Err(de::Error::custom("a NUL"));
        }
        Ok(Self(bytes))
    }
}

/// Why a message is none.
#[derive(Debug, thiserror::Error)]
pub enum Garbage {
    /// It is longer than any message.
    #[error("a message of {0} bytes; at most {MAX_MESSAGE} are taken")]
    Length(usize),
    /// It is not what was to come.
    #[error("it cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// A message with its length in front.
pub fn message<T: Serialize>(what: &T) -> Result<Vec<u8>, Garbage> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, what)?;
    let length = bytes.len().saturating_sub(HEADER);
    let short = u32::try_from(length).ok().filter(|_| length <= MAX_MESSAGE);
    let header = short.ok_or(Garbage::Length(length))?.to_be_bytes();
    for (to, from) in bytes.iter_mut().zip(header) {
        *to = from;
    }
    Ok(bytes)
}

/// The bytes that one side has read so far.
#[derive(Debug, Default)]
pub struct Incoming(Vec<u8>);

impl Incoming {
    /// Some more of them.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next message; `Ok(None)`: it is not whole yet.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Garbage> {
        let Some((header, rest)) = self.0.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(Garbage::Length(length));
        }
        let Some(text) = rest.get(..length) else {
            return Ok(None);
        };
        let value = serde_json::from_slice(text)?;
        self.0.drain(..HEADER.saturating_add(length));
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_comes_in_any_pieces() {
        let first = Request::Stop("a\u{e9}\n".to_owned());
        let second = Request::Events {
            last: 3,
            follow: true,
        };
        let mut bytes = message(&first).unwrap();
        bytes.extend(message(&second).unwrap());
        let mut incoming = Incoming::default();
        let mut heard = Vec::new();
        for byte in bytes {
            incoming.push(&[byte]);
            heard.extend(incoming.take::<Request>().unwrap());
        }
        assert_eq!(heard, [first, second]);
        assert!(incoming.take::<Request>().unwrap().is_none());
    }

    #[test]
    fn bytes_stay_what_they_are_and_a_nul_is_none() {
        let all = Text((1..=255).collect());
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Text>(&text).unwrap(), all);
        for wrong in [r#""a\u0000b""#, "\"\u{100}\"", "7"] {
            assert!(serde_json::from_str::<Text>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_comes() {
        let mut incoming = Incoming::default();
        let length = u32::try_from(MAX_MESSAGE).unwrap();
        incoming.push(&length.to_be_bytes());
        assert!(incoming.take::<Request>().unwrap().is_none(), "it may come");
        let mut incoming = Incoming::default();
        incoming.push(&(length + 1).to_be_bytes());
        assert!(matches!(
            incoming.take::<Request>(),
            Err(Garbage::Length(_))
        ));
        let long = Request::Stop("x".repeat(MAX_MESSAGE));
        assert!(matches!(message(&long), Err(Garbage::Length(_))));
    }

    proptest! {
        /// Whatever comes, it is a message, the beginning of one, or refused.
        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut incoming = Incoming::default();
            incoming.push(&bytes);
            for _ in 0..bytes.len() {
                if !matches!(incoming.take::<Request>(), Ok(Some(_))) {
                    break;
                }
            }
            let mut framed = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
            framed.extend(&bytes);
            let mut incoming = Incoming::default();
            incoming.push(&framed);
            let whole = !matches!(incoming.take::<Request>(), Ok(None));
            prop_assert!(whole);
        }
    }
}
