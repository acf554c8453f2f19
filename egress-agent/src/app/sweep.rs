//! Takes back grants whose time is over, or that lead to this host itself.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    dns::Names,
    grant::Keeper,
    host::{
        clock,
        rtnetlink::{Changes, Groups},
    },
};

/// The shortest time between two looks at what is this host's own. Long enough for routes that
/// come and go in groups, short beside the time that somebody needs to listen there.
const APART: Duration = Duration::from_millis(50);
/// A look asks the kernel once for each address, and a router's routes change all the time: so many
/// times what it took is waited as well.
const REST: u32 = 9;

/// Deletes ended grants now and then: the kernel refuses them by itself, this makes room. Takes
/// back what leads to an address that has become this host's own.
pub(super) async fn sweep(keeper: Arc<Keeper>, names: Arc<Names>, mut stop: watch::Receiver<bool>) {
    let mut every = tokio::time::interval(Duration::from_secs(10));
    // Routes, not addresses alone: an address is told of before the route that makes it this
    // host's own is there (`__inet_insert_ifa` in net/ipv4/devinet.c, `__ipv6_ifa_notify` in
    // net/ipv6/addrconf.c), and whole ranges have no address. Where the kernel tells of no
    // changes, they are seen with the next turn.
    let changes = Changes::listen(Groups::ROUTES).ok();
    loop {
        let changed = async {
            match &changes {
                Some(changes) if changes.next().await.is_ok() => {}
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = every.tick() => {
                // A failed deletion leaves an entry that the kernel already refuses.
                let _next_time = keeper.sweep(clock::boot_ns());
            }
            () = changed => {}
            _ = stop.changed() => return,
        }
        let began = Instant::now();
        // One that is left is tried again with the next turn.
        let _next_time = names.forget_own();
        sleep(APART.max(began.elapsed().saturating_mul(REST))).await;
    }
}
