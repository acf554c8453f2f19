//! Tries one way out of a confinement; see `egress_tests::probe`.

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    egress_tests::probe::main(&arguments)
}
