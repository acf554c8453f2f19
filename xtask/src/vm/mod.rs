//! Other kernels: boots them in qemu with the kernel tests inside, and tells which hold.
//!
//! [`task`] tells the story. A [`kernel`] comes from Debian's suites or a file; [`cases`] says
//! which tests run; an [`image`] in the format of [`cpio`] holds their [`files`]; a [`machine`]
//! boots it and listens, [`here`] does without one; [`verdict`] reads what the tests crate's `vm-init` reports,
//! [`results`] keeps it, and [`matrix`] puts the kernels side by side.

mod cases;
mod cpio;
mod files;
mod here;
mod image;
mod kernel;
mod machine;
mod matrix;
mod results;
mod task;
mod verdict;

pub(crate) use cases::programs;
pub(crate) use task::{Options, oldest, run};
