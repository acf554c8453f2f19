//! Processes of the same user outside, named by their number: signals, limits, priorities. A
//! signal alone can make a process act outside (SIGUSR1 opens the debugger of a node process), and
//! a limit can make it leave its memory in a core file.

use std::fs;

use super::{Attempt, Evidence, Stop, Vector, neighbour::Victim, since, sys};

/// What acts on a victim's number; where that works, the victim is in reach.
macro_rules! on_the_victim {
    ($($name:literal, $about:literal, |$victim:ident| $body:block)*) => {
        pub(super) const VECTORS: &[Vector] = &[$(
            Vector::new($name, $about, |job| {
                let $victim = Victim::of(&job.stage)?.pid;
                let act = || -> Attempt { $body };
                act()?;
                Err(Stop::Reached(format!("it can be done to process {}", $victim)))
            })
            .proven_by(Evidence::Reached),
        )*];
    };
}

on_the_victim! {
    "signal", "a signal for a process outside", |victim| {
        sys::call(libc::SYS_kill, &[victim, libc::SIGCONT as usize])?;
        Ok(())
    }
    "signal-queued", "a signal with a value", |victim| {
        let mut info = [0_u64; 16];
        info[0] = libc::SIGCONT as u64;
        info[1] = (libc::SI_QUEUE as u32).into();
        let arguments = [victim, libc::SIGCONT as usize, sys::place(&info)];
        sys::call(libc::SYS_rt_sigqueueinfo, &arguments)?;
        Ok(())
    }
    "signal-thread", "a signal for a thread outside", |victim| {
        sys::call(libc::SYS_tgkill, &[victim, victim, libc::SIGCONT as usize])?;
        Ok(())
    }
    "signal-pidfd", "a signal by a descriptor", |victim| {
        since(5, 3, "pidfd_open(2)")?;
        let descriptor = sys::call(libc::SYS_pidfd_open, &[victim, 0])?;
        let arguments = [descriptor, libc::SIGCONT as usize, 0, 0];
        sys::call(libc::SYS_pidfd_send_signal, &arguments)?;
        Ok(())
    }
    "signal-by-file", "SIGIO of a pipe for a process outside", |victim| {
        let (reader, _writer) = std::io::pipe().map_err(Stop::from)?;
        use std::os::fd::AsRawFd as _;
        const SET_OWNER: usize = 8;
        sys::call(libc::SYS_fcntl, &[reader.as_raw_fd() as usize, SET_OWNER, victim])?;
        Ok(())
    }
    "limits", "resource limits of a process outside", |victim| {
        let mut limits = [0_u64; 2];
        let core = libc::RLIMIT_CORE as usize;
        let read = [victim, core, 0, sys::place_mut(&mut limits)];
        sys::call(libc::SYS_prlimit64, &read)?;
        sys::call(libc::SYS_prlimit64, &[victim, core, sys::place(&limits), 0])?;
        Ok(())
    }
    "priority", "the priority of a process outside", |victim| {
        sys::call(libc::SYS_setpriority, &[0, victim, 0])?;
        Ok(())
    }
    "io-priority", "the same for disks", |victim| {
        const BEST_EFFORT_4: usize = 2 << 13 | 4;
        sys::call(libc::SYS_ioprio_set, &[1, victim, BEST_EFFORT_4])?;
        Ok(())
    }
    "scheduling", "on which processors a process outside runs", |victim| {
        let mut mask = [0_u64; 16];
        let size = size_of_val(&mask);
        sys::call(libc::SYS_sched_getaffinity, &[victim, size, sys::place_mut(&mut mask)])?;
        sys::call(libc::SYS_sched_setaffinity, &[victim, size, sys::place(&mask)])?;
        Ok(())
    }
    "scheduler", "how a process outside is scheduled", |victim| {
        let priority = 0_i32;
        sys::call(libc::SYS_sched_setscheduler, &[victim, 0, sys::place(&priority)])?;
        Ok(())
    }
    "process-list", "the command line of a process outside", |victim| {
        let line = fs::read(format!("/proc/{victim}/cmdline")).map_err(Stop::from)?;
        if String::from_utf8_lossy(&line).contains("victim") {
            return Ok(());
        }
        Err(Stop::Refused("it is another process".to_owned()))
    }
}
