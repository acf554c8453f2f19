//! Which loopback address stands for which name. Pure; time is an argument.

use std::{collections::HashMap, net::Ipv4Addr};

use egress_common::{abi::PROXY_HOST_BITS, proxied::in_range};

use crate::policy::name::Name;

/// The first address that stands for a name: the one before is the forwarder's own.
const FIRST: u32 = 2;
/// Behind the last one, the range's broadcast address in the eyes of some.
const END: u32 = (1 << PROXY_HOST_BITS) - 1;

/// The addresses of one range.
#[derive(Debug)]
pub struct Places {
    net: u32,
    next: u32,
    names: HashMap<Name, Place>,
    at: HashMap<Ipv4Addr, Name>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    address: Ipv4Addr,
    /// Until when it is granted. Boot clock, nanoseconds.
    until_ns: u64,
    /// The forwarder knows it.
    known: bool,
}

impl Places {
    /// A range of which no address stands for anything yet.
    pub fn new(net: Ipv4Addr) -> Self {
        Self {
            net: net.to_bits(),
            next: FIRST,
            names: HashMap::new(),
            at: HashMap::new(),
        }
    }

    /// The address that stands for a name until `until_ns` at least, and whether the forwarder
    /// knows it. One is taken from another name only when that has not been granted for as long as
    /// all others, and is not any more. `None`: all are in use.
    pub fn take(&mut self, name: &Name, now_ns: u64, until_ns: u64) -> Option<(Ipv4Addr, bool)> {
        if let Some(place) = self.names.get_mut(name) {
            place.until_ns = place.until_ns.max(until_ns);
            return Some((place.address, place.known));
        }
        let address = self.unused().or_else(|| self.left(now_ns))?;
        let place = Place {
            address,
            until_ns,
            known: false,
        };
        self.names.insert(name.clone(), place);
        self.at.insert(address, name.clone());
        Some((address, false))
    }

    /// Notes that the forwarder knows what an address stands for.
    pub fn learned(&mut self, name: &Name, address: Ipv4Addr) {
        if let Some(place) = self.names.get_mut(name)
            && place.address == address
        {
            place.known = true;
        }
    }

    /// The name that an address stands for.
    pub fn name_at(&self, address: Ipv4Addr) -> Option<&Name> {
        self.at.get(&address)
    }

    /// Whether an address is of this range.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        in_range(address.to_bits(), self.net)
    }

    fn unused(&mut self) -> Option<Ipv4Addr> {
        if self.next >= END {
            return None;
        }
        let address = Ipv4Addr::from_bits(self.net | self.next);
        self.next = self.next.saturating_add(1);
        Some(address)
    }

    fn left(&mut self, now_ns: u64) -> Option<Ipv4Addr> {
        let ended = self.names.iter().filter(|(_, it)| it.until_ns <= now_ns);
        let (name, _) = ended.min_by_key(|(_, it)| it.until_ns)?;
        let name = name.clone();
        let place = self.names.remove(&name)?;
        self.at.remove(&place.address);
        Some(place.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET: Ipv4Addr = Ipv4Addr::new(127, 64, 16, 0);

    fn name(number: u32) -> Name {
        Name::parse(&format!("n{number}.example")).unwrap_or_else(|error| unreachable!("{error}"))
    }

    #[test]
    fn a_name_keeps_its_address() {
        let mut places = Places::new(NET);
        let first = Some((Ipv4Addr::new(127, 64, 16, 2), false));
        assert_eq!(places.take(&name(0), 0, 10), first);
        assert_eq!(places.take(&name(0), 0, 20), first, "not learned yet");
        places.learned(&name(0), Ipv4Addr::new(127, 64, 16, 9));
        assert_eq!(places.take(&name(0), 0, 20), first, "another address");
        places.learned(&name(0), Ipv4Addr::new(127, 64, 16, 2));
        assert_eq!(places.take(&name(0), 0, 5).map(|it| it.1), Some(true));
        assert_ne!(
            places.take(&name(1), 0, 5).map(|it| it.0),
            first.map(|it| it.0)
        );
        assert_eq!(
            places.name_at(Ipv4Addr::new(127, 64, 16, 2)),
            Some(&name(0))
        );
    }

    #[test]
    fn addresses_run_out_and_only_those_that_ended_are_given_again() {
        let mut places = Places::new(NET);
        let all: Vec<_> = (FIRST..END)
            .filter_map(|number| places.take(&name(number), 0, u64::from(number)))
            .map(|(address, _)| address)
            .collect();
        assert_eq!(all.len(), 4093);
        assert!(all.iter().all(|&address| places.holds(address)));
        assert!(!places.holds(Ipv4Addr::new(127, 64, 32, 2)));
        assert_eq!(places.take(&name(9999), 1, 99_999), None);
        let again = places.take(&name(9999), 2, 99_999);
        assert_eq!(again, Some((Ipv4Addr::new(127, 64, 16, 2), false)));
        assert_eq!(
            places.name_at(Ipv4Addr::new(127, 64, 16, 2)),
            Some(&name(9999))
        );
        assert_eq!(
            places.take(&name(FIRST), 2, 99_999),
            None,
            "its address is gone"
        );
    }
}
