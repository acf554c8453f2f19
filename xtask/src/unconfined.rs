//! The confinement tests once more, with nothing confined: each that claims a refusal must fail.
//!
//! A test that passes without the boundary proves nothing about it. What the tests print is kept
//! back and summed up, so that nobody takes their failures for those of the true run.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{host, step, vm};

/// The switch of the tests crate (`tests/src/agent.rs`): programs start without the agent.
const SWITCH: (&str, &str) = ("EGRESS_TEST_UNCONFINED", "1");

/// The race of `own_listener` shows within this time what nothing keeps apart. Seconds.
const RACE: (&str, &str) = ("EGRESS_RACE_SECONDS", "2");

/// The test programs that are about refusals and start their programs through the harness; those
/// that claim many in little time. Not `apart`, whose programs would send signals to this machine's
/// own process 1, and not `resolver`, which waits for minutes for answers that never come.
const PROGRAMS: &[&str] = &[
    "calls",
    "clones",
    "confinement",
    "envelope",
    "internet",
    "listen",
    "names",
    "own_listener",
    "policies",
    "sni",
    "tls_rules",
    "unix",
];

/// Tests of theirs that pass without the boundary, and why they may.
const CLAIM_NOTHING: &[(&str, &str)] = &[
    (
        "clones/a_socket_that_may_broadcast_reaches_what_is_permitted",
        "what is permitted works",
    ),
    (
        "confinement/a_permitted_program_causes_no_denial",
        "what is permitted works",
    ),
    (
        "names/a_grant_is_there_before_its_answer",
        "what is permitted works",
    ),
    (
        "own_listener/a_caller_over_loopback_gets_an_answer",
        "what is permitted works",
    ),
    (
        "own_listener/a_connector_reaches_what_it_listens_on",
        "what is permitted works",
    ),
    (
        "own_listener/a_listener_with_little_room_is_reached_by_all",
        "what is permitted works",
    ),
    (
        "sni/a_name_that_is_looked_at_costs_little",
        "it is about time",
    ),
    ("unix/node_keeps_its_own_sockets", "what is permitted works"),
    (
        "unix/programs_keep_their_own_sockets",
        "what is permitted works",
    ),
];

/// What became of the tests of one program.
#[derive(Default, PartialEq, Eq, Debug)]
struct Outcome {
    passed: Vec<String>,
    failed: Vec<String>,
}

/// Runs them. Answers what was proven.
pub(crate) fn run() -> Result<String> {
    let started = Instant::now();
    let programs = vm::programs()?;
    let mut refusals = 0;
    let mut wrong = Vec::new();
    let mut known: Vec<String> = Vec::new();
    for suite in PROGRAMS {
        let program = programs.iter().find(|(name, _)| name == suite);
        let (_, program) = program.with_context(|| format!("there is no test program {suite}"))?;
        let outcome = outcome(program)?;
        println!(
            "unconfined: {suite}: {} of {} tests fail, as they must; {} in all",
            outcome.failed.len(),
            outcome.failed.len() + outcome.passed.len(),
            step::time(started.elapsed())
        );
        refusals += outcome.failed.len();
        known.extend(outcome.failed.iter().map(|test| format!("{suite}/{test}")));
        for test in outcome.passed {
            let name = format!("{suite}/{test}");
            if !CLAIM_NOTHING.iter().any(|(known, _)| *known == name) {
                wrong.push(format!("{name} passes without the boundary"));
            }
            known.push(name);
        }
    }
    for (name, _) in CLAIM_NOTHING {
        if !known.iter().any(|ran| ran == name) {
            wrong.push(format!(
                "{name} is listed as one that claims nothing, and there is no such test"
            ));
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(format!(
        "{refusals} tests of refusals fail where nothing is refused; {} claim none",
        CLAIM_NOTHING.len()
    ))
}

/// Runs one test program to its end.
fn outcome(program: &Path) -> Result<Outcome> {
    let mut command = match host::root_prefix()?.as_slice() {
        [] => Command::new(program),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg("--preserve-env").arg(program);
            command
        }
    };
    let output = command
        .current_dir(host::workspace().join("tests"))
        .envs([SWITCH, RACE])
        .stdin(Stdio::null())
        .output()
        .with_context(|| program.display().to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = Outcome::read(&text);
    if outcome.passed.is_empty() && outcome.failed.is_empty() {
        bail!("{} ran no test: {text}", program.display());
    }
    Ok(outcome)
}

impl Outcome {
    /// Out of what libtest prints.
    fn read(text: &str) -> Self {
        let mut outcome = Self::default();
        for rest in text.lines().filter_map(|line| line.strip_prefix("test ")) {
            if let Some(name) = rest.strip_suffix(" ... ok") {
                outcome.passed.push(name.to_owned());
            } else if let Some(name) = rest.strip_suffix(" ... FAILED") {
                outcome.failed.push(name.to_owned());
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_and_what_failed() {
        let text = "running 3 tests\ntest curl ... ok\ntest wget ... FAILED\n\
                    test late ... ignored, why\ntest result: FAILED. 1 passed; 1 failed\n";
        let expected = Outcome {
            passed: vec!["curl".to_owned()],
            failed: vec!["wget".to_owned()],
        };
        assert_eq!(Outcome::read(text), expected);
    }
}
