//! Reading along: what the client says to the connector is known to the proxy before the connector
//! has it, so a call is known before any request that it causes.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc as threads},
    time::Duration,
};

use egress_envelope::mcp::{Heard, Wire};
use tokio::sync::mpsc;

use super::spec::Order;
use crate::launch::stdio::Tap;

/// How long a line waits for the proxy. One that has not taken it by then knows too little, and
/// refuses what it does not know.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
/// Orders that may wait for the proxy.
const ORDERS: usize = 1_024;

/// Something for the proxy that was heard.
#[derive(Debug)]
pub struct Tapped {
    pub(super) order: Order,
    /// Told when it is written.
    pub(super) done: Option<threads::Sender<()>>,
}

/// A tap, and what comes out of it.
pub fn tap() -> (Tap, mpsc::Receiver<Tapped>) {
    let (orders, tapped) = mpsc::channel(ORDERS);
    let wire = Arc::new(Mutex::new(Wire::new()));
    let (server, answers) = (Arc::clone(&wire), orders.clone());
    let tap = Tap {
        client: Box::new(move |bytes| client(&wire, &orders, bytes)),
        server: Box::new(move |bytes| {
            let mut heard = |heard| {
                // Of an end that is not told a call counts as under way for longer.
                let order = order(heard);
                let _full = answers.try_send(Tapped { order, done: None });
            };
            lock(&server).server(bytes, &mut heard);
        }),
    };
    (tap, tapped)
}

/// What the client wrote. Comes back when the proxy's pipe has all of it.
fn client(wire: &Mutex<Wire>, orders: &mpsc::Sender<Tapped>, bytes: &[u8]) {
    let (done, written) = threads::channel();
    let mut told = false;
    lock(wire).client(bytes, &mut |heard| {
        let done = Some(done.clone());
        let order = order(heard);
        // A proxy that is gone or does not listen knows too little, and refuses.
        told |= orders.try_send(Tapped { order, done }).is_ok();
    });
    drop(done);
    if told {
        // Until the last one is written: they go in their order.
        while written.recv_timeout(HEARD_WITHIN).is_ok() {}
    }
}

fn order(heard: Heard) -> Order {
    match heard {
        Heard::Called(call) => Order::Called(call),
        Heard::Ended(id) => Order::Ended(id),
        Heard::Unread(_) => Order::Missed,
    }
}

/// No panic can leave the wire half read in a way that names more.
fn lock(wire: &Mutex<Wire>) -> std::sync::MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}
