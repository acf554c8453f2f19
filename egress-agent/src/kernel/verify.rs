//! Takes programs through the kernel's verifier, several at once: that is nearly all of a start.
//! Only programs of unprivileged users wait for one another there (`kernel/bpf/verifier.c`,
//! `bpf_check`).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    thread,
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};

use super::{
    object::Code,
    unix::{self, UnixError},
};

/// Those that take longest, which begin first; those for unix sockets after them, then all others.
const LONGEST: [&str; 3] = ["strict", "sni", "name"];

/// Programs that the verifier refused, by name, and why.
pub(super) type Refused = BTreeMap<&'static str, ProgramError>;

/// What came of those that aya does not know.
pub(super) type Unix = Vec<Result<unix::Loaded, UnixError>>;

/// One program.
enum Job<'a> {
    Aya(&'static str, &'a mut Program),
    Unix(Code),
}

/// Loads the named programs of an object, and those for unix sockets.
pub(super) fn load(ebpf: &mut Ebpf, names: &[&'static str], unix: Vec<Code>) -> (Refused, Unix) {
    let mut programs: Vec<(&'static str, &mut Program)> = ebpf
        .programs_mut()
        .filter_map(|(name, program)| {
            let name = names.iter().find(|wanted| **wanted == name)?;
            Some((*name, program))
        })
        .collect();
    let place = |name| LONGEST.iter().position(|long| *long == name);
    programs.sort_by_key(|(name, _)| place(*name).unwrap_or(LONGEST.len()));
    let long = programs.partition_point(|(name, _)| place(*name).is_some());
    let others = programs.split_off(long);
    let aya = |(name, program)| Job::Aya(name, program);
    let jobs = programs.into_iter().map(aya);
    let jobs = jobs
        .chain(unix.into_iter().map(Job::Unix))
        .chain(others.into_iter().map(aya))
        .collect();
    let (refused, loaded) = (Mutex::new(Refused::new()), Mutex::new(Unix::new()));
    each(jobs, |job| match job {
        Job::Aya(name, program) => {
            if let Err(error) = one(program) {
                lock(&refused).insert(name, error);
            }
        }
        Job::Unix(code) => {
            let result = unix::load(&code);
            lock(&loaded).push(result);
        }
    });
    (whole(refused), whole(loaded))
}

fn whole<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn one(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::SocketFilter(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Does something with each, in this order, on as many threads as there are processors. Where
/// threads cannot be had, on fewer: this one always works.
fn each<T: Send>(items: VecDeque<T>, work: impl Fn(T) + Sync) {
    let more = thread::available_parallelism().map_or(0, |count| count.get() - 1);
    let more = more.min(items.len().saturating_sub(1));
    let items = Mutex::new(items);
    let all = || {
        while let Some(item) = next(&items) {
            work(item);
        }
    };
    thread::scope(|scope| {
        for _ in 0..more {
            let _none_to_be_had = thread::Builder::new().spawn_scoped(scope, all);
        }
        all();
    });
}

fn next<T>(items: &Mutex<VecDeque<T>>) -> Option<T> {
    lock(items).pop_front()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn everything_is_done_once() {
        for count in [0, 1, 2, 50] {
            let sum = AtomicU32::new(0);
            each((0..count).collect(), |item| {
                sum.fetch_add(item + 1, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), count * (count + 1) / 2);
        }
    }
}
