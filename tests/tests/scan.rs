//! `egress-agent scan` through its binary: exit status, forms, and that nothing is started.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::programs;
use serde_json::Value;

fn scan(home: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(programs::agent()?);
    command.arg("scan").args(words).env("HOME", home);
    command.current_dir(home).output().context("scan")
}

fn configuration(home: &Path, name: &str, servers: &str) -> Result<String> {
    let file = home.join(name);
    fs::create_dir_all(file.parent().context("a folder")?)?;
    fs::write(&file, format!("{{ \"mcpServers\": {{ {servers} }} }}"))?;
    Ok(file.to_string_lossy().into_owned())
}

#[test]
fn the_exit_status_says_what_was_found() -> Result<()> {
    let home = tempfile::tempdir()?;
    let clean = configuration(home.path(), "clean.json", "")?;
    let remote = r#""r": { "url": "https://r.example/mcp" }"#;
    let remote = configuration(home.path(), "remote.json", remote)?;
    let open = r#""o": { "command": "node", "args": ["/opt/o.js"] }"#;
    let open = configuration(home.path(), "open.json", open)?;
    for (words, code) in [
        (&["--config", &clean][..], 0),
        (&["--config", &remote], 1),
        (&["--config", &remote, "--fail-on", "warning"], 0),
        (
            &["--config", &clean, "--config", &open, "--fail-on", "error"],
            1,
        ),
        (&["--config", "/nonexistent.json"], 2),
        (&["--config", "/dev/zero"], 2),
        (&["--fail-on", "much"], 2),
    ] {
        let output = scan(home.path(), words)?;
        ensure!(output.status.code() == Some(code), "{words:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn a_home_is_found_and_shown_in_each_form() -> Result<()> {
    let home = tempfile::tempdir()?;
    let started = home.path().join("started");
    let server = format!(
        r#""o": {{ "command": "touch", "args": ["{}"], "env": {{ "A_TOKEN": "s3cr3t-0f-m1ne" }} }}, // c"#,
        started.display()
    );
    let file = configuration(home.path(), ".cursor/mcp.json", &server)?;
    // The comment would end the line.
    let text = fs::read_to_string(&file)?.replace("// c", "/* c */");
    fs::write(&file, text)?;

    let text = String::from_utf8(scan(home.path(), &[])?.stdout)?;
    ensure!(
        text.contains(&format!("{file}:1: error: not-confined: o:")),
        "{text}"
    );

    let json: Value = serde_json::from_slice(&scan(home.path(), &["-o", "json"])?.stdout)?;
    ensure!(json["schema"] == "egress-agent/scan/v1", "{json}");
    let empty = Vec::new();
    let found: Vec<&Value> = json["findings"]
        .as_array()
        .unwrap_or(&empty)
        .iter()
        .collect();
    let of_file: Vec<_> = found
        .iter()
        .filter(|it| it["file"] == file.as_str())
        .collect();
    let ids: Vec<_> = of_file.iter().filter_map(|it| it["id"].as_str()).collect();
    ensure!(ids == ["secret", "not-confined"], "{json}");

    let sarif = scan(home.path(), &["-o", "sarif", "--config", &file])?.stdout;
    let sarif: Value = serde_json::from_slice(&sarif)?;
    ensure!(sarif["version"] == "2.1.0", "{sarif}");
    let run = &sarif["runs"][0];
    let results = run["results"].as_array().context("results")?;
    ensure!(results.len() == 2, "{sarif}");
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().context("an index")?)?;
        ensure!(
            run["tool"]["driver"]["rules"][index]["id"] == result["ruleId"],
            "{sarif}"
        );
        let uri = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        ensure!(*uri == format!("file://{file}"), "{sarif}");
    }
    ensure!(
        !sarif.to_string().contains("s3cr3t") && !text.contains("s3cr3t"),
        "a secret is shown"
    );
    ensure!(!started.exists(), "something was started");
    Ok(())
}
