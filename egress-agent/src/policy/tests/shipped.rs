//! The policies and the schema that come with the project.

use std::{fs, io, path::PathBuf};

use crate::policy::{
    load_dir,
    model::{Mode, Target},
    parse, schema,
};

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "policies"]
        .iter()
        .collect()
}

#[test]
fn shipped_policies_have_no_faults_and_say_why() -> io::Result<()> {
    let policies = load_dir(&folder()).map_err(io::Error::other)?;
    assert!(policies.len() >= 10, "{} policies", policies.len());
    for policy in &policies {
        let name = &policy.connector;
        let stem = policy.source.file_stem().and_then(|stem| stem.to_str());
        assert_eq!(
            stem,
            Some(name.as_str()),
            "file and connector have one name"
        );
        assert_eq!(policy.mode, Mode::Enforce, "{name}");
        for rule in policy.allow.iter().chain(&policy.deny) {
            assert!(rule.why.is_some(), "{name}: {} has no why", rule.id);
        }
        for rule in &policy.allow {
            let host = matches!(rule.target, Target::Host(_));
            let mut spans = rule.ports.iter();
            let https = spans.any(|span| (span.first..=span.last).contains(&443));
            assert!(
                !host || !https || rule.tls,
                "{name}: {} asks for no name",
                rule.id
            );
        }
        if let Some(run) = &policy.run {
            let is_pinned = |word: &String| {
                let version = word.rsplit_once('@').map(|(_, version)| version);
                version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
            };
            let local = run.command.first().is_some_and(|program| program == "node");
            // A policy without a command is for whatever program the caller starts.
            assert!(
                local || run.command.is_empty() || run.command.iter().any(is_pinned),
                "{name} is not pinned"
            );
            assert!(run.env.is_some(), "{name} takes the whole environment");
        }
    }
    Ok(())
}

#[test]
fn the_schema_file_is_current() -> io::Result<()> {
    let file = fs::read_to_string(folder().join("schema.json"))?;
    assert!(
        file == schema::json_schema(),
        "write it anew: egress-agent check --schema > policies/schema.json"
    );
    Ok(())
}

#[test]
fn the_documented_example_has_no_faults() -> io::Result<()> {
    let file = folder().join("../docs/policy.md");
    let text = fs::read_to_string(&file)?;
    let example = text.split("```yaml\n").nth(1).unwrap_or_default();
    let example = example.split("```").next().unwrap_or_default();
    let policy = parse(&file, example).map_err(io::Error::other)?;
    assert_eq!(policy.connector, "reports");
    Ok(())
}
