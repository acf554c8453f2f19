//! Names of codes in lines: layers and reasons by `egress-common`, protocols, families and
//! record types by the numbers of IANA and Linux. Pure.

use std::borrow::Cow;

/// Name of an IP protocol number (IANA protocol numbers; 262 is Linux's own for MPTCP).
pub fn protocol(number: u16) -> Cow<'static, str> {
    Cow::Borrowed(match number {
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ipv6",
        46 => "rsvp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmpv6",
        103 => "pim",
        115 => "l2tp",
        132 => "sctp",
        136 => "udplite",
        255 => "raw",
        256 => "smc",
        262 => "mptcp",
        _ => return Cow::Owned(format!("ip-proto-{number}")),
    })
}

/// Name of a socket option by its level and number (include/uapi/linux/in.h, in6.h, tcp.h, udp.h,
/// asm-generic/socket.h): of those that are refused.
pub fn option(level: u8, number: u16) -> Cow<'static, str> {
    Cow::Borrowed(match (level, number) {
        (1, 5) => "SO_DONTROUTE",
        (1, 6) => "SO_BROADCAST",
        (1, 15) => "SO_REUSEPORT",
        (1, 25) => "SO_BINDTODEVICE",
        (1, 36) => "SO_MARK",
        (1, 62) => "SO_BINDTOIFINDEX",
        (0, 4) => "IP_OPTIONS",
        (0, 15) => "IP_FREEBIND",
        (0, 19) => "IP_TRANSPARENT",
        (0, 35) => "IP_ADD_MEMBERSHIP",
        (0, 36) => "IP_DROP_MEMBERSHIP",
        (0, 39) => "IP_ADD_SOURCE_MEMBERSHIP",
        (0, 50) => "IP_UNICAST_IF",
        (0 | 41, 42) => "MCAST_JOIN_GROUP",
        (0 | 41, 45) => "MCAST_LEAVE_GROUP",
        (0 | 41, 46) => "MCAST_JOIN_SOURCE_GROUP",
        (41, 20) => "IPV6_JOIN_GROUP",
        (41, 21) => "IPV6_LEAVE_GROUP",
        (41, 27) => "IPV6_JOIN_ANYCAST",
        (41, 32) => "IPV6_FLOWLABEL_MGR",
        (41, 50) => "IPV6_PKTINFO",
        (41, 54) => "IPV6_HOPOPTS",
        (41, 57) => "IPV6_RTHDR",
        (41, 59) => "IPV6_DSTOPTS",
        (41, 75) => "IPV6_TRANSPARENT",
        (41, 76) => "IPV6_UNICAST_IF",
        (41, 78) => "IPV6_FREEBIND",
        (6, 19) => "TCP_REPAIR",
        (6, 31) => "TCP_ULP",
        (17, 100) => "UDP_ENCAP",
        _ => return Cow::Owned(format!("option-{level}-{number}")),
    })
}

/// Name of a socket type (include/linux/net.h) of unix sockets.
pub fn socket(number: u16) -> &'static str {
    match number {
        1 => "stream",
        2 => "dgram",
        5 => "seqpacket",
        _ => "unix",
    }
}

/// Name of an address family (include/linux/socket.h); `None` for 0.
pub fn family(number: u8) -> Option<Cow<'static, str>> {
    Some(Cow::Borrowed(match number {
        0 => return None,
        1 => "unix",
        2 => "inet",
        10 => "inet6",
        15 => "key",
        16 => "netlink",
        17 => "packet",
        21 => "rds",
        29 => "can",
        30 => "tipc",
        31 => "bluetooth",
        38 => "alg",
        40 => "vsock",
        43 => "smc",
        44 => "xdp",
        _ => return Some(Cow::Owned(format!("family-{number}"))),
    }))
}

macro_rules! by_name {
    ($module:ident, $code:ty, $what:literal) => {
        pub(super) mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            pub(in crate::event) fn serialize<S: Serializer>(
                code: &$code,
                out: S,
            ) -> Result<S::Ok, S::Error> {
                out.serialize_str(code.as_str())
            }

            pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(
                input: D,
            ) -> Result<$code, D::Error> {
                let name = std::borrow::Cow::<'de, str>::deserialize(input)?;
                <$code>::ALL
                    .iter()
                    .copied()
                    .find(|code| code.as_str() == name)
                    .ok_or_else(|| D::Error::custom(format!("unknown {}: {name}", $what)))
            }
        }
    };
}

by_name!(layer, egress_common::verdict::Layer, "layer");
by_name!(reason, egress_common::verdict::Reason, "reason");

/// The schema's name, which is checked when a line is read.
pub(super) mod schema {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::event::model::SCHEMA;

    pub(in crate::event) fn serialize<S: Serializer>(_: &(), out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(SCHEMA)
    }

    pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<(), D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(input)?;
        if name == SCHEMA {
            return Ok(());
        }
        Err(D::Error::custom(format!("unknown schema: {name}")))
    }
}

/// RFC 3339 with nine digits always, so that lines of one zone also sort as text.
pub(super) mod time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in crate::event) fn serialize<S: Serializer>(
        time: &Timestamp,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.collect_str(&format_args!("{time:.9}"))
    }

    pub(in crate::event) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(input)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names() {
        assert_eq!(protocol(6), "tcp");
        assert_eq!(protocol(262), "mptcp");
        assert_eq!(protocol(200), "ip-proto-200");
        assert_eq!(family(0), None);
        assert_eq!(family(10).as_deref(), Some("inet6"));
        assert_eq!(family(99).as_deref(), Some("family-99"));
    }
}
