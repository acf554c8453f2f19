//! Switches that take one layer of the boundary away, so that tests see which layer stops what,
//! and faults at any step of a start or an end.
//!
//! They exist only in builds with the feature `test-switches`, in a program of their own. In
//! every other build the functions here are constant, and nothing reads the environment.

/// One layer that can be taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The hooks of `connect()`.
    Connect,
    /// The hooks of `sendto()` and its relatives.
    Sendmsg,
    /// The packet hook.
    Packet,
    /// The hook for packets on their way in.
    Ingress,
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
    /// The PID namespace of its own, with its `/proc` and its init.
    Processes,
    /// The small `/dev`, and the closing of device nodes elsewhere.
    Devices,
    /// The pipes in the place of standard descriptors that are more than bytes.
    Stdio,
    /// The programs at the hooks of security modules.
    Lsm,
    /// The look at the name in the first bytes of TLS.
    Sni,
}

/// A step of a start or an end, at which a test can have the process killed or stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The host was looked at.
    HostChecked,
    /// What dead agents left is gone.
    LeftoversEnded,
    /// The instance has its lock.
    Locked,
    /// It has its cgroups.
    CgroupsMade,
    /// It has its folder of pins.
    Created,
    /// The data plane is loaded, its maps are pinned.
    Loaded,
    /// The policy is in its tables.
    PolicyWritten,
    /// The first program is attached.
    FirstAttached,
    /// The last program is attached; most links are not pinned.
    LastAttached,
    /// One link is pinned.
    FirstPinned,
    /// All links are pinned.
    Attached,
    /// The stream of events is open.
    StreamOpen,
    /// The names of the policy have addresses.
    Resolved,
    /// The launcher has its orders.
    Joining,
    /// It is in the connector's cgroup.
    Joined,
    /// It is in a session of its own.
    Separated,
    /// It has its mounts.
    Mounted,
    /// It has no rights any more.
    Dropped,
    /// It has seen the boundary hold.
    Probed,
    /// It was let go, and closed what it must not hand on.
    Closed,
    /// It has its filters; the next step is the connector.
    Filtered,
    /// The agent heard that the launcher is ready.
    LauncherReady,
    /// The connector runs.
    ConnectorStarted,
    /// The connector's first process has ended.
    ConnectorEnded,
    /// So have all others.
    ConnectorKilled,
    /// Its output is passed on, its account closed.
    StreamFinished,
    /// The end of an instance begins, be it of this run or what a dead agent left.
    EndBegun,
    /// No process is left.
    ProcessesEnded,
    /// No socket is left.
    SocketsEnded,
    /// One link is gone.
    FirstUnpinned,
    /// All pins are gone.
    Unpinned,
    /// The cgroups are gone.
    CgroupRemoved,
    /// The lock is gone.
    Unlocked,
}

#[cfg(feature = "test-switches")]
pub use on::{check, inherited, is_off, reached, room};

#[cfg(not(feature = "test-switches"))]
pub use absent::{inherited, is_off, reached, room};

/// What product builds have.
#[cfg(not(feature = "test-switches"))]
mod absent {
    use super::{Part, Step};

    /// Whether a layer is taken away: never.
    pub const fn is_off(_part: Part) -> bool {
        false
    }

    /// A step of a start or an end is reached.
    pub const fn reached(_step: Step) {}

    /// Entries that a table is to hold in place of its own number: none.
    pub const fn room(_table: &str) -> Option<u32> {
        None
    }

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

    use super::{Part, Step};

    /// The layers that are taken away, with commas between.
    const WITHOUT: &str = "EGRESS_TEST_WITHOUT";
    /// The step at which the process dies.
    const KILL_AT: &str = "EGRESS_TEST_KILL_AT";
    /// The step at which it stops, until somebody sends SIGCONT.
    const STOP_AT: &str = "EGRESS_TEST_STOP_AT";
    /// Tables and how many entries they hold, as in `GRANTS=4,PREFIXES=2`.
    const ROOM: &str = "EGRESS_TEST_ROOM";

    impl Part {
        /// Each with its name.
        const ALL: &[(&str, Self)] = &[
            ("connect", Self::Connect),
            ("sendmsg", Self::Sendmsg),
            ("packet", Self::Packet),
            ("ingress", Self::Ingress),
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
            ("processes", Self::Processes),
            ("devices", Self::Devices),
            ("stdio", Self::Stdio),
            ("lsm", Self::Lsm),
            ("sni", Self::Sni),
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

    /// A step of a start or an end is reached: the process dies or stops here, if the test says
    /// so by the step's name.
    pub fn reached(step: Step) {
        let name = format!("{step:?}");
        for (variable, signal) in [(KILL_AT, Signal::SIGKILL), (STOP_AT, Signal::SIGSTOP)] {
            if env::var(variable).is_ok_and(|wanted| wanted == name) {
                // Nothing after this line runs, or not before the test has done its part.
                let _done = kill(Pid::this(), signal);
                // Process 1 of a namespace takes no such signal from inside (pid_namespaces(7)).
                if signal == Signal::SIGKILL {
                    std::process::exit(137);
                }
            }
        }
    }

    /// Entries that a table is to hold in place of its own number.
    pub fn room(table: &str) -> Option<u32> {
        let list = env::var(ROOM).ok()?;
        let mut pairs = list.split(',').filter_map(|pair| pair.split_once('='));
        let (_, number) = pairs.find(|(name, _)| *name == table)?;
        number.parse().ok()
    }

    /// The variables that the launcher gets for its switches.
    pub fn inherited() -> impl Iterator<Item = (&'static str, String)> {
        let of = |name| env::var(name).ok().map(|value| (name, value));
        [WITHOUT, KILL_AT, STOP_AT].into_iter().filter_map(of)
    }
}
