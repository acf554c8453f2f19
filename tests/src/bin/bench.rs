//! What `cargo xtask bench` runs. Exit code 1 where `--check` was given and a bar does not hold.

use std::process::ExitCode;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Ok(if egress_tests::bench::main(&arguments)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
