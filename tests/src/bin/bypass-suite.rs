//! Tries every known way out of an egress confinement, whoever made it.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Ok(if egress_tests::suite::main(&arguments)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
