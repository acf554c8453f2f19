//! Ways out of a confinement, one function each. A vector tries to deliver a token to an address
//! that no policy declares; the receivers of the embedded internet say whether it arrived.
//!
//! To add one: write a function in the file of its family, and a line in that file's list; see
//! `docs/bypass-suite.md`.

mod abi;
mod accomplice;
mod battery;
mod below;
mod callers;
mod cgroup;
mod clones;
mod descriptor;
mod detour;
mod host;
mod ipc;
mod late;
mod local;
mod names;
mod neighbour;
mod outsider;
mod own_port;
mod packet;
mod ring;
mod squatter;
mod sys;
mod tcp;
mod tls;
mod tls_client;
mod tls_forms;
pub mod tls_many;
mod tls_names;
mod tls_pages;
mod tls_retry;
mod tls_segments;
mod udp;
mod unix;
mod uring;

use std::{
    fmt,
    io::{self, Write},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use crate::zone;

/// Port that the receivers serve and that no policy of these tests declares for a stranger.
pub const PORT: u16 = 9999;
/// Port of the declared address where a multipath TCP server announces a stranger's address.
pub const MULTIPATH_PORT: u16 = 9001;
/// Port of the accomplice on the host, [`crate::vectors::relay`].
pub const RELAY_PORT: u16 = 18080;
/// The line that asks the harness to call back, with the port behind it.
pub const LISTENING: &str = "listening";
/// What a vector says that took hold of something it must not have.
pub const REACHED: &str = "REACHED";
/// Prefix of the lines of a battery: what a vector said, or that it listens.
pub const MARK: &str = "#probe";

/// Names that a policy may permit and whose answers point where it must not lead.
pub const REBINDING: [&str; 6] = [
    "loopback.rebind.example",
    "zero.rebind.example",
    "private.rebind.example",
    "metadata.rebind.example",
    "mapped.rebind.example",
    "nat64.rebind.example",
];

/// A domain below which the order of questions spells a token, a hexadecimal digit each.
pub const ORDER: &str = "order.example";
/// A name of which the kinds of questions spell the first digits of a token: A is 0, AAAA is 1.
pub const KINDS: &str = "kinds.example";
/// So many digits.
pub const KINDS_DIGITS: usize = 8;
/// A domain whose names are permitted for a second or two after they were looked up; see
/// [`crate::zone`].
pub const BRIEF: &str = "late.example";

/// One way out.
#[derive(Debug)]
pub struct Vector {
    /// What the test and the command line call it.
    pub name: &'static str,
    /// What it does, for people; with the identifiers of published bypasses.
    pub about: &'static str,
    /// Whether the same way to a declared address has to work.
    pub control: bool,
    /// From which Linux on this project's agent lets the control through.
    pub control_since: (u32, u32),
    /// What the harness has to do beside it.
    pub needs: Needs,
    /// What proves that it got out.
    pub evidence: Evidence,
    /// Without confinement only root gets out this way.
    pub root: bool,
    /// What refuses it may end the program.
    pub fatal: bool,
    /// Some kernels do not have it; any other vector has to deliver when nothing confines it,
    /// or it would prove nothing.
    pub optional: bool,
    /// How it is started among the others.
    pub company: Company,
    /// Why nothing that looks at network traffic can stop it; empty: it has to be stopped.
    pub limit: &'static str,
    /// Why it is a limit on kernels without Landlock; empty: it is none there either.
    pub without_landlock: &'static str,
    run: fn(&Job) -> Attempt,
}

/// What a vector needs from outside the confinement, beside the accomplices that are always
/// there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// A stranger that connects to the port it prints.
    TcpCall,
    /// A stranger that sends a datagram to the port it prints.
    UdpCall,
    /// A stranger of its own that calls the port it prints.
    Caller,
    /// The same over IPv6.
    Caller6,
    /// A terminal that it shares with a program outside.
    Terminal,
}

/// What proves that a vector got out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// Its token arrived at an address or port that is not declared.
    Stranger,
    /// Its token arrived anywhere: what it abuses is the declared address itself.
    Anywhere,
    /// It says [`REACHED`]: it took hold of something that is of the whole machine, which the
    /// suite would rather not use.
    Reached,
    /// A DNS server outside saw a question whose letters are not all small.
    Capitals,
    /// Somebody outside heard anything at all: see [`Needs::Caller`].
    Answered,
    /// DNS servers saw questions whose order spells the token, see [`ORDER`] and [`KINDS`].
    Order,
}

/// How a vector is started among the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Company {
    /// At the same time as others.
    Parallel,
    /// After all the others: it changes something they use, and changes it back.
    Last,
    /// In a confinement of its own, which it may ruin.
    Alone,
    /// The same, and nothing can be tried in it afterwards.
    Ending,
}

impl Company {
    /// Whether nothing else is tried at the same time in the same confinement.
    pub fn is_alone(self) -> bool {
        matches!(self, Self::Alone | Self::Ending)
    }
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
    /// The folder where the accomplices outside wait.
    pub stage: PathBuf,
}

/// What a vector noticed itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A call failed.
    Refused(String),
    /// The way does not exist on this machine.
    NotApplicable(String),
    /// It took hold of something, for [`Evidence::Reached`].
    Reached(String),
    /// What the way needs could not be made, so nothing was tried.
    SetUp(String),
}

/// How what a vector says begins that tried nothing: it could not be set up, or broke off.
pub const UNTRIED: &str = "NOT TRIED";

type Attempt = Result<(), Stop>;

/// A kind of ways out.
#[derive(Debug)]
pub struct Family {
    /// What the suite calls it.
    pub name: &'static str,
    /// Its ways out.
    pub vectors: &'static [Vector],
}

/// Every family.
pub const FAMILIES: &[Family] = &[
    family("streams", tcp::VECTORS),
    family("datagrams", udp::VECTORS),
    family("detours", detour::VECTORS),
    family("other-sockets", below::VECTORS),
    family("packet-sockets", packet::VECTORS),
    family("io-uring", uring::VECTORS),
    family("foreign-abis", abi::VECTORS),
    family("names", names::VECTORS),
    family("tls-names", tls_names::VECTORS),
    family("tls-forms", tls_forms::VECTORS),
    family("tls-segments", tls_segments::VECTORS),
    family("tls-second-hellos", tls_retry::VECTORS),
    family("tls-shared-pages", tls_pages::VECTORS),
    family("loopback", local::VECTORS),
    family("own-ports", own_port::VECTORS),
    family("copies", clones::VECTORS),
    family("late-starts", late::VECTORS),
    family("callers", callers::VECTORS),
    family("unix-sockets", unix::VECTORS),
    family("descriptors", descriptor::VECTORS),
    family("neighbours", neighbour::VECTORS),
    family("processes", outsider::VECTORS),
    family("ipc", ipc::VECTORS),
    family("cgroups-and-namespaces", cgroup::VECTORS),
    family("host-controls", host::VECTORS),
];

const fn family(name: &'static str, vectors: &'static [Vector]) -> Family {
    Family { name, vectors }
}

/// Every vector.
pub fn vectors() -> impl Iterator<Item = &'static Vector> {
    FAMILIES.iter().flat_map(|family| family.vectors)
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
        ["accomplice", stage] => accomplice::stand_by(Path::new(stage)),
        ["victim", stage, user] => neighbour::be_a_victim(Path::new(stage), user.parse()?),
        ["multipath"] => accomplice::serve_multipath(),
        ["inherit", stage, command @ ..] => descriptor::open_and_become(Path::new(stage), command),
        ["terminal", user, command @ ..] => neighbour::share_a_terminal(user.parse()?, command),
        ["battery", stage, width, tries @ ..] => {
            battery::run(Path::new(stage), width.parse()?, tries)
        }
        ["burst", count] => udp::burst(count.parse()?),
        ["drip", target, token, seconds] => tcp::drip(target.parse()?, token, seconds.parse()?),
        ["rustls", urls @ ..] => tls_client::main(urls),
        ["hellos", file, from, width, target] => {
            tls_many::main(file, from.parse()?, width.parse()?, target.parse()?)
        }
        ["hello", count, pairs @ ..] => tls_many::in_turns(count.parse()?, pairs),
        ["far", target, name, length] => tls_many::far(target.parse()?, name, length.parse()?),
        ["list"] => {
            for family in FAMILIES {
                for vector in family.vectors {
                    println!("{:16} {:24} {}", family.name, vector.name, vector.about);
                }
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
            "usage: probe (list | VECTOR (forbidden | permitted) TOKEN [STAGE] | relay | \
             burst COUNT | drip TARGET TOKEN SECONDS)"
        ),
    }
}

impl Vector {
    const fn new(name: &'static str, about: &'static str, run: fn(&Job) -> Attempt) -> Self {
        Self {
            name,
            about,
            control: false,
            control_since: (0, 0),
            needs: Needs::Nothing,
            evidence: Evidence::Stranger,
            root: false,
            fatal: false,
            optional: false,
            company: Company::Parallel,
            limit: "",
            without_landlock: "",
            run,
        }
    }

    const fn controlled(mut self) -> Self {
        self.control = true;
        self
    }

    /// As `controlled`, where the agent needs a newer kernel to tell it from a way out.
    const fn controlled_since(mut self, major: u32, minor: u32) -> Self {
        self.control_since = (major, minor);
        self.controlled()
    }

    /// Whether this project's agent lets the control through on this kernel.
    pub fn control_is_known(&self) -> bool {
        sys::kernel() >= self.control_since
    }

    const fn by_root(mut self) -> Self {
        self.root = true;
        self
    }

    const fn fatal(mut self) -> Self {
        self.fatal = true;
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

    const fn proven_by(mut self, evidence: Evidence) -> Self {
        self.evidence = evidence;
        self
    }

    const fn last(mut self) -> Self {
        self.company = Company::Last;
        self
    }

    const fn alone(mut self) -> Self {
        self.company = Company::Alone;
        self
    }

    const fn ending(mut self) -> Self {
        self.company = Company::Ending;
        self
    }

    const fn limit_without_landlock(mut self, why: &'static str) -> Self {
        self.without_landlock = why;
        self
    }

    /// Why it cannot be stopped on this kernel, if so.
    pub fn excuse(&self) -> Option<&'static str> {
        if !self.limit.is_empty() {
            return Some(self.limit);
        }
        let missing = !self.without_landlock.is_empty() && !sys::has_landlock();
        missing.then_some(self.without_landlock)
    }

    const fn limit(mut self, why: &'static str) -> Self {
        self.limit = why;
        self
    }
}

impl Job {
    /// To a stranger.
    pub fn forbidden(token: &str, stage: &Path) -> Self {
        Self {
            target: SocketAddrV4::new(zone::STRANGER, PORT),
            target6: SocketAddrV6::new(zone::STRANGER6, PORT, 0, 0),
            permitted: SocketAddrV4::new(zone::ALLOWED, PORT),
            permitted6: SocketAddrV6::new(zone::ALLOWED6, PORT, 0, 0),
            token: token.to_owned(),
            stage: stage.to_owned(),
        }
    }

    /// To the declared address.
    pub fn permitted(token: &str, stage: &Path) -> Self {
        let job = Self::forbidden(token, stage);
        Self {
            target: job.permitted,
            target6: job.permitted6,
            ..job
        }
    }

    fn parse(words: &[&str]) -> Result<Self> {
        let stage = Path::new(words.get(2).unwrap_or(&"/nonexistent"));
        match words {
            ["forbidden", token, ..] => Ok(Self::forbidden(token, stage)),
            ["permitted", token, ..] => Ok(Self::permitted(token, stage)),
            _ => bail!("a job is (forbidden | permitted) TOKEN [STAGE]"),
        }
    }

    /// Whether this is the control run.
    fn is_control(&self) -> bool {
        self.target == self.permitted
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
            Self::Reached(what) => write!(f, "{REACHED} {what}"),
            Self::SetUp(why) => write!(f, "{UNTRIED} {why}"),
        }
    }
}

impl Stop {
    /// What went wrong before the way itself was tried.
    fn set_up(why: impl fmt::Display) -> Self {
        Self::SetUp(why.to_string())
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

fn missing<T>(why: &str) -> Result<T, Stop> {
    Err(Stop::NotApplicable(why.to_owned()))
}

/// What came with a release of Linux, and does not exist before it.
fn since(major: u32, minor: u32, what: &str) -> Result<(), Stop> {
    if sys::kernel() < (major, minor) {
        return missing(&format!("Linux has {what} from {major}.{minor} on"));
    }
    Ok(())
}

/// Tells the harness which port to call.
fn listening(port: u16) -> io::Result<()> {
    println!("{LISTENING} {port}");
    io::stdout().flush()
}
