//! Set-up, build, demo, tests, measurements and checks of this project: `cargo xtask help`.

mod apt;
mod bench;
mod build;
mod ci;
mod demo;
mod dist;
mod fuzz;
mod host;
mod layers;
mod oracle;
mod packages;
mod peers;
mod report;
mod reproduce;
mod services;
mod setup;
mod step;
mod test;
mod tidy;
mod toolchain;
mod unconfined;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, build, demo, tests and checks of this project.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing, saying each step and why
    Setup,
    /// Build the eBPF programs and the agent
    Build(build::Options),
    /// Show the main job in a small embedded internet (set-up included)
    Demo,
    /// Run every test, unprivileged and kernel ones (set-up included)
    Test(test::Options),
    /// Measure what confinement costs (set-up included)
    Bench(bench::Options),
    /// Run the kernel tests on other kernels, in qemu (set-up included)
    Vm(vm::Options),
    /// Take away one layer of the boundary after the other, and write which way out each stops
    Layers,
    /// Feed the parsers and the verdict with what nobody thought of (set-up included)
    Fuzz(fuzz::Options),
    /// Compare verdicts with a naive reading's, by the hundred million
    Oracle(oracle::Options),
    /// Pack what is shipped, with a bill of materials
    Dist,
    /// Check that the eBPF object comes out the same in every folder
    Reproduce,
    /// Run the confinement tests with nothing confined: each that claims a refusal must fail
    Unconfined,
    /// Check the house rules
    Tidy,
    /// Everything a change must pass
    Ci(ci::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup => setup::run(setup::Extent::Everything),
        Task::Build(options) => build::run(&options),
        Task::Demo => demo::run(),
        Task::Test(options) => test::run(&options).map(drop),
        Task::Bench(options) => bench::run(&options),
        Task::Vm(options) => vm::run(&options).map(drop),
        Task::Layers => layers::run(),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Oracle(options) => oracle::run(&options),
        Task::Dist => dist::run(),
        Task::Reproduce => reproduce::run(),
        Task::Unconfined => unconfined::run().map(|proven| println!("{proven}")),
        Task::Tidy => tidy::run(),
        Task::Ci(options) => ci::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
