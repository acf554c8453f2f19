//! What was decided, where, and why: the codes of kernel and agent, and their names.

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $code,)* }

        impl $name {
            /// Every value, in the order of its code.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code in records.
            #[inline(always)]
            pub const fn code(self) -> u8 { self as u8 }

            /// The value of a code; `None` for a code this version does not know.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The name in events, counters and messages.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

codes! {
    /// What happens to a flow.
    Action {
        /// It is refused.
        Deny = 0, "deny";
        /// It passes.
        Allow = 1, "allow";
        /// It would be refused, but the connector is only audited: it passes and is reported.
        Audit = 2, "audit";
        /// It is a DNS exchange and led to the connector's door.
        Redirect = 3, "redirect";
        /// Its address is permitted, and its first bytes have to be a TLS ClientHello with a
        /// permitted name: the packet hook looks.
        Check = 4, "check";
    }
}

codes! {
    /// The hook that decided.
    Layer {
        /// `connect()` on an Internet socket.
        Connect = 1, "connect";
        /// `sendto()`/`sendmsg()` with an address.
        Sendmsg = 2, "sendmsg";
        /// A packet on its way out.
        Packet = 3, "packet";
        /// Making a socket or setting an option on it.
        Socket = 4, "socket";
        /// A unix socket.
        Unix = 5, "unix";
        /// The DNS door.
        Dns = 6, "dns";
        /// The name in a TLS ClientHello.
        Sni = 7, "sni";
        /// A hook of the Linux security modules, where the kernel runs BPF there.
        Lsm = 8, "lsm";
        /// The system call filter.
        Seccomp = 9, "seccomp";
    }
}

codes! {
    /// Why a flow was refused. Codes are stable; new ones are added at the end.
    Reason {
        /// Nothing was refused.
        None = 0, "none";
        /// No rule permits the destination.
        NoRule = 1, "no-rule";
        /// The address came from DNS and its time is over.
        Expired = 2, "expired";
        /// The rule was removed or switched off.
        Revoked = 3, "revoked";
        /// A `deny:` rule names the destination.
        DenyRule = 4, "deny-rule";
        /// The process belongs to no connector.
        UnknownConnector = 5, "unknown-connector";
        /// Loopback, and no rule permits it; nor does it reach the connector itself.
        Loopback = 6, "loopback";
        /// Link-local or cloud metadata, and no rule names it.
        LinkLocal = 7, "link-local";
        /// Multicast or broadcast, and no rule names it.
        Multicast = 8, "multicast";
        /// A socket type or protocol other than TCP and UDP.
        SocketType = 9, "socket-type";
        /// A packet that cannot be read with certainty.
        Malformed = 10, "malformed";
        /// A packet of another IP protocol than TCP or UDP.
        Protocol = 11, "protocol";
        /// IP options, extension headers or fragments that could hide the destination.
        Options = 12, "ip-options";
        /// A socket option that leads round the verdict.
        SocketOption = 13, "socket-option";
        /// The kernel had no memory for the socket's record.
        NoMemory = 14, "no-memory";
        /// The name is under no rule.
        NameNotAllowed = 15, "name-not-allowed";
        /// The DNS message breaks RFC 1035 in a way that could hide a name.
        NameMalformed = 16, "name-malformed";
        /// Every address of the answer points inside (loopback, private, metadata, …).
        PrivateAnswer = 17, "private-answer";
        /// The grant table is full or the kernel refused the entry.
        TableFull = 18, "table-full";
        /// A unix socket that no rule names.
        UnixPath = 19, "unix-path";
        /// An address family the hook does not know.
        Family = 20, "address-family";
        /// No connection comes in from there: no `listen:` rule, and not loopback.
        Inbound = 21, "inbound";
        /// A permitted address over an interface that the route does not use.
        Interface = 22, "interface";
        /// More names, or longer ones, under a wildcard than its rule takes.
        NameBudget = 23, "name-budget";
        /// The ClientHello names somebody whom no rule permits at that port.
        SniStranger = 24, "sni-stranger";
        /// The ClientHello names nobody.
        SniMissing = 25, "sni-missing";
        /// The ClientHello gives an address for a name (RFC 6066 section 3 forbids it).
        SniAddress = 26, "sni-address";
        /// More than one name, or more than one list of names.
        SniRepeated = 27, "sni-repeated";
        /// The first bytes are no TLS handshake.
        SniNotTls = 28, "sni-not-tls";
        /// A ClientHello that cannot be read with certainty.
        SniMalformed = 29, "sni-malformed";
        /// The ClientHello goes on in a second TLS record.
        SniRecords = 30, "sni-records";
        /// The ClientHello carries an encrypted one, which may name somebody else.
        SniEncrypted = 31, "sni-encrypted";
        /// Data in the SYN, before there is a connection whose name could be checked.
        SniEarly = 32, "sni-early";
        /// Urgent data, which receivers may take out of the stream or leave in it.
        SniUrgent = 33, "sni-urgent";
        /// The ClientHello did not come in one piece: too long, or the peer's window too small.
        SniIncomplete = 34, "sni-incomplete";
        /// The ClientHello lies in memory that the program can still change.
        SniShared = 35, "sni-shared-memory";
        /// The connection's name cannot be followed: multipath TCP, or no record of the socket.
        SniTransport = 36, "sni-transport";
        /// The ClientHello offers early data, behind which a second hello could hide its name.
        SniEarlyData = 37, "sni-early-data";
        /// A socket that was made outside the connector came in over another socket or out of
        /// another process.
        ForeignSocket = 40, "foreign-socket";
        /// A process outside the connector was to be traced, or its memory, files or
        /// descriptors reached.
        ForeignProcess = 41, "foreign-process";
        /// A capability was used, by a connector that should have none.
        Capability = 42, "capability";
        /// A key of the kernel's, for some of which it starts a helper outside.
        KernelKey = 43, "kernel-key";
        /// A new process in another cgroup.
        OtherCgroup = 44, "other-cgroup";
        /// Asynchronous I/O (io_uring), which acts past the system calls.
        IoUring = 45, "io-uring";
        /// A control of the kernel's was opened for writing: cgroups, pinned programs, sysfs.
        KernelControl = 46, "kernel-control";
        /// A broadcast address of loopback, or an address that no rule names for a socket that
        /// may broadcast.
        Broadcast = 47, "broadcast";
        /// A system call that acts where no hook looks, or on the whole machine.
        SystemCall = 51, "system-call";
        /// A program for another machine than this kernel's own (32-bit code); it was ended.
        ForeignAbi = 52, "foreign-abi";
        /// A namespace, root or mount of the connector's own: a sandbox inside the sandbox.
        Namespace = 53, "namespace";
        /// The connector's DNS proxy is gone, and its address belongs to nobody or to a stranger.
        ResolverGone = 55, "resolver-gone";
        /// The name is permitted, and records of this type are never given.
        RecordType = 56, "record-type";
        /// A service's answer names a host and port that no rule permits.
        ServiceTarget = 59, "service-target";
        /// A unix socket of its own, outside the folders in which a connector can make some.
        UnixBind = 61, "unix-bind";
    }
}

/// The outcome of [`crate::decide::decide`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// What happens.
    pub action: Action,
    /// Why, where it is refused or audited.
    pub reason: Reason,
    /// The rule that permitted or refused it, or [`crate::abi::RULE_NONE`].
    pub rule: u32,
}

impl Verdict {
    /// It passes, under a rule.
    #[inline(always)]
    #[must_use]
    pub const fn allow(rule: u32) -> Self {
        Self {
            action: Action::Allow,
            reason: Reason::None,
            rule,
        }
    }

    /// It does not pass.
    #[inline(always)]
    #[must_use]
    pub const fn deny(reason: Reason, rule: u32) -> Self {
        Self {
            action: Action::Deny,
            reason,
            rule,
        }
    }
}
