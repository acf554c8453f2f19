//! Keeps the data plane's table of routes as the host's routing is.

use std::{future::pending, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep},
};

use crate::{
    host::{
        routes::look,
        rtnetlink::{Changes, Groups},
        ways::Ways,
    },
    kernel::{PlaneError, routes::RouteTable},
};

/// Routes come and go in groups: how long to wait for the rest of one.
const SETTLED: Duration = Duration::from_millis(2);
/// The shortest time between two looks.
const APART: Duration = Duration::from_millis(20);
/// How often it is looked without word of a change: which of several routers IPv6 takes, it tells
/// nobody.
const REGARDLESS: Duration = Duration::from_secs(10);
/// The same, where the kernel tells of no changes.
const DEAF: Duration = Duration::from_secs(1);

/// The table of routes of one connector, and who keeps it.
pub(super) struct Following {
    table: RouteTable,
    connector: u32,
    user: u32,
    /// `None`: the kernel tells of no changes.
    changes: Option<Changes>,
    /// What keeps the table empty, as far as it was said.
    said: Option<String>,
}

impl Following {
    /// Fills the table for the first time, for datagrams of `user`. Answers what to tell the
    /// operator where that fails; the table is empty then.
    pub(super) fn begin(table: RouteTable, connector: u32, user: u32) -> (Self, Option<String>) {
        let mut following = Self {
            table,
            connector,
            user,
            // Before the first look, so that no change falls between them.
            changes: Changes::listen(Groups::ROUTES).ok(),
            said: None,
        };
        let told = following.enter(look(user).map_err(|error| error.to_string()));
        (following, told)
    }

    /// Follows changes until `stop`. Lines for the operator go to `lines`.
    pub(super) fn start(
        self,
        lines: mpsc::Sender<String>,
        stop: watch::Receiver<bool>,
    ) -> JoinHandle<()> {
        tokio::spawn(self.follow(lines, stop))
    }

    async fn follow(mut self, lines: mpsc::Sender<String>, mut stop: watch::Receiver<bool>) {
        let mut every = again(if self.changes.is_some() {
            REGARDLESS
        } else {
            DEAF
        });
        loop {
            tokio::select! {
                _ = every.tick() => {}
                () = changed(self.changes.as_ref()) => sleep(SETTLED).await,
                _ = stop.changed() => return,
            }
            if let Some(changes) = &self.changes
                && changes.take().is_err()
            {
                // Looked at regardless, from here on.
                self.changes = None;
                every = again(DEAF);
            }
            let user = self.user;
            let found = match spawn_blocking(move || look(user)).await {
                Ok(found) => found.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Some(line) = self.enter(found) {
                // One that finds no room says what those before it say.
                let _full = lines.try_send(line);
            }
            sleep(APART).await;
        }
    }

    /// Puts what was found into the table, or nothing. Answers what to tell the operator.
    fn enter(&mut self, found: Result<Ways, String>) -> Option<String> {
        let entered = found.and_then(|ways| self.replace(ways).map_err(|error| error.to_string()));
        let why = match entered {
            Ok(()) => {
                return self.said.take().map(|_| {
                    "the routes of this host are known again, and datagrams leave by them"
                        .to_owned()
                });
            }
            Err(why) => match self.replace(Ways::new()) {
                Ok(()) => why,
                Err(error) => format!("{why}; {error}"),
            },
        };
        if self.said.as_ref() == Some(&why) {
            return None;
        }
        let line = format!(
            "{why}: until they can be followed, datagrams leave by no interface and are refused \
             for the reason “interface”; TCP is not concerned (docs/networks.md)"
        );
        self.said = Some(why);
        Some(line)
    }

    fn replace(&mut self, ways: Ways) -> Result<(), PlaneError> {
        self.table.replace(self.connector, ways)
    }
}

async fn changed(changes: Option<&Changes>) {
    match changes {
        // An error is met again where the rest is taken.
        Some(changes) => drop(changes.next().await),
        None => pending().await,
    }
}

/// Not at once: the first look was at the beginning.
fn again(period: Duration) -> Interval {
    let mut every = interval_at(Instant::now() + period, period);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}
