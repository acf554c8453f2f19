//! Whether this kernel runs BPF programs at the hooks of its security modules.

use std::env;

use egress_agent::kernel::probe::kernel_version;

/// What the machine that runs the tests says of itself.
pub const VARIABLE: &str = "EGRESS_TEST_MODULES";
/// The first kernel with all that the programs need.
const FIRST: (u32, u32) = (6, 1);

/// What the agent should find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// The programs run.
    Fires,
    /// They are attached and never run: the list of modules lacks `bpf`.
    Silent,
    /// They cannot be loaded.
    Absent,
    /// Some hosts refuse them for reasons of their own.
    Unknown,
}

/// What to expect where the tests run.
pub fn expected() -> Expected {
    match env::var(VARIABLE).as_deref() {
        Ok("fires") => Expected::Fires,
        Ok("silent") => Expected::Silent,
        Ok("absent") => Expected::Absent,
        _ => Expected::Unknown,
    }
}

/// The value of [`VARIABLE`] for a distribution's kernel and its list of modules.
pub fn of_kernel(release: &str, modules: &str) -> &'static str {
    if kernel_version(release).is_none_or(|found| found < FIRST) {
        return "absent";
    }
    if modules.split(',').any(|module| module == "bpf") {
        return "fires";
    }
    "silent"
}
