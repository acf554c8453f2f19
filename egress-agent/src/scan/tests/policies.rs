//! What is said about the policy of a server that the agent is in front of.

#![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

use std::{fs, path::Path};

use crate::{
    host::user,
    scan::{find, guard, judge::judge},
};

/// Ids of the findings about a configuration, beside a folder of policies, this many days on.
fn ids(entry: &str, policy: &str, days: i64) -> Vec<&'static str> {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("policies");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), policy).unwrap();
    let file = home.path().join("c.json");
    let entry = entry.replace("DIR", &folder.to_string_lossy());
    fs::write(&file, format!("{{\"mcpServers\":{{\"a\":{entry}}}}}")).unwrap();
    let now = jiff::Timestamp::now().as_second() + days * 86_400;
    let config = find::named(&file).unwrap();
    let me = user::resolve(&nix::unistd::geteuid().to_string()).unwrap();
    let judged = judge(&[config], |agent, _| {
        guard::look(agent, &me, &[Path::new(&folder)], now)
    });
    judged
        .findings
        .iter()
        .map(|finding| finding.rule.id)
        .collect()
}

const RUN: &str =
    r#"{"command":"sudo","args":["-n","egress-agent","run","a","--","node","/x.js"]}"#;
const FILE: &str =
    r#"{"command":"egress-agent","args":["run","--policy","DIR/a.yaml","--","node","/x.js"]}"#;
const GOOD: &str = "version: 1\nconnector: a\nallow: [\"api.example.com:443\"]\n";

#[test]
fn a_good_policy_is_no_finding() {
    for entry in [RUN, FILE] {
        assert_eq!(ids(entry, GOOD, 0), [""; 0]);
        assert_eq!(ids(entry, GOOD, 100), [""; 0]);
    }
}

#[test]
fn a_missing_or_faulty_one_is_told() {
    assert_eq!(
        ids(RUN, "version: 1\nconnector: b\n", 0),
        ["policy-missing"]
    );
    assert_eq!(
        ids(&FILE.replace("a.yaml", "c.yaml"), GOOD, 0),
        ["policy-missing"]
    );
    for entry in [RUN, FILE] {
        assert_eq!(
            ids(entry, "version: 1\nconnector: a\nallow: [7]\n", 0),
            ["policy-faulty"]
        );
    }
}

#[test]
fn a_wide_one_and_one_left_in_audit_mode_are_told() {
    let audit = format!("{GOOD}mode: audit\n");
    assert_eq!(ids(RUN, &audit, 13), [""; 0]);
    assert_eq!(ids(RUN, &audit, 15), ["policy-audit"]);
    assert_eq!(
        ids(&RUN.replace("\"a\",", "\"a\",\"--audit\","), GOOD, 0),
        ["policy-audit"]
    );
    let wide = "version: 1\nconnector: a\nallow: [{ cidr: 0.0.0.0/0, ports: [443] }]\n";
    assert_eq!(ids(RUN, wide, 0), ["policy-wide"]);
}

#[test]
fn what_the_policy_starts_is_looked_at_too() {
    let run = r#"{"command":"egress-agent","args":["run","a"]}"#;
    let policy = format!("{GOOD}run: {{ command: [npx, -y, some-mcp] }}\n");
    assert_eq!(ids(run, &policy, 0), ["not-pinned"]);
    let policy = format!("{GOOD}run: {{ command: [npx, -y, some-mcp@1.2.3] }}\n");
    assert_eq!(ids(run, &policy, 0), [""; 0]);
}

#[test]
fn a_wallet_is_held_to_names_that_are_written_out() {
    let entry = RUN.replace(
        "]}",
        "],\"env\":{\"MNEMONIC\":\"${M}\",\"RPC_URL\":\"https://rpc.example\"}}",
    );
    assert_eq!(ids(&entry, GOOD, 0), [""; 0]);
    let below = "version: 1\nconnector: a\nallow: [\"*.example.com:443\"]\n";
    assert_eq!(ids(&entry, below, 0), ["wallet"]);
    assert_eq!(ids(&entry, &format!("{GOOD}mode: audit\n"), 0), ["wallet"]);
}
