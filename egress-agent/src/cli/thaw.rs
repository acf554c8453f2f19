//! `egress-agent thaw`: a connector that was frozen goes on.

use clap::Args;

use super::fail;
use crate::kernel::leftovers;

/// Let a connector go on that was frozen (`on-violation: freeze`); as root
///
/// INSTANCE is the one that the line about it names. Exit status: 0 where it goes on, 1 where no
/// such connector is frozen.
#[derive(Debug, Args)]
pub struct ThawArgs {
    /// The instance, such as postmark-5f3a
    instance: String,
}

/// Thaws it. Answers the exit code.
pub fn run(args: &ThawArgs) -> u8 {
    match leftovers::thaw(&args.instance) {
        Ok(true) => 0,
        Ok(false) => {
            fail(format!(
                "no connector of an instance {} is frozen; “egress-agent events” shows the line \
                 that names it",
                args.instance
            ));
            1
        }
        Err(error) => fail(error),
    }
}
