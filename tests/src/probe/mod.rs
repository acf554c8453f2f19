//! Ways out of a confinement, one function each. A vector tries to deliver a token to an address
//! that no policy declares; the receivers of the embedded internet say whether it arrived.
//!
//! To add one: write a function in the file of its family, and a line in that file's list.

mod below;
mod local;
mod names;
mod sys;
mod tcp;
mod udp;

use std::{
    fmt,
    io::{self, Write},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use crate::zone;

/// Port that the receivers serve and that no policy of these tests declares for a stranger.
pub const PORT: u16 = 9999;
/// Port of the accomplice on the host, [`crate::vectors::relay`].
pub const RELAY_PORT: u16 = 18080;
/// The line that asks the harness to call back, with the port behind it.
pub const LISTENING: &str = "listening";

/// One way out.
#[derive(Debug)]
pub struct Vector {
    /// What the test and the command line call it.
    pub name: &'static str,
    /// What it does, for people.
    pub about: &'static str,
    /// Whether the same way to a declared address has to work.
    pub control: bool,
    /// What the harness has to do beside it.
    pub needs: Needs,
    /// Only root can try it: the connector is started as root.
    pub root: bool,
    /// Some kernels do not have it; any other vector has to deliver when nothing confines it,
    /// or it would prove nothing.
    pub optional: bool,
    run: fn(&Job) -> Attempt,
}

/// What a vector needs from outside the confinement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A stranger that connects to the port it prints.
    TcpCall,
    /// A stranger that sends a datagram to the port it prints.
    UdpCall,
    /// An accomplice on the host that passes on what it gets.
    Relay,
}

/// Where a vector sends what.
#[derive(Clone, Debug)]
pub struct Job {
    /// Undeclared, or for the control run declared.
    pub target: SocketAddrV4,
    /// The same over IPv6.
    pub target6: SocketAddrV6,
    /// Declared.
    pub permitted: SocketAddrV4,
    /// The same over IPv6.
    pub permitted6: SocketAddrV6,
    /// What has to arrive.
    pub token: String,
}

/// What a vector noticed itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A call failed.
    Refused(String),
    /// The way does not exist on this machine.
    NotApplicable(String),
}

type Attempt = Result<(), Stop>;

/// Streams.
pub const TCP: &[Vector] = tcp::VECTORS;
/// Datagrams.
pub const UDP: &[Vector] = udp::VECTORS;
/// Other sockets.
pub const BELOW: &[Vector] = below::VECTORS;
/// Through the same host.
pub const LOCAL: &[Vector] = local::VECTORS;
/// Through the name service.
pub const NAMES: &[Vector] = names::VECTORS;

/// Every vector.
pub fn vectors() -> impl Iterator<Item = &'static Vector> {
    [TCP, UDP, BELOW, LOCAL, NAMES].into_iter().flatten()
}

/// The vector with a name.
pub fn vector(name: &str) -> Option<&'static Vector> {
    vectors().find(|vector| vector.name == name)
}

/// What the program `probe` does: tries the vector named by the first argument and prints
/// `SENT`, `REFUSED` with the error, or `NOT APPLICABLE` with the reason. `SENT` says only that
/// nothing failed; whether it arrived is for the receiver to say.
pub fn main(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["relay"] => local::relay().map_err(anyhow::Error::from),
        ["burst", count] => udp::burst(count.parse()?),
        ["drip", target, token, seconds] => tcp::drip(target.parse()?, token, seconds.parse()?),
        ["list"] => {
            for vector in vectors() {
                println!("{:24} {}", vector.name, vector.about);
            }
            Ok(())
        }
        [name, rest @ ..] => {
            let vector = vector(name).with_context(|| format!("no vector {name}"))?;
            let line = match (vector.run)(&Job::parse(rest)?) {
                Ok(()) => "SENT".to_owned(),
                Err(stop) => stop.to_string(),
            };
            println!("{line}");
            Ok(())
        }
        [] => bail!(
            "usage: probe (list | relay | burst COUNT | drip TARGET TOKEN SECONDS | VECTOR JOB…)"
        ),
    }
}

impl Vector {
    const fn new(name: &'static str, about: &'static str, run: fn(&Job) -> Attempt) -> Self {
        Self {
            name,
            about,
            control: false,
            needs: Needs::Nothing,
            root: false,
            optional: false,
            run,
        }
    }

    const fn controlled(mut self) -> Self {
        self.control = true;
        self
    }

    const fn by_root(mut self) -> Self {
        self.root = true;
        self
    }

    const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    const fn with(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }
}

impl Job {
    /// To a stranger.
    pub fn forbidden(token: &str) -> Self {
        Self {
            target: SocketAddrV4::new(zone::STRANGER, PORT),
            target6: SocketAddrV6::new(zone::STRANGER6, PORT, 0, 0),
            permitted: SocketAddrV4::new(zone::ALLOWED, PORT),
            permitted6: SocketAddrV6::new(zone::ALLOWED6, PORT, 0, 0),
            token: token.to_owned(),
        }
    }

    /// To the declared address.
    pub fn permitted(token: &str) -> Self {
        let job = Self::forbidden(token);
        Self {
            target: job.permitted,
            target6: job.permitted6,
            ..job
        }
    }

    /// As arguments of `probe`, the vector's name first.
    pub fn arguments(&self, vector: &Vector) -> Vec<String> {
        vec![
            vector.name.to_owned(),
            self.target.to_string(),
            self.target6.to_string(),
            self.permitted.to_string(),
            self.permitted6.to_string(),
            self.token.clone(),
        ]
    }

    fn parse(words: &[&str]) -> Result<Self> {
        let [target, target6, permitted, permitted6, token] = words else {
            bail!("a job is TARGET4 TARGET6 PERMITTED4 PERMITTED6 TOKEN");
        };
        Ok(Self {
            target: FromStr::from_str(target)?,
            target6: FromStr::from_str(target6)?,
            permitted: FromStr::from_str(permitted)?,
            permitted6: FromStr::from_str(permitted6)?,
            token: (*token).to_owned(),
        })
    }

    fn bytes(&self) -> &[u8] {
        self.token.as_bytes()
    }

    fn mapped(&self) -> SocketAddr {
        (self.target.ip().to_ipv6_mapped(), self.target.port()).into()
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "REFUSED {why}"),
            Self::NotApplicable(why) => write!(f, "NOT APPLICABLE {why}"),
        }
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno.to_string())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Tells the harness which port to call.
fn listening(port: u16) -> io::Result<()> {
    println!("{LISTENING} {port}");
    io::stdout().flush()
}
