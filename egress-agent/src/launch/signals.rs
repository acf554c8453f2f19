//! Signals that belong to the connector.
//!
//! It is in a session of its own, so the terminal's signals reach the agent alone, which
//! passes them on. SIGHUP is not among them: it tells the agent to read its policy again.

use std::{future::poll_fn, io, os::fd::BorrowedFd, task::Poll};

use nix::sys::signal::Signal;
use rustix::process::pidfd_send_signal;
use tokio::signal::unix::{SignalKind, signal};

/// What is passed on.
const FORWARDED: &[Signal] = &[
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// The signals that came. From its making on none of them ends the agent.
pub struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    /// Begins to listen. Must be called inside a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        let listen = |&number: &Signal| {
            signal(SignalKind::from_raw(number as i32)).map(|stream| (number, stream))
        };
        FORWARDED
            .iter()
            .map(listen)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Waits for one. Safe to cancel.
    pub async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (number, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Passes a signal on to the connector's first process. `false`: it belongs to somebody whom this
/// process may not signal.
pub fn forward(signal: Signal, process: BorrowedFd<'_>) -> bool {
    let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) else {
        return true;
    };
    // A connector that is gone is seen by whoever waits for it.
    !matches!(
        pidfd_send_signal(process, signal),
        Err(rustix::io::Errno::PERM)
    )
}
