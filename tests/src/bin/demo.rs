//! What `cargo xtask demo` shows. Exit code 0 only if every expectation held.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    Ok(if egress_tests::demo::run()? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
