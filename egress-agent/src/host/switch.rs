//! Switches that take one layer of the boundary away, so that tests see which layer stops what.
//!
//! They exist only in builds with the feature `test-switches`, in a program of their own. In
//! every other build the functions here are constant, and nothing reads the environment.

/// One layer that can be taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The hooks of `connect()`, and those that show the program the DNS server it addressed.
    Connect,
    /// The hooks of `sendto()` and its relatives.
    Sendmsg,
    /// The packet hook.
    Packet,
    /// What the hook of `socket()` refuses; the records it makes stay.
    Socket,
    /// The hook of `setsockopt()`.
    Sockopt,
    /// The hooks of unix sockets.
    Unix,
    /// What the DNS door refuses: it looks every name up, and still grants only what rules permit.
    Door,
    /// What the door leaves out of answers because it points inside.
    Rebinding,
    /// The closing of inherited descriptors.
    Descriptors,
    /// The loss of capabilities.
    Capabilities,
    /// The system call filter.
    Seccomp,
    /// The Landlock rules.
    Landlock,
    /// The session of its own.
    Session,
    /// The namespace of its own for System V and POSIX queues.
    Ipc,
    /// The mount namespace with the connector's own folder; for root, with the host's controls
    /// read-only.
    Mounts,
    /// The pipes in the place of standard descriptors that are more than bytes.
    Stdio,
    /// The programs at the hooks of security modules.
    Lsm,
}

#[cfg(feature = "test-switches")]
pub use on::{check, inherited, is_off, reached};

#[cfg(not(feature = "test-switches"))]
pub use absent::{inherited, is_off, reached};

/// What product builds have.
#[cfg(not(feature = "test-switches"))]
mod absent {
    use super::Part;

    /// Whether a layer is taken away: never.
    pub const fn is_off(_part: Part) -> bool {
        false
    }

    /// A step of a start or an end is reached.
    pub const fn reached(_step: &str) {}

    /// The variables that the launcher gets for its switches: none.
    pub const fn inherited() -> [(&'static str, String); 0] {
        []
    }
}

/// What test builds have.
#[cfg(feature = "test-switches")]
mod on {
    use std::env;

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::Part;

    /// The layers that are taken away, with commas between.
    const WITHOUT: &str = "EGRESS_TEST_WITHOUT";
    /// The step at which the process dies.
    const KILL_AT: &str = "EGRESS_TEST_KILL_AT";

    impl Part {
        /// Each with its name.
        const ALL: [(&str, Self); 17] = [
            ("connect", Self::Connect),
            ("sendmsg", Self::Sendmsg),
            ("packet", Self::Packet),
            ("socket", Self::Socket),
            ("sockopt", Self::Sockopt),
            ("unix", Self::Unix),
            ("door", Self::Door),
            ("rebinding", Self::Rebinding),
            ("descriptors", Self::Descriptors),
            ("capabilities", Self::Capabilities),
            ("seccomp", Self::Seccomp),
            ("landlock", Self::Landlock),
            ("session", Self::Session),
            ("ipc", Self::Ipc),
            ("mounts", Self::Mounts),
            ("stdio", Self::Stdio),
            ("lsm", Self::Lsm),
        ];
    }

    /// Errors: a word of the list is no layer. A test that misspells one would prove nothing.
    pub fn check() -> Result<(), String> {
        let list = env::var(WITHOUT).unwrap_or_default();
        let known = |word: &&str| Part::ALL.iter().any(|(name, _)| name == word);
        match list
            .split(',')
            .find(|word| !word.is_empty() && !known(word))
        {
            Some(word) => Err(format!("{WITHOUT}: {word:?} is no layer")),
            None => Ok(()),
        }
    }

    /// Whether a layer is taken away.
    pub fn is_off(part: Part) -> bool {
        let list = env::var(WITHOUT).unwrap_or_default();
        list.split(',')
            .any(|word| Part::ALL.contains(&(word, part)))
    }

    /// A step of a start or an end is reached: the process dies here, if the test says so.
    pub fn reached(step: &str) {
        if env::var(KILL_AT).is_ok_and(|wanted| wanted == step) {
            // Nothing after this line runs.
            let _dead = kill(Pid::this(), Signal::SIGKILL);
        }
    }

    /// The variables that the launcher gets for its switches.
    pub fn inherited() -> impl Iterator<Item = (&'static str, String)> {
        let of = |name| env::var(name).ok().map(|value| (name, value));
        [WITHOUT, KILL_AT].into_iter().filter_map(of)
    }
}
