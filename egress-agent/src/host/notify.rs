//! What a service manager is told (sd_notify(3)), where one listens.

use std::{
    env,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// How often nobody is told that the daemon lives.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// The service manager; or nobody.
pub struct Supervisor {
    at: Option<(UnixDatagram, SocketAddr)>,
    every: Duration,
}

impl Supervisor {
    /// By `NOTIFY_SOCKET` and `WATCHDOG_USEC` of the environment.
    pub fn find() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let bytes = name.as_encoded_bytes();
            match bytes.split_first() {
                Some((b'@', rest)) => SocketAddr::from_abstract_name(rest).ok(),
                _ => SocketAddr::from_pathname(&name).ok(),
            }
        });
        let watchdog = env::var("WATCHDOG_USEC").ok();
        let watchdog = watchdog.and_then(|text| text.parse().ok());
        Self {
            at: UnixDatagram::unbound().ok().zip(address),
            // Twice as often as it must be.
            every: watchdog.map_or(NEVER, |micros: u64| {
                Duration::from_micros((micros / 2).max(1))
            }),
        }
    }

    /// Says one line.
    pub fn say(&self, line: &str) {
        if let Some((socket, address)) = &self.at {
            // A manager that does not listen ends the unit by its own means.
            let _not_heard = socket.send_to_addr(line.as_bytes(), address);
        }
    }

    /// How often it wants to hear `WATCHDOG=1`.
    pub fn every(&self) -> Duration {
        self.every
    }
}
