//! Other kernels: boots them in qemu with the kernel tests inside, and tells which hold.
//!
//! [`task`] tells the story. A [`kernel`] comes from Debian's suites or a file; [`cases`] says
//! which tests run; an [`image`] in the format of [`cpio`] holds their [`files`]; a [`machine`]
//! boots it and listens; [`verdict`] reads what the tests crate's `vm-init` reports, and
//! [`matrix`] puts the kernels side by side.

mod cases;
mod cpio;
mod files;
mod image;
mod kernel;
mod machine;
mod matrix;
mod task;
mod verdict;

pub(crate) use task::{Options, run};
