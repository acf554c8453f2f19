//! The proxy's side of the pipes: what the agent orders, and what it is told.

use std::io::{self, ErrorKind};

use nix::{errno::Errno, unistd::read};
use tokio::{io::AsyncWriteExt as _, net::unix::pipe, sync::mpsc};

use super::{
    shared::{Settle, Shared},
    spec::{Order, Said},
};

/// What is read at once. Bytes.
const PIECE: usize = 64 * 1024;
/// Longest line of the agent's: all tables, at a change of policy. Bytes.
const MAX_LINE: usize = 32 << 20;

/// The agent's orders, line by line.
pub(super) struct Orders {
    pipe: pipe::Receiver,
    line: Vec<u8>,
    /// Nothing more comes.
    ended: bool,
    /// Orders that were carried out and not answered yet, for want of room.
    owed: usize,
}

impl Orders {
    pub(super) fn new(pipe: pipe::Receiver) -> Self {
        Self {
            pipe,
            line: Vec::new(),
            ended: false,
            owed: 0,
        }
    }

    /// Carries out orders as they come. Whoever settles is told once everything is carried out that
    /// had been written before it asked.
    pub(super) async fn carry_out(
        mut self,
        shared: &Shared,
        mut settles: mpsc::Receiver<Settle>,
        said: mpsc::Sender<Said>,
    ) {
        loop {
            tokio::select! {
                ready = self.pipe.readable(), if !self.ended => {
                    if ready.is_err() || self.take(shared, Way::Noted).is_err() {
                        self.ended = true;
                    }
                }
                // Whoever waits for an answer waits for this one: answers go in their order.
                room = said.reserve(), if self.owed > 0 => {
                    if let Ok(room) = room {
                        room.send(Said::Learned);
                    }
                    self.owed = self.owed.saturating_sub(1);
                }
                settle = settles.recv() => {
                    let Some(settle) = settle else {
                        return;
                    };
                    if !self.ended && self.take(shared, Way::Now).is_err() {
                        self.ended = true;
                    }
                    // Who asked may be gone. Without an agent nothing more is named, and what is
                    // not known is refused.
                    let _gone = settle.send(());
                }
            }
        }
    }

    /// Reads what there is, and carries out whole lines. An error: there is no agent any more, or
    /// none that is understood.
    fn take(&mut self, shared: &Shared, way: Way) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            let length = match way {
                Way::Noted => self.pipe.try_read(&mut piece),
                // What the runtime knows of the pipe may be older than what lies in it.
                Way::Now => read(&self.pipe, &mut piece).map_err(|error| match error {
                    Errno::EAGAIN => ErrorKind::WouldBlock.into(),
                    error => error.into(),
                }),
            };
            match length {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    for &byte in piece.iter().take(length) {
                        if byte == b'\n' {
                            let order = serde_json::from_slice(&self.line)?;
                            self.line.clear();
                            let answered = carry_out(order, shared);
                            self.owed = self.owed.saturating_add(usize::from(answered));
                        } else {
                            self.line.push(byte);
                        }
                    }
                    if self.line.len() > MAX_LINE {
                        return Err(ErrorKind::InvalidData.into());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// How the pipe is read.
#[derive(Clone, Copy)]
enum Way {
    /// When the runtime has noted that there is something.
    Noted,
    /// At once.
    Now,
}

/// Carries an order out. Answers whether that is to be said.
fn carry_out(order: Order, shared: &Shared) -> bool {
    match order {
        Order::Learn { address, name } => {
            shared.learn(address, name);
            return true;
        }
        Order::Upstream { name, addresses } => {
            shared.is_at(name, addresses);
            return true;
        }
        Order::Rules(rules) => shared.inspect(rules),
        Order::Baseline(baseline) => *shared.baseline() = baseline,
        Order::Called(call) => shared.ledger().called(call),
        Order::Ended(id) => shared.ledger().ended(&id),
        Order::Missed => shared.ledger().missed(),
    }
    false
}

/// Writes what is said. An agent that is gone hears nothing, and nobody waits for it.
pub(super) async fn answer(mut answers: pipe::Sender, mut written: mpsc::Receiver<Said>) {
    let mut gone = false;
    while let Some(said) = written.recv().await {
        let Ok(mut line) = serde_json::to_vec(&said) else {
            continue;
        };
        line.push(b'\n');
        gone = gone || answers.write_all(&line).await.is_err();
    }
}
