//! By which interfaces this host sends where, for one user: the kernel's own answers.
//!
//! What counts is where packets go when their program chooses nothing: no interface, no source
//! address, no mark, no type of service. Rules and routes for those choices of a program are not
//! followed, for a program that makes them chooses the way.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use egress_common::abi::{MAX_ROUTES, UDP};
use nix::{
    libc::{AF_INET, AF_INET6, AF_UNSPEC},
    net::if_::if_indextoname,
};

use super::{
    netlink::{array, attribute},
    rtnetlink::{FIB_MATCH, GETNEXTHOP, GETROUTE, GETRULE, Question, Rtnetlink},
    ways::{Prefix, Ways, lay_out},
};

/// Length of `struct rtmsg`, of `struct fib_rule_hdr` and of `struct nhmsg`.
const ROUTE: usize = 12;
const RULE: usize = 12;
const NEXTHOP: usize = 8;
/// `rtm_type`, and `RTN_UNICAST`.
const TYPE: usize = 7;
const UNICAST: u8 = 1;
/// `rtm_flags`, and `RTM_F_CLONED`: no entry of the table, but kept of a use of one.
const FLAGS: usize = 8;
const CLONED: u32 = 0x200;
/// `RTA_DST`, `RTA_OIF`, `RTA_PRIORITY`, `RTA_MULTIPATH`, `RTA_TABLE`, `RTA_NH_ID`.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_NH_ID: u16 = 30;
/// `FRA_DST`.
const FRA_DST: u16 = 1;
/// `NHA_ID`, `NHA_GROUP`, `NHA_OIF`.
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
/// Length of `struct nexthop_grp`.
const MEMBER: usize = 8;

/// Why the routes are not known. Then datagrams may leave by no interface.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// The kernel could not be asked.
    #[error("the kernel does not tell the routes of this host: {0}")]
    Kernel(#[from] io::Error),
    /// There are too many to ask for each.
    #[error("this host has routes for {0} prefixes, and at most {MAX_ROUTES} can be followed")]
    TooMany(usize),
}

/// Looks by which interfaces a user's datagrams leave, in the network namespace of this thread.
pub fn look(user: u32) -> Result<Ways, RoutesError> {
    let mut kernel = Rtnetlink::open()?;
    let mut prefixes = BTreeSet::new();
    let mut alike: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for family in [AF_INET, AF_INET6] {
        for rule in kernel.dump(GETRULE, family, RULE)? {
            prefixes.extend(prefix(&rule, RULE, FRA_DST, family));
        }
        for route in kernel.dump(GETROUTE, family, ROUTE)? {
            let flags = array::<4>(&route, FLAGS).map(u32::from_ne_bytes);
            if flags.is_some_and(|flags| flags & CLONED == 0) {
                prefixes.extend(prefix(&route, ROUTE, RTA_DST, family));
                if family == AF_INET6 {
                    alike.entry(place(&route)).or_default().push(route);
                }
            }
        }
    }
    if prefixes.len() > MAX_ROUTES as usize {
        return Err(RoutesError::TooMany(prefixes.len()));
    }
    let mut asked = Asked {
        kernel,
        user,
        alike,
        hops: None,
    };
    Ok(lay_out(prefixes, |addr| asked.interfaces(addr))?)
}

/// By which interfaces a user's datagrams to an address leave now.
pub fn interfaces(user: u32, to: IpAddr) -> io::Result<BTreeSet<u32>> {
    let mut asked = Asked {
        kernel: Rtnetlink::open()?,
        user,
        alike: BTreeMap::new(),
        hops: None,
    };
    asked.interfaces(to)
}

/// The name of an interface; its number where it has none any more.
pub fn name(index: u32) -> String {
    if_indextoname(index).map_or_else(
        |_gone| format!("interface {index}"),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// What is known while questions are asked.
struct Asked {
    kernel: Rtnetlink,
    user: u32,
    /// Routes of IPv6, as messages, by their places.
    alike: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// Next hops that stand by themselves (ip-nexthop(8)), once one was met.
    hops: Option<BTreeMap<u32, Hop>>,
}

/// A next hop with its own number.
#[derive(Default)]
struct Hop {
    interface: Option<u32>,
    /// Numbers of others, of which each may be taken.
    group: Vec<u32>,
}

impl Asked {
    /// By which interfaces the host may send to an address: the one by which it does now, and every
    /// next hop of the same route.
    fn interfaces(&mut self, to: IpAddr) -> io::Result<BTreeSet<u32>> {
        let question = Question {
            flags: 0,
            user: Some(self.user),
            protocol: UDP,
        };
        let Ok(now) = self.kernel.route(to, question)? else {
            return Ok(BTreeSet::new());
        };
        let mut found: BTreeSet<u32> = word(&now, ROUTE, RTA_OIF).into_iter().collect();
        // Local addresses have a device in the table by which nothing leaves.
        if now.get(TYPE) != Some(&UNICAST) {
            return Ok(found);
        }
        let whole = Question {
            flags: FIB_MATCH,
            ..question
        };
        // It may be gone since; then there is word of that already.
        let Ok(entry) = self.kernel.route(to, whole)? else {
            return Ok(found);
        };
        if entry.get(TYPE) != Some(&UNICAST) {
            return Ok(found);
        }
        let alike = self.alike.get(&place(&entry)).into_iter().flatten();
        let mut numbers = Vec::new();
        for route in alike.chain([&entry]) {
            found.extend(word(route, ROUTE, RTA_OIF));
            found.extend(several(route));
            numbers.extend(word(route, ROUTE, RTA_NH_ID));
        }
        for number in numbers {
            let hops = match self.hops.take() {
                Some(hops) => hops,
                None => hops(&mut self.kernel)?,
            };
            let hops = self.hops.insert(hops);
            let Some(hop) = hops.get(&number) else {
                continue;
            };
            found.extend(hop.interface);
            let members = hop.group.iter().filter_map(|member| hops.get(member));
            found.extend(members.filter_map(|member| member.interface));
        }
        Ok(found)
    }
}

/// Family, prefix, table and metric of a route. Among those of one place IPv6 chooses by what it
/// hears of their routers (`net/ipv6/route.c` `find_rr_leaf`).
fn place(route: &[u8]) -> Vec<u8> {
    const FAMILY_AND_LENGTH: usize = 2;
    let mut place = route.get(..FAMILY_AND_LENGTH).unwrap_or_default().to_vec();
    for kind in [RTA_TABLE, RTA_PRIORITY, RTA_DST] {
        place.extend(value(route, ROUTE, kind).unwrap_or_default());
    }
    place
}

/// The interfaces of a route of several next hops: `struct rtnexthop`, each with attributes.
fn several(route: &[u8]) -> Vec<u32> {
    let mut hops = value(route, ROUTE, RTA_MULTIPATH).unwrap_or_default();
    let mut found = Vec::new();
    while let (Some(length), Some(index)) = (array::<2>(hops, 0), array::<4>(hops, 4)) {
        found.push(u32::from_ne_bytes(index));
        let length = usize::from(u16::from_ne_bytes(length)).next_multiple_of(4);
        // Shorter than itself: cut short.
        if length < 8 {
            break;
        }
        hops = hops.get(length..).unwrap_or_default();
    }
    found
}

/// All next hops with numbers of their own (Linux 5.3).
fn hops(kernel: &mut Rtnetlink) -> io::Result<BTreeMap<u32, Hop>> {
    let mut hops = BTreeMap::new();
    for message in kernel.dump(GETNEXTHOP, AF_UNSPEC, NEXTHOP)? {
        let Some(number) = word(&message, NEXTHOP, NHA_ID) else {
            continue;
        };
        let group = value(&message, NEXTHOP, NHA_GROUP).unwrap_or_default();
        let members = group.chunks_exact(MEMBER);
        let members = members.filter_map(|member| array::<4>(member, 0));
        let hop = Hop {
            interface: word(&message, NEXTHOP, NHA_OIF),
            group: members.map(u32::from_ne_bytes).collect(),
        };
        hops.insert(number, hop);
    }
    Ok(hops)
}

/// The prefix that a route or rule is about; `dst_len` is the second byte of both.
fn prefix(message: &[u8], head: usize, kind: u16, family: i32) -> Option<Prefix> {
    let [length] = array::<1>(message, 1)?;
    let octets = value(message, head, kind).unwrap_or_default();
    let addr = if family == AF_INET {
        IpAddr::from(array::<4>(octets, 0).unwrap_or_default())
    } else {
        // One inside mapped IPv4 is never asked for.
        let addr = IpAddr::from(array::<16>(octets, 0).unwrap_or_default());
        if length >= 96 && addr.to_canonical().is_ipv4() {
            return None;
        }
        addr
    };
    Prefix::of(addr, length)
}

fn value(message: &[u8], head: usize, kind: u16) -> Option<&[u8]> {
    attribute(message.get(head..)?, kind)
}

fn word(message: &[u8], head: usize, kind: u16) -> Option<u32> {
    array::<4>(value(message, head, kind)?, 0).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use nix::{ifaddrs::getifaddrs, net::if_::if_nametoindex};

    use super::*;

    /// All addresses of this host go round by loopback, whichever device has them.
    #[test]
    fn own_addresses_are_reached_by_loopback() {
        let lo = if_nametoindex("lo").unwrap();
        let ways = look(0).unwrap();
        let loopback = Prefix::of([127, 0, 0, 0].into(), 8).unwrap();
        assert_eq!(ways.get(&(lo, loopback)), Some(&true), "{ways:?}");
        let all = getifaddrs().into_iter().flatten();
        let own = all.filter_map(|it| Some(it.address?.as_sockaddr_in()?.ip()));
        for address in own.filter(|address| !address.is_loopback()) {
            let host = Prefix::of(address.into(), 32).unwrap();
            assert_eq!(ways.get(&(lo, host)), Some(&true), "{address} {ways:?}");
        }
    }

    #[test]
    fn hops_that_are_cut_short_end() {
        let mut route = vec![0; ROUTE];
        route.extend(16_u16.to_ne_bytes());
        route.extend(RTA_MULTIPATH.to_ne_bytes());
        route.extend([0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(several(&route), [u32::from_ne_bytes([7, 0, 0, 0])]);
    }
}
