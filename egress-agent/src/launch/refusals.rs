//! The agent's answer to system calls that the filter does not let through: always no, and a line.
//!
//! A thread of its own, which waits for nothing that the connector does: the caller stands still
//! until it is answered, and what is read about it (`/proc/TID/status`, `stat`) takes none of its
//! memory.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    thread,
};

use egress_sys::notify::{Call, Listener};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::mpsc;

use super::filter::{Meaning, meaning};
use crate::{
    event::{CallRepeats, CallStats, RefusedCall},
    host::{
        clock::boot_ns,
        process::{Thread, thread_group},
    },
};

const STACK: usize = 128 * 1024;

/// Where the evidence goes.
#[derive(Clone)]
pub struct Telling {
    /// Exact counters.
    pub stats: Arc<CallStats>,
    /// Lines; what finds no room there stays in the counters.
    pub lines: mpsc::Sender<RefusedCall>,
}

/// Answers for a connector until its last process is gone.
pub fn start(listener: OwnedFd, telling: Telling) -> io::Result<()> {
    let answering = Answering {
        listener: Listener::new(listener),
        telling,
        repeats: CallRepeats::default(),
    };
    let thread = thread::Builder::new().name("refusals".to_owned());
    thread.stack_size(STACK).spawn(move || answering.run())?;
    Ok(())
}

struct Answering {
    listener: Listener,
    telling: Telling,
    repeats: CallRepeats,
}

impl Answering {
    /// With this thread the descriptor goes: then the kernel refuses.
    fn run(mut self) {
        while self.turn().is_ok_and(|goes_on| goes_on) {}
    }

    /// Waits for a call and answers it. `false`: nobody is left who could make one.
    fn turn(&mut self) -> io::Result<bool> {
        let mut ready = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let found = ready.first().and_then(PollFd::revents);
        let found = found.unwrap_or(PollFlags::empty());
        if !found.contains(PollFlags::POLLIN) {
            return Ok(!found.intersects(PollFlags::POLLHUP | PollFlags::POLLERR));
        }
        if let Some(call) = self.listener.receive()? {
            self.answer(&call)?;
        }
        Ok(true)
    }

    fn answer(&mut self, call: &Call) -> io::Result<()> {
        let meaning = meaning(call);
        let caller = thread_group(call.tid).filter(|_| self.listener.waits(call.id));
        let ended = meaning.ends && self.end(call, caller.as_ref());
        let refused = self.listener.refuse(call.id, meaning.errno)?;
        // One that was interrupted tries again, and counts then.
        if refused || ended {
            self.tell(&meaning, caller);
        }
        Ok(())
    }

    /// Ends a program for another machine: none of its calls can be let through, not even the
    /// one by which it would end itself.
    fn end(&self, call: &Call, caller: Option<&Thread>) -> bool {
        let pid = caller.and_then(|caller| i32::try_from(caller.pid).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return false;
        };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
            return false;
        };
        // It still waits, so the descriptor is its own and nobody's who came after it.
        self.listener.waits(call.id) && pidfd_send_signal(&process, Signal::KILL).is_ok()
    }

    fn tell(&mut self, meaning: &Meaning, caller: Option<Thread>) {
        let Meaning { name, reason, .. } = *meaning;
        self.telling.stats.count(reason);
        let time_ns = boot_ns();
        let (pid, uid, comm) = caller.map_or((0, 0, [0; 16]), |it| (it.pid, it.uid, it.comm));
        let Some(count) = self.repeats.shows(name, reason, comm, time_ns) else {
            return;
        };
        // Where there is no room the counters say that something was not shown.
        let _room = self.telling.lines.try_send(RefusedCall {
            time_ns,
            name,
            reason,
            pid,
            uid,
            comm,
            count,
        });
    }
}
