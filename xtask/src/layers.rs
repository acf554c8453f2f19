//! Which layer stops which way out: measured, and written into the threat model.

use std::fs;

use anyhow::Result;

use crate::{build, host, report::Part, setup, step};

/// Where the table stands.
const TABLE: Part = Part {
    document: "docs/threat-model.md",
    begin: "<!-- measured: `cargo xtask layers` writes this part -->\n",
    end: "<!-- end of what was measured -->",
};

/// Sets up, builds, and hands over to the tests crate's `bypass-suite`, which runs as root and
/// takes away one layer after the other.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::Extent::Everything)?;
    build::programs()?;
    let file = host::target().join("layers.md");
    let mut suite = host::as_root(host::target().join("debug/bypass-suite"))?;
    suite.args(["--user", "both", "--layers"]).arg(&file);
    step::loud(&mut suite)?;
    TABLE.write(&fs::read_to_string(file)?)
}
