//! `egress-agent wrap` and `unwrap` through the binary: the file, who it belongs to, and the policy.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::programs;
use serde_json::Value;

/// A user of the user database that owns nothing.
const NOBODY: u32 = 65534;

fn agent(home: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(programs::agent()?);
    command.args(words).env("HOME", home).current_dir(home);
    command.output().context("the agent")
}

/// Calls it; answers its JSON form.
fn json(home: &Path, words: &[&str]) -> Result<Value> {
    let output = agent(home, &[words, &["-o", "json"]].concat())?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{words:?}: {output:?}"))
}

fn file(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    fs::write(&path, text)?;
    Ok(path)
}

fn string(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// The configurations of a home: one for each client and form.
const HOME: [(&str, &str); 9] = [
    (
        ".config/Claude/claude_desktop_config.json",
        "{\n  \"mcpServers\": {\n    \"gh\": {\n      \"command\": \"npx\",\n      \"args\": [\n        \"-y\",\n        \"@modelcontextprotocol/server-github\"\n      ]\n    }\n  }\n}",
    ),
    (
        ".cursor/mcp.json",
        "\u{feff}// mine\r\n{\r\n\t\"mcpServers\": {\r\n\t\t\"a\": { \"command\": \"node\", \"args\": [\"/opt/a.js\",], }, /* off */\r\n\t\t\"r\": { \"url\": \"https://r.example/mcp\" },\r\n\t},\r\n}\r\n",
    ),
    (
        ".config/Code/User/mcp.json",
        "{\"servers\":{\"b\":{\"type\":\"stdio\",\"command\":\"${workspaceFolder}/b\",\"env\":{\"B\":\"${input:b}\"}}}}",
    ),
    (
        ".config/zed/settings.json",
        "// z\n{ \"theme\": \"x\", \"context_servers\": { \"z\": { \"source\": \"custom\", \"command\": { \"path\": \"z\", \"args\": [] } } } }\n",
    ),
    (
        ".config/opencode/opencode.jsonc",
        "{ \"mcp\": { \"o\": { \"type\": \"local\", \"command\": [\"bun\", \"x\", \"o\"] } } }",
    ),
    (
        ".codex/config.toml",
        "model = \"m\" # m\n\n[mcp_servers.c]\ncommand = 'uvx'\nargs = [ 'c', # c\n]\n[mcp_servers.d]\ncommand = \"d\"\n",
    ),
    (
        ".config/goose/config.yaml",
        "extensions:\n  e:\n    type: stdio\n    cmd: uvx\n    args:\n      - e # e\n    enabled: true\n  f: {type: builtin, name: f}\n",
    ),
    (
        ".continue/config.yaml",
        "mcpServers:\n- name: g\n  command: g\n  args: [ --x, 'y' ]\n",
    ),
    (
        ".claude.json",
        "{\"projects\":{\"/nowhere\":{\"mcpServers\":{\"h\":{\"type\":\"stdio\",\"command\":\"h\",\"args\":[],\"env\":{}}},\"history\":[\"\\ud83d\\ude00\"]}}}",
    ),
];

#[test]
fn a_home_is_wrapped_and_comes_back_byte_for_byte() -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut before = BTreeMap::new();
    for (name, text) in HOME {
        let path = file(home.path(), name, text)?;
        before.insert(path, text.as_bytes().to_vec());
    }
    let files: Vec<&str> = before
        .keys()
        .map(|path| string(path))
        .collect::<Result<_>>()?;
    let mut named = Vec::new();
    for file in &files {
        named.extend(["--config", file]);
    }
    let policies = home.path().join("policies");
    let folder = ["--policies", string(&policies)?];

    let open = |home: &Path| -> Result<usize> {
        let report = json(home, &[&["scan"], &named[..]].concat())?;
        let findings = report["findings"].as_array().context("findings")?;
        let open = findings.iter().filter(|it| it["id"] == "not-confined");
        Ok(open.count())
    };
    ensure!(open(home.path())? == 10, "not every server was open");
    let dry = json(
        home.path(),
        &[&["wrap", "--dry-run"], &folder[..], &named[..]].concat(),
    )?;
    for (path, bytes) in &before {
        ensure!(fs::read(path)? == *bytes, "changed by a dry run: {path:?}");
    }
    ensure!(!policies.exists(), "a dry run made policies");

    let report = json(home.path(), &[&["wrap"], &folder[..], &named[..]].concat())?;
    ensure!(open(home.path())? == 0, "{report}");
    let again = json(home.path(), &[&["wrap"], &folder[..], &named[..]].concat())?;
    ensure!(
        again["files"]
            .as_array()
            .is_some_and(|files| files.iter().all(|it| it["changed"] == false))
    );
    for (files, diff) in [(&report, &dry)].into_iter().flat_map(|(a, b)| {
        a["files"]
            .as_array()
            .into_iter()
            .flatten()
            .zip(b["files"].as_array().into_iter().flatten())
    }) {
        // What was shown is what is done.
        let path = PathBuf::from(files["file"].as_str().context("a file")?);
        let old = before.get(&path).context("an old text")?;
        let patched = patched(home.path(), old, diff["diff"].as_str().context("a diff")?)?;
        ensure!(
            fs::read(&path)? == patched,
            "another change than was shown: {path:?}"
        );
        ensure!(patched != *old, "{path:?}");
    }

    let report = json(home.path(), &[&["unwrap"], &named[..]].concat())?;
    for (path, bytes) in &before {
        ensure!(
            fs::read(path)? == *bytes,
            "{path:?} did not come back: {report}"
        );
    }
    Ok(())
}

/// The text after a diff, by patch(1).
fn patched(folder: &Path, old: &[u8], diff: &str) -> Result<Vec<u8>> {
    let [from, patch] = ["from", "patch"].map(|name| folder.join(name));
    fs::write(&from, old)?;
    fs::write(&patch, diff)?;
    let output = Command::new("patch")
        .args(["--binary", "-s", string(&from)?, string(&patch)?])
        .output()?;
    ensure!(output.status.success(), "{output:?}\n{diff}");
    Ok(fs::read(&from)?)
}

#[test]
fn link_mode_owner_and_attributes_stay() -> Result<()> {
    let home = tempfile::tempdir()?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let dots = home.path().join("dots");
    let text = r#"{"mcpServers":{"a":{"command":"node"}}}"#;
    let real = file(&dots, "mcp.json", text)?;
    let link = home.path().join("mcp.json");
    symlink("dots/mcp.json", &link)?;
    for path in [home.path(), &dots, &real] {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    // A group that its owner is not in, as some shared file has.
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640))?;
    let before = fs::metadata(&real)?;
    let policies = tempfile::tempdir()?;
    let words = ["--config", string(&link)?];
    let folder = ["--policies", string(policies.path())?];
    let output = agent(home.path(), &[&["wrap"], &words[..], &folder[..]].concat())?;
    ensure!(output.status.code() == Some(0), "{output:?}");
    ensure!(
        fs::symlink_metadata(&link)?.is_symlink(),
        "the link is gone"
    );
    let after = fs::metadata(&real)?;
    let of = |facts: &fs::Metadata| (facts.uid(), facts.gid(), facts.mode());
    ensure!(
        of(&before) == of(&after),
        "{:?} became {:?}",
        of(&before),
        of(&after)
    );
    ensure!(fs::read_to_string(&real)?.contains("exec"), "not wrapped");
    ensure!(
        fs::read_dir(&dots)?.count() == 1,
        "something was left beside it"
    );
    let policy = fs::read_to_string(policies.path().join("a.yaml"))?;
    ensure!(policy.contains("mode: audit"), "{policy}");
    Ok(())
}

#[test]
fn root_writes_nothing_through_a_link_of_somebody_else() -> Result<()> {
    let home = tempfile::tempdir()?;
    let roots = tempfile::tempdir()?;
    let text = r#"{"mcpServers":{"a":{"command":"node"}}}"#;
    let own = file(roots.path(), "mcp.json", text)?;
    let link = home.path().join("mcp.json");
    symlink(&own, &link)?;
    std::os::unix::fs::lchown(&link, Some(NOBODY), Some(NOBODY))?;
    chown(home.path(), Some(NOBODY), Some(NOBODY))?;
    let policies = roots.path().join("policies");
    let folder = ["--policies", string(&policies)?];
    let wrap = |path: &Path| -> Result<Output> {
        let words = ["wrap", "--config", string(path)?];
        agent(roots.path(), &[&words[..], &folder[..]].concat())
    };
    let output = wrap(&link)?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(
        fs::read_to_string(&own)? == text,
        "root wrote through the link"
    );
    // The control: the file by its own name.
    ensure!(wrap(&own)?.status.code() == Some(0), "the control failed");
    ensure!(
        fs::read_to_string(&own)?.contains("exec"),
        "the control failed"
    );
    Ok(())
}

#[test]
fn a_policy_is_made_and_none_is_overwritten() -> Result<()> {
    let home = tempfile::tempdir()?;
    let servers = r#"{"mcpServers":{
        "gh": { "command": "npx", "args": ["--offline", "-y", "@modelcontextprotocol/server-github@2025.4.8"] },
        "mine": { "command": "node", "args": ["/opt/m.js"] },
        "Há!": { "command": "node", "args": ["/opt/h.js"] },
        "gone": { "command": "docker", "args": ["run", "x"] },
        "GH": { "command": "node", "args": ["/opt/other.js"] },
        "su": { "command": "sudo", "args": ["node"] }
    }}"#;
    let config = file(home.path(), "mcp.json", servers)?;
    let policies = home.path().join("p");
    let mine = "version: 1\nconnector: mine\nallow: [\"m.example:443\"]\n";
    file(&policies, "other-name.yaml", mine)?;
    let words = [
        "wrap",
        "--config",
        string(&config)?,
        "--policies",
        string(&policies)?,
    ];
    let output = agent(home.path(), &[&words[..], &["-o", "json"]].concat())?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    let servers = report["files"][0]["servers"]
        .as_array()
        .context("servers")?;
    let outcomes: Vec<_> = servers
        .iter()
        .map(|it| it["outcome"].as_str().unwrap_or(""))
        .collect();
    ensure!(
        outcomes == ["wrapped", "wrapped", "wrapped", "left", "left", "left"],
        "{report}"
    );
    ensure!(
        servers[0]["policy"]["ready"] == "github" && servers[0]["policy"]["mode"] == "enforce",
        "{report}"
    );
    ensure!(servers[1]["policy"]["made"] == false, "{report}");
    ensure!(fs::read_to_string(policies.join("other-name.yaml"))? == mine);
    ensure!(
        !policies.join("mine.yaml").exists(),
        "a second policy was made"
    );
    let check = agent(home.path(), &["check", string(&policies)?])?;
    ensure!(check.status.success(), "{check:?}");
    Ok(())
}

#[test]
fn the_exit_status_says_what_was_left() -> Result<()> {
    let home = tempfile::tempdir()?;
    let good = file(
        home.path(),
        "good.json",
        r#"{"mcpServers":{"a":{"command":"a"}}}"#,
    )?;
    let bad = file(home.path(), "bad.json", r#"{"mcpServers":{"a":"#)?;
    let links = file(
        home.path(),
        "links.json",
        r#"{"mcpServers":{"a":{"command":"a"}}}"#,
    )?;
    fs::hard_link(&links, home.path().join("other"))?;
    let folder = home.path().join("p");
    let policies = ["--policies", string(&folder)?];
    let [good, bad, links] = [&good, &bad, &links].map(|path| string(path));
    let (good, bad, links) = (good?, bad?, links?);
    for (words, code) in [
        (&["wrap"][..], 2),
        (&["wrap", "--config", "/nonexistent.json"], 2),
        (&["wrap", "--config", good, "--name", "A"], 2),
        (&["wrap", "--config", bad], 1),
        (&["wrap", "--config", links], 1),
        (&["wrap", "nobody", "--config", good], 1),
        (&["wrap", "a", "--name", "b", "--config", good], 0),
        (&["wrap", "--config", good], 0),
    ] {
        let output = agent(home.path(), &[words, &policies[..]].concat())?;
        ensure!(output.status.code() == Some(code), "{words:?}: {output:?}");
    }
    ensure!(
        fs::read_to_string(good)?.contains("\"b\""),
        "not the given name"
    );
    for (words, code) in [(&["unwrap"][..], 2), (&["unwrap", "--config", good], 0)] {
        let output = agent(home.path(), words)?;
        ensure!(output.status.code() == Some(code), "{words:?}: {output:?}");
    }
    Ok(())
}
