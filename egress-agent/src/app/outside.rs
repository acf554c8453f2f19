//! What happens outside of a connector while it runs: signals, callers that are gone, a policy to
//! read again.

use std::{collections::VecDeque, io};

use nix::sys::signal::Signal;
use tokio::sync::mpsc;

use crate::launch::Started;

/// Orders that may wait.
const WAITING: usize = 16;

/// Something that a connector, or what is around it, has to be told.
#[derive(Debug)]
pub(super) enum Order {
    /// For its first process.
    Signal(Signal),
    /// Read the policy again.
    Read,
    /// Whoever started it is gone; who, and that it is gone, as a beginning of a sentence.
    Gone(String),
}

/// Hears once that the connector runs.
type Tell = Box<dyn FnOnce(&Started) -> io::Result<()> + Send>;

/// Where a session hears of what happens outside, and who hears that it has started.
pub(super) struct Outside {
    orders: mpsc::Receiver<Order>,
    kept: VecDeque<Order>,
    started: Option<Tell>,
}

impl Outside {
    /// Orders come from the answered sender. `started` is called once the connector runs.
    pub(super) fn new(
        started: impl FnOnce(&Started) -> io::Result<()> + Send + 'static,
    ) -> (mpsc::Sender<Order>, Self) {
        let (sender, orders) = mpsc::channel(WAITING);
        let outside = Self {
            orders,
            kept: VecDeque::new(),
            started: Some(Box::new(started)),
        };
        (sender, outside)
    }

    /// The next order; never, once nobody is left to give one. Safe to cancel.
    pub(super) async fn next(&mut self) -> Order {
        match self.kept.pop_front() {
            Some(order) => order,
            None => self.receive().await,
        }
    }

    /// Waits for the signal that ends a start; other orders are kept. Safe to cancel.
    pub(super) async fn end(&mut self) -> Signal {
        loop {
            match self.receive().await {
                Order::Signal(signal) => return signal,
                Order::Gone(_) => return Signal::SIGHUP,
                order @ Order::Read => self.kept.push_back(order),
            }
        }
    }

    /// The connector runs.
    pub(super) fn started(&mut self, started: &Started) -> io::Result<()> {
        self.started.take().map_or(Ok(()), |tell| tell(started))
    }

    async fn receive(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}
