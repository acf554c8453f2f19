//! What is shipped: an archive with the program, its documents and policies, a bill of
//! materials, and the sums of all.

mod archive;
mod bill;
mod lock;

pub(crate) use archive::run;
