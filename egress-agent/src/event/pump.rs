//! The thread that carries the evidence of one data plane: ring and doors in, lines out.
//!
//! A thread of its own, because it reads /proc and writes files, and neither may hold up an
//! answer of a DNS door. Each connector has an account, with refusals that wait in a place of its
//! own and lines that go to sinks of its own; a record of the ring goes to the account of the
//! connector whose number it has, and to no other one.

use std::{
    collections::{BTreeMap, HashMap},
    future::poll_fn,
    ops::Bound,
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    account::{Account, Owner},
    call::RefusedCall,
    decode::decode,
    model::{Body, Exit},
    sink::SinkError,
};
use crate::{
    dns::Refusal,
    kernel::{
        PlaneError,
        maps::Maps,
        ring::{Ring, RingMap},
    },
};

/// Records taken from the ring before anything else gets its turn.
const BATCH: usize = 1024;
/// With more than this many records at once, nothing slow is done for each.
const BACKLOG: usize = 64;
/// How often the exact counters are compared with what was shown.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// Why the evidence cannot be carried on.
#[derive(Debug, thiserror::Error)]
pub enum PumpError {
    /// An event file cannot be opened.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A thread of the stream cannot be started.
    #[error("cannot start the event stream: {0}")]
    Thread(#[source] std::io::Error),
    /// The counters cannot be read.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The thread ended early.
    #[error("the event stream ended early; denials are still enforced and counted")]
    Gone,
}

/// The running thread, which ends with the last of its handles.
#[derive(Clone)]
pub struct Pump {
    orders: mpsc::UnboundedSender<(u32, Order)>,
}

/// One connector's way to the thread.
pub struct Telling {
    id: u32,
    orders: mpsc::UnboundedSender<(u32, Order)>,
}

enum Order {
    Open(Box<(Owner, Mail)>),
    Say(Box<Body>),
    Learn(HashMap<u32, String>),
    Baseline(oneshot::Sender<Result<(), PlaneError>>),
    Finish(Exit, oneshot::Sender<()>),
    Close,
}

/// Where refusals of one connector wait.
pub struct Mail {
    /// Those of its DNS door.
    pub refusals: mpsc::Receiver<Refusal>,
    /// System calls that were refused.
    pub calls: mpsc::Receiver<RefusedCall>,
}

impl Pump {
    /// Starts the thread. The first account that is opened has the records of processes without
    /// a connector, too.
    pub fn start(ring: RingMap, maps: Arc<Maps>) -> Result<Self, PumpError> {
        let (orders, ordered) = mpsc::unbounded_channel();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(PumpError::Thread)?;
        let ring = {
            let _inside = runtime.enter();
            ring.open()?
        };
        let running = Running {
            ring,
            accounts: Accounts {
                maps,
                by_id: BTreeMap::new(),
                beside: BTreeMap::new(),
                host: None,
            },
            mail: BTreeMap::new(),
            last: 0,
        };
        thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || runtime.block_on(running.run(ordered)))
            .map_err(PumpError::Thread)?;
        Ok(Self { orders })
    }

    /// Opens the account of a connector.
    pub fn open(&self, owner: Owner, mail: Mail) -> Telling {
        let telling = Telling {
            id: owner.id,
            orders: self.orders.clone(),
        };
        telling.order(Order::Open(Box::new((owner, mail))));
        telling
    }
}

impl Telling {
    /// Writes a line about something that happened now.
    pub fn say(&self, body: Body) {
        self.order(Order::Say(Box::new(body)));
    }

    /// Adds names of rules by their slots, before anything is decided by them.
    pub fn learn(&self, rules: HashMap<u32, String>) {
        self.order(Order::Learn(rules));
    }

    /// Begins the account. Until now only the launcher has run, and what was refused is its
    /// probe of the boundary.
    pub async fn baseline(&self) -> Result<(), PumpError> {
        let (done, wait) = oneshot::channel();
        self.order(Order::Baseline(done));
        Ok(wait.await.map_err(|_| PumpError::Gone)??)
    }

    /// Reads everything that is left, writes the summary, and closes the files.
    pub async fn finish(self, exit: Exit) -> Result<(), PumpError> {
        let (done, wait) = oneshot::channel();
        self.order(Order::Finish(exit, done));
        wait.await.map_err(|_| PumpError::Gone)
    }

    fn order(&self, order: Order) {
        // A thread that is gone has been reported by whoever waits for it.
        let _gone = self.orders.send((self.id, order));
    }
}

/// An account without a summary is that of a start that failed.
impl Drop for Telling {
    fn drop(&mut self) {
        self.order(Order::Close);
    }
}

struct Running {
    ring: Ring,
    accounts: Accounts,
    mail: BTreeMap<u32, Mail>,
    /// Whose refusal came last: the next one's turn is another's.
    last: u32,
}

/// The accounts, and whose each record is.
struct Accounts {
    maps: Arc<Maps>,
    by_id: BTreeMap<u32, Account>,
    /// Processes beside connectors, and whose each is.
    beside: BTreeMap<u32, u32>,
    /// Who has the records of processes without a connector.
    host: Option<u32>,
}

enum Heard {
    Refusal(Refusal),
    Call(RefusedCall),
}

impl Running {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<(u32, Order)>) {
        let mut compare = interval(COMPARE_EVERY);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watched = true;
        loop {
            tokio::select! {
                read = self.ring.read(BATCH, self.accounts.taker()), if watched => {
                    if read.is_err() {
                        // The counters stay exact; the summary says what was not shown.
                        watched = false;
                    }
                    self.accounts.flush();
                }
                (id, heard) = heard(&mut self.mail, self.last) => {
                    self.last = id;
                    self.accounts.hear(id, heard, false);
                    self.rest(id);
                    self.accounts.flush_one(id);
                }
                order = orders.recv() => match order {
                    Some((id, order)) => self.carry_out(id, order),
                    None => return,
                },
                _ = compare.tick() => {
                    self.ring.drain(self.accounts.taker());
                    self.accounts.compare();
                }
            }
        }
    }

    fn carry_out(&mut self, id: u32, order: Order) {
        match order {
            Order::Open(opened) => {
                let (owner, mail) = *opened;
                self.mail.insert(id, mail);
                self.accounts.open(owner);
            }
            Order::Say(body) => {
                if let Some(account) = self.accounts.by_id.get_mut(&id) {
                    account.say(*body);
                    account.flush();
                }
            }
            Order::Learn(rules) => {
                let Accounts { maps, by_id, .. } = &mut self.accounts;
                if let Some(account) = by_id.get_mut(&id) {
                    account.learn(rules, maps);
                }
            }
            Order::Baseline(done) => {
                // The record of the launcher's probe is in there.
                self.ring.drain(self.accounts.taker());
                let Accounts { maps, by_id, .. } = &mut self.accounts;
                if let Some(account) = by_id.get_mut(&id) {
                    let _asker_gone = done.send(account.baseline(maps));
                }
            }
            Order::Finish(exit, done) => {
                self.rest(id);
                self.ring.drain(self.accounts.taker());
                let Accounts { maps, by_id, .. } = &mut self.accounts;
                if let Some(account) = by_id.get_mut(&id) {
                    account.finish(exit, maps);
                }
                self.close(id);
                let _asker_gone = done.send(());
            }
            Order::Close => self.close(id),
        }
    }

    /// The refusals that wait already.
    fn rest(&mut self, id: u32) {
        let Some(mail) = self.mail.get_mut(&id) else {
            return;
        };
        while let Ok(refusal) = mail.refusals.try_recv() {
            self.accounts.hear(id, Heard::Refusal(refusal), true);
        }
        while let Ok(call) = mail.calls.try_recv() {
            self.accounts.hear(id, Heard::Call(call), true);
        }
    }

    fn close(&mut self, id: u32) {
        self.mail.remove(&id);
        self.accounts.by_id.remove(&id);
        self.accounts.beside.retain(|_, owner| *owner != id);
        if self.accounts.host == Some(id) {
            self.accounts.host = None;
        }
    }
}

/// The next refusal of any connector; those behind `last` first, so that none of them waits
/// for the end of another's flood.
async fn heard(mail: &mut BTreeMap<u32, Mail>, last: u32) -> (u32, Heard) {
    poll_fn(|context| {
        let behind = (Bound::Excluded(last), Bound::Unbounded);
        let ids: Vec<u32> = (mail.range(behind).map(|(id, _)| *id))
            .chain(mail.range(..=last).map(|(id, _)| *id))
            .collect();
        for id in ids {
            let Some(mail) = mail.get_mut(&id) else {
                continue;
            };
            if let Poll::Ready(Some(refusal)) = mail.refusals.poll_recv(context) {
                return Poll::Ready((id, Heard::Refusal(refusal)));
            }
            if let Poll::Ready(Some(call)) = mail.calls.poll_recv(context) {
                return Poll::Ready((id, Heard::Call(call)));
            }
        }
        Poll::Pending
    })
    .await
}

impl Accounts {
    fn open(&mut self, owner: Owner) {
        let (id, beside) = (owner.id, owner.beside);
        let is_host = self.host.is_none();
        if is_host {
            self.host = Some(id);
        }
        if let Some(beside) = beside {
            self.beside.insert(beside, id);
        }
        let account = Account::open(owner, &self.maps, is_host);
        self.by_id.insert(id, account);
    }

    /// Turns each record into a line of its connector's.
    fn taker(&mut self) -> impl FnMut(&[u8]) {
        let mut taken = 0_usize;
        move |bytes| {
            taken = taken.saturating_add(1);
            match decode(bytes) {
                Ok(decoded) => {
                    if let Some(account) = self.of(decoded.event.connector) {
                        account.record(&decoded, taken > BACKLOG);
                    }
                }
                // One that cannot be read is counted as malformed.
                Err(_) => {
                    if let Some(account) = self.host.and_then(|id| self.by_id.get_mut(&id)) {
                        account.malformed();
                    }
                }
            }
        }
    }

    /// Whose a record is. One of a connector that nobody knows is nobody's: it has ended, and its
    /// counters were read.
    fn of(&mut self, connector: u32) -> Option<&mut Account> {
        let owner = match connector {
            0 => self.host?,
            id => self.beside.get(&id).copied().unwrap_or(id),
        };
        self.by_id.get_mut(&owner)
    }

    fn hear(&mut self, id: u32, heard: Heard, backlog: bool) {
        let Some(account) = self.by_id.get_mut(&id) else {
            return;
        };
        match heard {
            Heard::Refusal(refusal) => account.refusal(&refusal, &self.maps, backlog),
            Heard::Call(call) => account.call(&call, backlog),
        }
    }

    fn flush(&mut self) {
        self.by_id.values_mut().for_each(Account::flush);
    }

    fn flush_one(&mut self, id: u32) {
        if let Some(account) = self.by_id.get_mut(&id) {
            account.flush();
        }
    }

    fn compare(&mut self) {
        for account in self.by_id.values_mut() {
            account.compare(&self.maps);
        }
    }
}
