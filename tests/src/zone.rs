//! The names and addresses of the embedded internet. All of them are documentation ranges
//! (RFC 5737, RFC 3849), or ranges whose special meaning is what is tested.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::protocol::{Behaviour, Record};

/// The DNS server of the host's `resolv.conf`.
pub const DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53));
/// The same server over IPv6.
pub const DNS6: IpAddr = IpAddr::V6(v6(0x53));
/// A stranger's DNS server.
pub const OTHER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 53));
/// An address that no name has and no policy declares.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The same over IPv6.
pub const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc6, 0, 0, 0, 0, 7);
/// The host.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The host.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// `api.postmarkapp.com`
pub const POSTMARK: Ipv4Addr = v4(10);
/// `giftshop.club`, where a turned connector sends copies.
pub const GIFTSHOP: Ipv4Addr = v4(66);
/// `allowed.example`
pub const ALLOWED: Ipv4Addr = v4(20);
/// `allowed.example`
pub const ALLOWED6: Ipv6Addr = v6(0x20);
/// `other.example`
pub const OTHER: Ipv4Addr = v4(21);
/// `other.example`
pub const OTHER6: Ipv6Addr = v6(0x21);
/// `small-mss.example`, which takes segments of [`SMALL_MSS`] bytes.
pub const NARROW: Ipv4Addr = v4(90);
/// `small-window.example`, which has a window of [`SMALL_WINDOW`] bytes.
pub const TIGHT: Ipv4Addr = v4(91);
/// `tiny-window.example`, which has a window of [`TINY_WINDOW`] bytes: no hello fits.
pub const TINY: Ipv4Addr = v4(92);
/// What the SYN-ACK of `small-mss.example` says.
pub const SMALL_MSS: u16 = 128;
/// What `small-window.example` announces.
pub const SMALL_WINDOW: u16 = 1000;
/// What `tiny-window.example` announces.
pub const TINY_WINDOW: u16 = 200;
/// Cloud metadata.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// An address of the private network behind the internet's router.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 5);

/// Prefixes whose every address is served.
pub const PREFIXES: [&str; 8] = [
    "203.0.113.0/24",
    "198.51.100.0/24",
    "10.20.0.0/16",
    "169.254.169.254/32",
    "2001:db8:cb::/48",
    "2001:db8:c6::/48",
    "fd00:ec2::/64",
    "64:ff9b::/96",
];

/// An address of 203.0.113.0/24.
pub const fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last)
}

/// An address of 2001:db8:cb::/48.
pub const fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0xcb, 0, 0, 0, 0, last)
}

/// What every test finds.
pub fn standard() -> Vec<Record> {
    let mapped = INSIDE.to_ipv6_mapped();
    let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0x0a14, 0x0005);
    let behaving = |name, last, behaviour| Record {
        behaviour,
        ..both(name, last)
    };
    vec![
        both("api.postmarkapp.com", 10),
        both("giftshop.club", 66),
        both("*.giftshop.club", 66),
        both("*.exfil.example", 67),
        both("allowed.example", 20),
        both("other.example", 21),
        // Behind the addresses of `allowed.example` and `api.postmarkapp.com`, as at a content
        // delivery network.
        both("stranger.example", 20),
        both("shop.example", 10),
        only("small-mss.example", &[NARROW], &[]),
        only("small-window.example", &[TIGHT], &[]),
        only("tiny-window.example", &[TINY], &[]),
        both("*.ingest.sentry.io", 50),
        only("v4.example", &[v4(22)], &[]),
        only("v6.example", &[], &[v6(0x22)]),
        alias("alias.example", "edge.cdn.example"),
        alias("edge.cdn.example", "node.cdn.example"),
        both("node.cdn.example", 30),
        alias("loop.example", "loop.example"),
        only(
            "loopback.rebind.example",
            &[Ipv4Addr::LOCALHOST],
            &[Ipv6Addr::LOCALHOST],
        ),
        only(
            "zero.rebind.example",
            &[Ipv4Addr::UNSPECIFIED],
            &[Ipv6Addr::UNSPECIFIED],
        ),
        only("private.rebind.example", &[INSIDE], &[]),
        only("metadata.rebind.example", &[METADATA], &[]),
        only("mapped.rebind.example", &[], &[mapped]),
        only("nat64.rebind.example", &[], &[nat64]),
        only("mixed.rebind.example", &[INSIDE, v4(31)], &[]),
        only("inside.example", &[INSIDE], &[]),
        behaving("slow.example", 43, Behaviour::Slow(1500)),
        behaving("big.example", 45, Behaviour::Truncated),
        behaving("lying.example", 51, Behaviour::Lie),
        behaving("dead.example", 46, Behaviour::Dead),
        behaving("gone.example", 47, Behaviour::Code(3)),
        behaving("failing.example", 48, Behaviour::Code(2)),
        Record {
            a: vec![v4(41), v4(42)],
            behaviour: Behaviour::Flip,
            ttl: 1,
            ..named("flip.example")
        },
        Record {
            ttl: 1,
            ..both("short.example", 44)
        },
        // Names of the bypass suite.
        both("*.order.example", 54),
        both("kinds.example", 55),
        brief("stream", &[v4(61)], &[]),
        brief("stream6", &[], &[v6(0x62)]),
        brief("datagram", &[v4(63)], &[]),
        brief("datagram6", &[], &[v6(0x64)]),
        brief("cork", &[v4(65)], &[]),
        brief("cork6", &[], &[v6(0x68)]),
        Record {
            txt: vec!["v=spf1 -all".to_owned()],
            https_hint: Some(STRANGER),
            ..both("text.example", 49)
        },
    ]
}

/// A name with one address of each family, ending alike (the IPv6 one in hexadecimal digits
/// that read the same).
pub fn both(name: &str, last: u8) -> Record {
    let digits = u16::from(last / 100) << 8 | u16::from(last / 10 % 10) << 4 | u16::from(last % 10);
    only(name, &[v4(last)], &[v6(digits)])
}

/// A name with just these addresses.
pub fn only(name: &str, a: &[Ipv4Addr], aaaa: &[Ipv6Addr]) -> Record {
    Record {
        a: a.to_vec(),
        aaaa: aaaa.to_vec(),
        ..named(name)
    }
}

/// A name that is good for a second.
fn brief(label: &str, a: &[Ipv4Addr], aaaa: &[Ipv6Addr]) -> Record {
    Record {
        ttl: 1,
        ..only(&format!("{label}.{}", crate::probe::BRIEF), a, aaaa)
    }
}

/// A name that is another one's.
pub fn alias(name: &str, target: &str) -> Record {
    Record {
        cname: Some(target.to_owned()),
        ..named(name)
    }
}

/// The services that are found under a name.
pub fn services(name: &str, services: &[(u16, &str)]) -> Record {
    let owned = services.iter().map(|&(port, host)| (port, host.to_owned()));
    Record {
        srv: owned.collect(),
        ..named(name)
    }
}

fn named(name: &str) -> Record {
    Record {
        name: name.to_owned(),
        ttl: 60,
        ..Record::default()
    }
}
