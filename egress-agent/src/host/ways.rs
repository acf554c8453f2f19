//! By which interfaces a host sends where, as entries for a table that answers with the longest
//! prefix. Pure.
//!
//! What the kernel decides for an address depends on the prefixes of its routes and rules alone,
//! as long as nobody chooses anything else. So it is asked once for each of those prefixes, for an
//! address that no narrower one covers, and the answer holds for all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

/// A prefix of addresses as numbers, IPv4 in its mapped form. In order, a prefix comes before all
/// that it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    first: u128,
    length: u8,
}

/// Entries by interface and prefix: whether the host sends there by it.
pub type Ways = BTreeMap<(u32, Prefix), bool>;

/// All of IPv6, and of IPv4.
const ROOTS: [Prefix; 2] = [Prefix::new(0, 0), Prefix::new(MAPPED, 96)];
const MAPPED: u128 = 0xffff << 32;
/// To these nobody sends without choosing an interface, or at all, and the kernel answers questions
/// about them in ways of their own: `::`, `fe80::/10`, `ff00::/8`, `0.0.0.0`, `224.0.0.0/4`,
/// `255.255.255.255`.
const ASIDE: [Prefix; 6] = [
    Prefix::new(0, 128),
    Prefix::new(0xfe80 << 112, 10),
    Prefix::new(0xff00 << 112, 8),
    Prefix::new(MAPPED, 128),
    Prefix::new(MAPPED | 0xe000_0000, 100),
    Prefix::new(MAPPED | 0xffff_ffff, 128),
];

impl Prefix {
    const fn new(first: u128, length: u8) -> Self {
        Self { first, length }
    }

    /// The first `length` bits of an address of its own family. `None`: there are not so many.
    pub fn of(addr: IpAddr, length: u8) -> Option<Self> {
        let (number, length) = match addr {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().to_bits(), length.checked_add(96)?),
            IpAddr::V6(v6) => (v6.to_bits(), length),
        };
        let behind = 128_u32.checked_sub(length.into())?;
        let kept = u128::MAX.checked_shl(behind).unwrap_or(0);
        Some(Self::new(number & kept, length))
    }

    /// Its first address.
    pub const fn first(&self) -> u128 {
        self.first
    }

    /// Its length in bits, that of mapped IPv4.
    pub const fn length(&self) -> u8 {
        self.length
    }

    const fn last(&self) -> u128 {
        match u128::MAX.checked_shr(self.length as u32) {
            Some(behind) => self.first | behind,
            None => self.first,
        }
    }

    const fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.first <= other.first && other.first <= self.last()
    }
}

/// The entries for a host that has routes and rules for these prefixes. `ask` says by which
/// interfaces it sends to an address.
pub fn lay_out<E>(
    prefixes: impl IntoIterator<Item = Prefix>,
    mut ask: impl FnMut(IpAddr) -> Result<BTreeSet<u32>, E>,
) -> Result<Ways, E> {
    let mut all: BTreeSet<Prefix> = prefixes.into_iter().collect();
    all.retain(|prefix| ASIDE.iter().all(|aside| !aside.covers(prefix)));
    all.extend(ROOTS.iter().chain(&ASIDE));
    let all: Vec<Prefix> = all.into_iter().collect();
    let mut ways = Ways::new();
    // Those that cover the prefix at hand, each with its interfaces.
    let mut around: Vec<(Prefix, BTreeSet<u32>)> = Vec::new();
    let mut rest = all.as_slice();
    while let [prefix, narrower @ ..] = rest {
        rest = narrower;
        // What no narrower prefix leaves over decides nothing.
        let Some(sample) = uncovered(prefix, narrower) else {
            continue;
        };
        while around.last().is_some_and(|(wide, _)| !wide.covers(prefix)) {
            around.pop();
        }
        let by = if ASIDE.contains(prefix) {
            BTreeSet::new()
        } else {
            ask(Ipv6Addr::from_bits(sample).to_canonical())?
        };
        let nothing = BTreeSet::new();
        let before = around.last().map_or(&nothing, |(_, before)| before);
        let differing = by.symmetric_difference(before);
        ways.extend(differing.map(|&index| ((index, *prefix), by.contains(&index))));
        around.push((*prefix, by));
    }
    Ok(ways)
}

/// The first address of a prefix that none of the narrower ones covers, which follow it in order.
fn uncovered(prefix: &Prefix, narrower: &[Prefix]) -> Option<u128> {
    let mut next = prefix.first;
    for inner in narrower.iter().take_while(|inner| prefix.covers(inner)) {
        if inner.first > next {
            break;
        }
        next = next.max(inner.last().checked_add(1)?);
    }
    (next <= prefix.last()).then_some(next)
}

/// One write to the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Writes or replaces an entry.
    Write(u32, Prefix, bool),
    /// Deletes one.
    Delete(u32, Prefix),
}

/// The steps from one set of entries to another. At no step does an interface count that counts in
/// neither: first everything is written that refuses, then what permits is deleted; with both
/// together an address is refused, or decided by an entry of the old set that still holds. Then the
/// new permissions are written, whose own exceptions stand already, and the old refusals go last.
pub fn steps(old: &Ways, new: &Ways) -> Vec<Step> {
    let writes = |leads: bool| {
        let new = new.iter().filter(move |(_, way)| **way == leads);
        let new = new.filter(|(place, way)| old.get(place) != Some(way));
        new.map(|((index, prefix), way)| Step::Write(*index, *prefix, *way))
    };
    let deletes = |led: bool| {
        let old = old.iter().filter(move |(_, way)| **way == led);
        let old = old.filter(|(place, _)| !new.contains_key(place));
        old.map(|((index, prefix), _)| Step::Delete(*index, *prefix))
    };
    writes(false)
        .chain(deletes(true))
        .chain(writes(true))
        .chain(deletes(false))
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (addr, length) = text.split_once('/').unwrap();
        Prefix::of(addr.parse().unwrap(), length.parse().unwrap()).unwrap()
    }

    fn number(addr: IpAddr) -> u128 {
        match addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// As the kernel's trie answers.
    fn leads(ways: &Ways, index: u32, addr: u128) -> bool {
        let around = ways.iter().filter(|((interface, prefix), _)| {
            *interface == index && prefix.first <= addr && addr <= prefix.last()
        });
        around
            .max_by_key(|((_, prefix), _)| prefix.length)
            .is_some_and(|(_, way)| *way)
    }

    /// A host whose routes are these, the longest deciding.
    fn host(routes: &BTreeMap<Prefix, BTreeSet<u32>>, addr: u128) -> BTreeSet<u32> {
        let family = |prefix: &Prefix| prefix.length >= 96 && prefix.first >> 32 == 0xffff;
        let v4 = addr >> 32 == 0xffff;
        let around = routes.iter().filter(|(prefix, _)| {
            family(prefix) == v4 && prefix.first <= addr && addr <= prefix.last()
        });
        around
            .max_by_key(|(prefix, _)| prefix.length)
            .map(|(_, by)| by.clone())
            .unwrap_or_default()
    }

    fn laid(routes: &BTreeMap<Prefix, BTreeSet<u32>>) -> Ways {
        let ask = |addr| Ok::<_, Infallible>(host(routes, number(addr)));
        lay_out(routes.keys().copied(), ask).unwrap()
    }

    #[test]
    fn a_laptop() {
        let routes = [
            ("0.0.0.0/0", vec![2]),
            ("127.0.0.0/8", vec![1]),
            ("192.0.2.0/24", vec![2]),
            ("192.0.2.10/32", vec![1]),
            ("172.17.0.0/16", vec![3]),
        ];
        let routes = routes.map(|(text, by)| (prefix(text), BTreeSet::from_iter(by)));
        let ways = laid(&routes.into());
        let expected = [
            ((1, "127.0.0.0/8"), true),
            ((1, "192.0.2.10/32"), true),
            ((2, "0.0.0.0/0"), true),
            ((2, "0.0.0.0/32"), false),
            ((2, "127.0.0.0/8"), false),
            ((2, "172.17.0.0/16"), false),
            ((2, "192.0.2.10/32"), false),
            ((2, "224.0.0.0/4"), false),
            ((2, "255.255.255.255/32"), false),
            ((3, "172.17.0.0/16"), true),
        ];
        let expected = expected.map(|((index, text), way)| ((index, prefix(text)), way));
        assert_eq!(ways, expected.into());
    }

    #[test]
    fn one_family_says_nothing_of_the_other() {
        let ways = laid(&[(prefix("::/0"), BTreeSet::from([2]))].into());
        assert!(!leads(&ways, 2, number("192.0.2.1".parse().unwrap())));
        assert!(leads(&ways, 2, number("2001:db8::1".parse().unwrap())));
        let ways = laid(&[(prefix("0.0.0.0/0"), BTreeSet::from([2]))].into());
        assert!(!leads(&ways, 2, number("2001:db8::1".parse().unwrap())));
    }

    #[test]
    fn odd_lengths_are_none() {
        assert_eq!(Prefix::of("10.0.0.0".parse().unwrap(), 33), None);
        assert_eq!(Prefix::of("10.0.0.0".parse().unwrap(), 255), None);
        assert_eq!(Prefix::of("::".parse().unwrap(), 129), None);
        let whole = Prefix::of("::1".parse().unwrap(), 0).unwrap();
        assert_eq!((whole.first, whole.last()), (0, u128::MAX));
    }

    const EDGES: [&str; 12] = [
        "0.0.0.1",
        "10.0.0.0",
        "10.0.0.1",
        "10.0.0.255",
        "10.128.0.0",
        "127.0.0.1",
        "192.0.2.1",
        "255.255.255.254",
        "::1",
        "2001:db8::1",
        "2001:db8:8000::",
        "fec0::1",
    ];

    fn routes() -> impl Strategy<Value = BTreeMap<Prefix, BTreeSet<u32>>> {
        let addr =
            prop::sample::select(&EDGES[..]).prop_map(|text| text.parse::<IpAddr>().unwrap());
        let route = (addr, 0..=128_u8).prop_map(|(addr, length)| {
            let bits = if addr.is_ipv4() { 33 } else { 129 };
            Prefix::of(addr, length % bits).unwrap()
        });
        let by = prop::collection::btree_set(1..4_u32, 0..3);
        prop::collection::btree_map(route, by, 0..12)
    }

    fn probes(all: &BTreeSet<Prefix>) -> Vec<u128> {
        let edges = EDGES.iter().map(|text| number(text.parse().unwrap()));
        let ends = all.iter().flat_map(|prefix| {
            let (first, last) = (prefix.first, prefix.last());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
        });
        let aside = |addr: &u128| {
            !ASIDE
                .iter()
                .any(|it| it.first <= *addr && *addr <= it.last())
        };
        edges.chain(ends).filter(aside).collect()
    }

    proptest! {
        #[test]
        fn the_table_says_what_the_host_does(routes in routes()) {
            let ways = laid(&routes);
            for addr in probes(&routes.keys().copied().collect()) {
                let by = host(&routes, addr);
                for index in 1..4 {
                    prop_assert_eq!(
                        leads(&ways, index, addr), by.contains(&index),
                        "{} by {}", Ipv6Addr::from_bits(addr), index
                    );
                }
            }
        }

        #[test]
        fn no_step_permits_what_neither_table_permits(old in routes(), new in routes()) {
            let (before, after) = (laid(&old), laid(&new));
            let places = old.keys().chain(new.keys()).copied().collect();
            let mut table = before.clone();
            for step in steps(&before, &after) {
                match step {
                    Step::Write(index, prefix, way) => {
                        table.insert((index, prefix), way);
                    }
                    Step::Delete(index, prefix) => {
                        table.remove(&(index, prefix));
                    }
                }
                for addr in probes(&places) {
                    for index in 1..4 {
                        let either = leads(&before, index, addr) || leads(&after, index, addr);
                        prop_assert!(either || !leads(&table, index, addr), "{:?}", step);
                    }
                }
            }
            prop_assert_eq!(table, after);
        }
    }
}
