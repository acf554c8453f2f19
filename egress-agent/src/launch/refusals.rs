//! The agent's answer to system calls that the filter does not let through: no, and a line; for
//! `bind()` yes, unless it would make a unix socket where the connector can make none.
//!
//! A thread of its own, which waits for nothing that the connector does: the caller stands still
//! until it is answered, and what is read about it (`/proc/TID/status`, `stat`) takes none of its
//! memory.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, SendError, Sender, channel},
    },
    thread,
};

use egress_sys::notify::{Call, Listener};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::mpsc;

use super::{
    binds::Binds,
    filter::{Meaning, is_bind, meaning},
};
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
pub fn start(listener: OwnedFd, telling: Telling, binds: Binds) -> io::Result<()> {
    let listener = Arc::new(Listener::new(listener));
    let (asked, calls) = channel();
    let looking = Looking {
        listener: Arc::clone(&listener),
        teller: Teller::new(telling.clone()),
        binds,
    };
    let answering = Answering {
        listener,
        teller: Teller::new(telling),
        asked,
    };
    let thread = |name: &str| {
        thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK)
    };
    thread("refusals").spawn(move || answering.run())?;
    thread("binds").spawn(move || looking.run(&calls))?;
    Ok(())
}

struct Answering {
    listener: Arc<Listener>,
    teller: Teller,
    asked: Sender<Call>,
}

impl Answering {
    /// With both threads the descriptor goes: then the kernel refuses.
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
            self.answer(call)?;
        }
        Ok(true)
    }

    fn answer(&mut self, call: Call) -> io::Result<()> {
        if is_bind(&call) {
            // The other thread is gone only where looking failed; Landlock decides without it.
            if let Err(SendError(call)) = self.asked.send(call) {
                self.listener.permit(call.id)?;
            }
            return Ok(());
        }
        let meaning = meaning(&call);
        let caller = thread_group(call.tid).filter(|_| self.listener.waits(call.id));
        let ended = meaning.ends && self.end(&call, caller.as_ref());
        let refused = self.listener.refuse(call.id, meaning.errno)?;
        // One that was interrupted tries again, and counts then.
        if refused || ended {
            self.teller.tell(&meaning, caller, None, false);
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
}

/// Looks where sockets are to be made. Apart, because it reads the caller's memory and goes its
/// ways, and either may lie on a file system that does not answer; then only such calls wait.
struct Looking {
    listener: Arc<Listener>,
    teller: Teller,
    binds: Binds,
}

impl Looking {
    fn run(mut self, calls: &Receiver<Call>) {
        while calls.recv().is_ok_and(|call| self.answer(&call).is_ok()) {}
    }

    fn answer(&mut self, call: &Call) -> io::Result<()> {
        let Some(path) = self.binds.outside(call) else {
            self.listener.permit(call.id)?;
            return Ok(());
        };
        let meaning = meaning(call);
        let caller = thread_group(call.tid).filter(|_| self.listener.waits(call.id));
        let enforced = self.binds.enforced;
        let answered = if enforced {
            self.listener.refuse(call.id, meaning.errno)?
        } else {
            self.listener.permit(call.id)?
        };
        if answered {
            self.teller.tell(&meaning, caller, Some(path), !enforced);
        }
        Ok(())
    }
}

/// Counts, and makes lines.
struct Teller {
    telling: Telling,
    repeats: CallRepeats,
}

impl Teller {
    fn new(telling: Telling) -> Self {
        Self {
            telling,
            repeats: CallRepeats::default(),
        }
    }

    fn tell(
        &mut self,
        meaning: &Meaning,
        caller: Option<Thread>,
        path: Option<Vec<u8>>,
        audited: bool,
    ) {
        let Meaning { name, reason, .. } = *meaning;
        self.telling.stats.count(reason);
        let time_ns = boot_ns();
        let (pid, uid, comm) = caller.map_or((0, 0, [0; 16]), |it| (it.pid, it.uid, it.comm));
        let shows = self
            .repeats
            .shows(name, reason, comm, path.as_deref(), time_ns);
        let Some(count) = shows else {
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
            path,
            audited,
        });
    }
}
