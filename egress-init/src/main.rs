//! Process 1 of a connector's PID namespace: reaps what ends there, tells the agent how the
//! connector's first process ended, and ends with the agent. When it ends, so does everything
//! in the namespace (pid_namespaces(7)).
//!
//! `egress-init FIRST`: `FIRST` is the number of the connector's first process. Descriptor 0 is a
//! pipe that hangs up when the agent is gone. On descriptor 1 it writes one byte, once nobody
//! inside can take hold of it, and at the end the four bytes of FIRST's wait status (wait(2)),
//! native order. The latter it writes on descriptor 2 as well, for a caller who outlives the agent.
//!
//! There is one for each connector, so it has no C library, no heap and no thread: a few pages.
//! It reads nothing that the connector writes.

#![no_std]
#![no_main]

mod call;

use call::{Poll, SignalSet};

/// Standard input, as the launcher leaves it: hangs up with the agent.
const CALLER: i32 = 0;
/// Standard output: what the agent hears.
const STATUS: i32 = 1;
/// Standard error: what a caller hears beside the agent, or nobody.
const COPY: i32 = 2;
/// The namespace ends with exit code 0; the agent goes by what [`STATUS`] says.
const DONE: i32 = 0;
/// Something that cannot fail did.
const FAILED: i32 = 1;

/// What the entry point calls with the address of the argument count, behind which the
/// addresses of the arguments lie.
///
/// # Safety
///
/// `stack` is the stack pointer as execve(2) leaves it.
#[unsafe(no_mangle)]
unsafe extern "C" fn egress_init(stack: *const usize) -> ! {
    // SAFETY: the caller's promise; the kernel ends the list with a null.
    let Some(first) = (unsafe { call::number_argument(stack, 1) }) else {
        call::exit(FAILED)
    };
    call::exit(watch(first))
}

/// Until the first process has ended or the agent is gone.
fn watch(first: i32) -> i32 {
    let children = SignalSet::of(call::SIGCHLD);
    call::block(&children);
    let Some(ended) = call::signal_descriptor(&children) else {
        return FAILED;
    };
    call::set_name(c"egress-init");
    // A connector of the same user must not open what /proc shows of this process, nor trace it.
    call::close_to_others();
    call::drop_capabilities();
    if !call::write(STATUS, b"r") {
        return DONE;
    }
    loop {
        while let Some((pid, status)) = call::reap() {
            if pid == first {
                // Who hears it knows what to make of silence; one of both may be gone.
                call::write(COPY, &status.to_ne_bytes());
                call::write(STATUS, &status.to_ne_bytes());
                return DONE;
            }
        }
        let [caller, _] = call::poll([Poll::hang_up(CALLER), Poll::readable(ended)]);
        if caller {
            return DONE;
        }
        call::drain(ended);
    }
}

/// Nothing here panics; the language wants an answer all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    call::exit(FAILED)
}
