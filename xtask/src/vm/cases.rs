//! Which tests run in the machines.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{host, step};

/// One test of a test program.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// `PROGRAM/TEST`
    pub(crate) name: String,
    /// The program's file.
    pub(crate) program: PathBuf,
    /// Test program.
    pub(crate) suite: String,
    /// Test in it.
    pub(crate) test: String,
}

impl Case {
    /// Whether an entry of [`LEFT_OUT`] means this one.
    fn fits(&self, name: &str) -> bool {
        self.name == name || (name.ends_with('/') && self.name.starts_with(name))
    }

    /// Whether it runs where nobody chooses.
    fn is_wanted(&self) -> bool {
        let stands_for = |(program, some): &(&str, &str)| {
            self.name.starts_with(program) && !self.name.starts_with(some)
        };
        !LEFT_OUT.iter().any(|(name, _)| self.fits(name)) && !IN_FEWER_STARTS.iter().any(stands_for)
    }
}

/// Tests that do not run in a machine, and why; a whole program's with a `/` at the end.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "burst/a_hundred_thousand_destinations",
        "emulation is too slow for it",
    ),
    (
        "fresh_starts/fifty_starts_in_a_row",
        "emulation is too slow for it",
    ),
    ("confinement/musl_static", "needs a C compiler"),
    ("confinement/node_axios", "needs a package registry"),
    ("confinement/node_fetch", "emulation is too slow for node"),
    ("confinement/python_httpx", "needs a package registry"),
    ("closers/", "names the layers of the host's own kernel"),
    (
        "must_work/",
        "needs node, git, a database and more in the machine",
    ),
    ("real_mcp/", "needs a package registry"),
    ("browsers/", "needs a browser in the machine"),
    ("tools/", "needs ssh, git, Java and more in the machine"),
    (
        "calls/a_32_bit_program_ends_with_one_line",
        "needs an assembler",
    ),
    (
        "apart/a_user_of_a_directory_is_known_inside",
        "needs the library of a directory, and ssh, in the machine",
    ),
    (
        "networks/every_resolver_searches_on_and_none_waits",
        "needs compilers and a package registry",
    ),
    (
        "proxy/programs_reach_names_that_only_the_proxy_knows",
        "needs node and a compiler",
    ),
    ("tls_clients/go", "needs a compiler"),
    ("tls_clients/java", "needs a compiler"),
    ("tls_clients/node", "needs a package registry"),
    ("tls_clients/python", "needs a package registry"),
    (
        "unix/node_keeps_its_own_sockets",
        "needs node in the machine",
    ),
    (
        "sni/the_kernel_agrees_with_a_plain_reader",
        "emulation is too slow for it",
    ),
];

/// Programs of which only tests with this beginning run in a machine: they try what the others
/// try, in fewer starts, and a start takes the emulated verifier seconds.
const IN_FEWER_STARTS: [(&str, &str); 1] = [("bypass/", "bypass/every_")];

/// Test programs that are no kernel tests.
const OTHER_PROGRAMS: &[&str] = &["demo"];

/// Builds the tests and lists them. Errors: a test that is left out does not exist.
pub(crate) fn all(filters: &[String]) -> Result<Vec<Case>> {
    let mut all = Vec::new();
    for (suite, program) in programs()? {
        let output = Command::new(&program)
            .args(["--list", "--format", "terse"])
            .output();
        let output = output.with_context(|| program.display().to_string())?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(test) = line.strip_suffix(": test") {
                all.push(Case {
                    name: format!("{suite}/{test}"),
                    program: program.clone(),
                    suite: suite.clone(),
                    test: test.to_owned(),
                });
            }
        }
    }
    for (name, _) in LEFT_OUT {
        if !all.iter().any(|case| case.fits(name)) {
            bail!("{name} is left out of the machines, but there is no such test");
        }
    }
    all.retain(|case| {
        if filters.is_empty() {
            case.is_wanted()
        } else {
            filters.iter().any(|text| case.name.contains(text))
        }
    });
    if all.is_empty() {
        bail!("no test has a name like that");
    }
    Ok(all)
}

/// The kernel tests' programs, by the names of their files in `tests/tests`.
pub(crate) fn programs() -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = host::cargo();
    cargo.args(["test", "--workspace", "--no-run"]);
    let lines = step::quiet("build", "the kernel tests", &mut cargo)?;
    let mut programs: Vec<(String, PathBuf)> = lines
        .iter()
        .filter_map(|line| program(line))
        .filter(|(name, _)| !OTHER_PROGRAMS.contains(&name.as_str()))
        .filter(|(name, _)| {
            host::workspace()
                .join(format!("tests/tests/{name}.rs"))
                .exists()
        })
        .collect();
    programs.sort();
    Ok(programs)
}

/// Name and file, where cargo says `Executable tests/NAME.rs (FILE)`.
fn program(line: &str) -> Option<(String, PathBuf)> {
    let rest = line.trim().strip_prefix("Executable tests/")?;
    let (name, rest) = rest.split_once(".rs (")?;
    let file = host::workspace().join(rest.strip_suffix(')')?);
    Some((name.to_owned(), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_test_may_stand_for_others() {
        let wanted = |name: &str| {
            let case = Case {
                name: name.to_owned(),
                program: PathBuf::new(),
                suite: String::new(),
                test: String::new(),
            };
            case.is_wanted()
        };
        assert!(wanted("bypass/every_way_out_as_root"));
        assert!(!wanted("bypass/streams"));
        assert!(wanted("names/every_name"));
        assert!(!wanted("real_mcp/anything"));
    }

    #[test]
    fn test_programs_are_told_from_others() {
        let found = program("  Executable tests/burst.rs (target/debug/deps/burst-4a18)");
        let file = host::workspace().join("target/debug/deps/burst-4a18");
        assert_eq!(found, Some(("burst".to_owned(), file)));
        assert_eq!(
            program("  Executable unittests src/lib.rs (target/x)"),
            None
        );
    }
}
