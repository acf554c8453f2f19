//! Which sockets a connector may make: those that the other hooks can judge.

/// `AF_UNIX`, `include/linux/socket.h`.
pub const AF_UNIX: u32 = 1;
/// `AF_INET`.
pub const AF_INET: u32 = 2;
/// `AF_INET6`.
pub const AF_INET6: u32 = 10;
/// `AF_NETLINK`.
pub const AF_NETLINK: u32 = 16;

/// `SOCK_STREAM`, `include/linux/net.h`.
const STREAM: u32 = 1;
/// `SOCK_DGRAM`.
const DATAGRAM: u32 = 2;
/// `IPPROTO_TCP`, `include/uapi/linux/in.h`.
const TCP: u32 = 6;
/// `IPPROTO_UDP`.
const UDP: u32 = 17;
/// `IPPROTO_MPTCP`.
const MPTCP: u32 = 262;
/// `NETLINK_ROUTE`, `include/uapi/linux/netlink.h`: by which C libraries list interfaces.
const ROUTE: u32 = 0;

/// Whether the hooks for connections, datagrams and packets know the protocol: TCP, MPTCP, UDP.
/// Protocol 0 is the type's own.
#[inline(always)]
pub const fn is_internet(kind: u32, protocol: u32) -> bool {
    matches!(
        (kind, protocol),
        (STREAM, 0 | TCP | MPTCP) | (DATAGRAM, 0 | UDP)
    )
}

/// Whether a socket of any family may be made. A unix socket always: it is judged by the name
/// that it is to reach.
#[inline(always)]
pub const fn is_known(family: u32, kind: u32, protocol: u32) -> bool {
    match family {
        AF_UNIX => true,
        AF_INET | AF_INET6 => is_internet(kind, protocol),
        AF_NETLINK => protocol == ROUTE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_judged_elsewhere() {
        for protocol in [0, TCP, MPTCP] {
            assert!(is_known(AF_INET, STREAM, protocol));
            assert!(is_known(AF_INET6, STREAM, protocol));
        }
        assert!(is_known(AF_INET, DATAGRAM, UDP));
        assert!(is_known(AF_UNIX, 5, 0));
        assert!(is_known(AF_NETLINK, 3, ROUTE));
        // SCTP, UDP-Lite, ping, raw; netlink for users; packet, vsock, the kernel's ciphers, XDP.
        for (family, kind, protocol) in [
            (AF_INET, STREAM, 132),
            (AF_INET, DATAGRAM, 136),
            (AF_INET, DATAGRAM, 1),
            (AF_INET, 3, 0),
            (AF_INET6, 3, 255),
            (AF_NETLINK, 3, 2),
            (17, 3, 0),
            (40, STREAM, 0),
            (38, 5, 0),
            (44, 3, 0),
        ] {
            assert!(!is_known(family, kind, protocol));
        }
    }
}
