//! Other kernels: boots them in qemu with the kernel tests inside, and tells which hold.
//!
//! [`task`] tells the story. A [`kernel`] comes from Debian's suites or a file; an [`image`] is
//! the initial file system with the tests, in the format of [`cpio`]; a [`machine`] boots it and
//! listens; [`verdict`] reads what the tests crate's `vm-init` reports. [`cases`] says which
//! tests run and what each kernel is expected to lack.

mod cases;
mod cpio;
mod image;
mod kernel;
mod machine;
mod task;
mod verdict;

pub(crate) use task::{Options, run};
