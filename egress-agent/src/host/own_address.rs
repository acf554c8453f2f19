//! Which addresses are this host's own, as its routing says: also secondary ones, whole ranges
//! that are routed to it (`ip route add local …`), and those that come later.

use std::{io, net::IpAddr};

use super::{
    netlink::array,
    rtnetlink::{Question, Rtnetlink},
};

/// Where `struct rtmsg` has its `rtm_type`.
const ROUTE_TYPE: usize = 7;
/// `RTN_LOCAL`, `RTN_BROADCAST`, `RTN_ANYCAST`: what this host takes itself.
const OWN: [u8; 3] = [2, 3, 4];

/// Whether packets to an address stay on this host (its network namespace). Also true where the
/// kernel cannot be asked.
pub fn is_own(address: IpAddr) -> bool {
    ask(address).unwrap_or(true)
}

/// Asks for the route to an address, of any user and mark (rtnetlink(7)).
fn ask(address: IpAddr) -> io::Result<bool> {
    // Where there is no route, there is none to here either. What cannot be read is no answer.
    Ok(
        match Rtnetlink::open()?.route(address, Question::default())? {
            Ok(route) => array::<1>(&route, ROUTE_TYPE).is_none_or(|[kind]| OWN.contains(&kind)),
            Err(_no_route) => false,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_own_and_documentation_is_not() {
        for own in ["127.0.0.1", "127.3.2.1", "::ffff:127.0.0.1"] {
            let address = own.parse().unwrap_or_else(|error| unreachable!("{error}"));
            assert!(is_own(address), "{own}");
        }
        for other in ["203.0.113.7", "2001:db8::7"] {
            let address = other
                .parse()
                .unwrap_or_else(|error| unreachable!("{error}"));
            assert!(!is_own(address), "{other}");
        }
    }
}
