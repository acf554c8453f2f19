//! The layers of the boundary: what each does, and what stays open on a host without it. Pure.
//!
//! Not every kernel has every layer. Which of them hold is found out at each start
//! ([`crate::launch::layers`]), shown to the operator, and compared with what the policy
//! requires.

use std::fmt;

/// A part of the boundary that some kernels have not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Layer {
    /// `connect()` on Internet sockets.
    Connect,
    /// Datagrams with an address.
    Sendmsg,
    /// Making sockets.
    Socket,
    /// Every packet.
    Packet,
    /// Socket options.
    Sockopt,
    /// Unix sockets by name.
    Unix,
    /// The system call filter.
    Seccomp,
    /// Landlock for the connector's own unix sockets and for other processes' memory.
    Landlock,
    /// Landlock's scope for abstract unix sockets.
    LandlockScope,
    /// The PID namespace of the connector's own.
    Processes,
    /// Landlock's scope for signals.
    SignalScope,
    /// BPF programs at the kernel's security hooks.
    Lsm,
    /// The name in a TLS ClientHello.
    Sni,
}

impl Layer {
    /// Every layer, in the order in which they are shown.
    pub const ALL: &[Self] = &[
        Self::Connect,
        Self::Sendmsg,
        Self::Socket,
        Self::Packet,
        Self::Sockopt,
        Self::Unix,
        Self::Seccomp,
        Self::Landlock,
        Self::LandlockScope,
        Self::Processes,
        Self::SignalScope,
        Self::Lsm,
        Self::Sni,
    ];

    /// The name in policies, events and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Sendmsg => "sendmsg",
            Self::Socket => "socket",
            Self::Packet => "packet",
            Self::Sockopt => "sockopt",
            Self::Unix => "unix",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::LandlockScope => "landlock-scope",
            Self::Processes => "processes",
            Self::SignalScope => "signal-scope",
            Self::Lsm => "lsm",
            Self::Sni => "sni",
        }
    }

    /// The layer of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|layer| layer.name() == name)
    }

    /// The first kernel that has it, as far as this agent uses it: major and minor number.
    /// `docs/kernels.md` has the measurements.
    pub const fn since(self) -> (u32, u32) {
        match self {
            Self::Unix => (6, 7),
            Self::Landlock => (5, 19),
            Self::LandlockScope | Self::SignalScope => (6, 12),
            Self::Lsm => (6, 1),
            _ => (5, 10),
        }
    }

    /// What it does.
    pub const fn does(self) -> &'static str {
        match self {
            Self::Connect => "judges TCP connections by destination, before anything is sent",
            Self::Sendmsg => "judges datagrams by destination",
            Self::Socket => "lets a connector make TCP, MPTCP and UDP sockets, and no others",
            Self::Packet => "judges every packet by what is written in it",
            Self::Sockopt => "refuses options that lead packets elsewhere than their address says",
            Self::Unix => "judges unix sockets by name",
            Self::Seccomp => {
                "refuses system calls that act where no hook looks: io_uring, ptrace, keyrings, \
                 namespaces, other socket families"
            }
            Self::Landlock => {
                "keeps the connector's unix sockets where nobody outside can call in, and the \
                 connector out of other processes' memory"
            }
            Self::LandlockScope => "keeps the connector to its own abstract unix sockets",
            Self::Processes => {
                "gives the connector a view of its own processes alone: no others can be seen, \
                 signalled, limited or slowed down"
            }
            Self::SignalScope => "keeps the connector's signals inside, whatever process it knows",
            Self::Lsm => {
                "refuses at the kernel's security hooks, by itself, sockets and processes from \
                 outside, other socket families, capabilities, keys and control files"
            }
            Self::Sni => "checks the name in every TLS ClientHello to a permitted host",
        }
    }

    /// What stays open, or stops working, without it.
    pub const fn open(self) -> &'static str {
        match self {
            Self::Connect
            | Self::Sendmsg
            | Self::Socket
            | Self::Packet
            | Self::Sockopt
            | Self::Seccomp => "nothing: no connector is started without it",
            Self::Unix => {
                "nothing, but connectors can make no unix sockets except pairs, and a policy with \
                 a rule for one does not start"
            }
            Self::Landlock => {
                "a helper outside can call in at a unix socket of the connector's, and other \
                 processes of its user can be made to send through /proc/PID/mem, unless \
                 kernel.yama.ptrace_scope forbids it"
            }
            Self::LandlockScope => {
                "nothing, but the connector's own abstract unix sockets are refused, too"
            }
            Self::Processes => {
                "the processes of its user can be signalled, limited and slowed down; a signal can \
                 make some act outside the boundary (SIGUSR1 opens the debugger of a node process), \
                 unless signal-scope keeps it in"
            }
            Self::SignalScope => "nothing, as long as the connector has processes of its own",
            Self::Lsm => "nothing, as long as nothing is wrong with the other layers",
            Self::Sni => "a permitted address can be spoken to under any other name that it serves",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which layers hold, and why the others do not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layers(Vec<(Layer, Option<String>)>);

impl Layers {
    /// Asks for each layer; the answer is why it does not hold.
    pub fn find(mut missing: impl FnMut(Layer) -> Option<String>) -> Self {
        let all = Layer::ALL.iter();
        Self(all.map(|&layer| (layer, missing(layer))).collect())
    }

    /// The same, but for one layer that is not used for a reason.
    pub fn without(mut self, without: Layer, why: &str) -> Self {
        for (layer, missing) in &mut self.0 {
            if *layer == without && missing.is_none() {
                *missing = Some(why.to_owned());
            }
        }
        self
    }

    /// Those that hold.
    pub fn active(&self) -> impl Iterator<Item = Layer> {
        let holding = self.0.iter().filter(|(_, missing)| missing.is_none());
        holding.map(|(layer, _)| *layer)
    }

    /// Those that do not, and why.
    pub fn missing(&self) -> impl Iterator<Item = (Layer, &str)> {
        let all = self.0.iter();
        all.filter_map(|(layer, missing)| Some((*layer, missing.as_deref()?)))
    }

    /// Every layer in order; why it does not hold.
    pub fn all(&self) -> impl Iterator<Item = (Layer, Option<&str>)> {
        let all = self.0.iter();
        all.map(|(layer, missing)| (*layer, missing.as_deref()))
    }

    /// Fails where one that is required does not hold.
    pub fn require(&self, required: &[Layer]) -> Result<(), Unmet> {
        let unmet: Vec<(Layer, String)> = self
            .missing()
            .filter(|(layer, _)| required.contains(layer))
            .map(|(layer, why)| (layer, why.to_owned()))
            .collect();
        if unmet.is_empty() {
            Ok(())
        } else {
            Err(Unmet(unmet))
        }
    }
}

/// Layers that a policy requires and that do not hold, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct Unmet(Vec<(Layer, String)>);

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the policy requires what this host does not have: ")?;
        for (index, (layer, why)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            let (major, minor) = layer.since();
            write!(
                f,
                "{comma}{layer} (from Linux {major}.{minor} on): {why}; open without it: {}",
                layer.open()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_and_missing_is_named_with_its_reason() {
        let layers = Layers::find(|layer| (layer == Layer::Lsm).then(|| "not in lsm=".to_owned()));
        assert_eq!(layers.require(&[Layer::Unix, Layer::Seccomp]), Ok(()));
        let layers = layers.without(Layer::Sni, "off");
        let error = layers.require(&[Layer::Sni, Layer::Lsm, Layer::Unix]);
        let text = error.map_or_else(|unmet| unmet.to_string(), |()| String::new());
        assert!(
            text.contains("lsm (from Linux 6.1 on): not in lsm=; open"),
            "{text}"
        );
        assert!(
            text.contains("; sni (from Linux 5.10 on): off; open"),
            "{text}"
        );
        assert!(!text.contains("unix ("), "{text}");
        assert_eq!(layers.active().count(), Layer::ALL.len() - 2);
    }

    #[test]
    fn names_lead_back() {
        for &layer in Layer::ALL {
            assert_eq!(Layer::of_name(layer.name()), Some(layer));
        }
        assert_eq!(Layer::of_name("Unix"), None);
    }
}
