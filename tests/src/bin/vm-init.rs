//! The first process of a machine that runs the kernel tests; see `egress_tests::machine`.

fn main() {
    egress_tests::machine::main();
}
