//! The helper processes of a test world, one per network namespace, driven over standard input
//! and output: `serve` is the internet, `host DIR` keeps the host's mounts.

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve"] => egress_tests::internet::serve(),
        ["host", dir] => egress_tests::world::keep_host(Path::new(dir)),
        _ => bail!("usage: embedded-internet (serve | host DIR)"),
    }
}
