//! Set-up, build, demo, tests and checks of this project.

fn main() {}
