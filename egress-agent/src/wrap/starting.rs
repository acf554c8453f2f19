//! The policy that a server starts with. Pure.

use std::path::Path;

use super::ready::{self, Ready};
use crate::{
    event::escape::inner,
    policy::{self, model::Mode},
};

/// A policy's text, and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Starting {
    /// Text of the file.
    pub text: String,
    /// The ready policy that it was made from.
    pub ready: Option<&'static str>,
    /// Whether it refuses anything yet.
    pub mode: Mode,
}

/// The policy for a command: the ready one where its package is known, otherwise one that refuses
/// nothing and reports.
pub fn policy(connector: &str, starts: &str, words: &[String]) -> Starting {
    let ready = ready::of(words).and_then(|ready| from_ready(connector, &ready, words));
    ready.unwrap_or_else(|| audit(connector, starts))
}

fn audit(connector: &str, starts: &str) -> Starting {
    let starts = inner(starts);
    let text = format!(
        "# The agent was put in front of {starts} with this policy. In mode audit nothing is refused;\n\
         # what would have been is reported. After some days of use:\n\
         #   egress-agent learn {connector}            shows what it reached, as rules\n\
         #   egress-agent learn {connector} --apply    writes them here\n\
         # Then put enforce in the place of audit.\n\
         version: 1\nconnector: {connector}\nmode: audit\nallow: []\n"
    );
    Starting {
        text,
        ready: None,
        mode: Mode::Audit,
    }
}

/// The ready policy under another name, without its `run`: the client's file says what is started.
/// Where that asks a registry at each start, the rules would keep it from starting.
fn from_ready(connector: &str, ready: &Ready, words: &[String]) -> Option<Starting> {
    let fetches = !words.iter().any(|word| word == "--offline");
    let mode = if fetches { Mode::Audit } else { Mode::Enforce };
    let looked_at = inner(&ready.package.spec);
    let mut text = format!(
        "# The ready policy “{}”; {looked_at} was looked at.\n",
        ready.name
    );
    if fetches {
        text += "# The command asks its registry at each start, which these rules do not permit. So \
                 nothing is\n# refused yet: fetch the package once, add --offline to the command, and \
                 put enforce here.\n";
    }
    let mut in_run = false;
    for line in ready.text.lines() {
        let is_key = line.starts_with(|first: char| first.is_ascii_alphabetic());
        if is_key {
            in_run = line.starts_with("run:");
        }
        if in_run || line.starts_with("# yaml-language-server") || line.starts_with("mode:") {
            continue;
        }
        if line.starts_with("connector:") {
            let mode = if fetches { "mode: audit\n" } else { "" };
            text += &format!("connector: {connector}\n{mode}");
        } else {
            text += &format!("{line}\n");
        }
    }
    let made = policy::parse(Path::new(connector), &text).ok()?;
    let same = made.allow == ready.policy.allow && made.deny == ready.policy.deny;
    (same && made.mode == mode && made.connector == connector).then_some(Starting {
        text,
        ready: Some(ready.name),
        mode,
    })
}

/// A connector's name for a server's: the same letters, small, and hyphens for what a name may not
/// have. `None`: nothing is left.
pub fn connector(server: &str) -> Option<String> {
    let known = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    let name: String = server
        .chars()
        .map(|char| {
            if known(char) {
                char.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let name = name.trim_start_matches(|char: char| !char.is_ascii_alphanumeric());
    let name: String = name.chars().take(64).collect();
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::expect_used, reason = "a test stops at its first fault")]

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn every_ready_policy_can_be_the_start() {
        for ready in ready::all() {
            let offline = &ready.policy.run.as_ref().map(|run| run.command.clone());
            let made = policy("my.name", "x", &offline.clone().unwrap_or_default());
            assert_eq!(made.ready, Some(ready.name));
            assert_eq!(made.mode, Mode::Enforce);
            assert!(!made.text.contains("\nrun:"), "{}", made.text);
        }
    }

    #[test]
    fn what_asks_its_registry_is_not_refused_it_at_once() {
        let made = policy(
            "gh",
            "x",
            &words("npx -y @modelcontextprotocol/server-github"),
        );
        assert_eq!((made.ready, made.mode), (Some("github"), Mode::Audit));
        let parsed = policy::parse(Path::new("gh.yaml"), &made.text).expect("usable");
        assert_eq!(parsed.mode, Mode::Audit);
        assert_eq!(parsed.allow.len(), 1);
    }

    #[test]
    fn an_unknown_server_is_audited() {
        let hostile = "x\nallow: [\"a.example:443\"]\n#";
        let made = policy("a", hostile, &words("node /opt/x.js"));
        let parsed = policy::parse(Path::new("a.yaml"), &made.text).expect("usable");
        assert_eq!((parsed.mode, parsed.allow.len()), (Mode::Audit, 0));
        assert_eq!(made.ready, None);
    }

    #[test]
    fn names_become_names() {
        for (server, expected) in [
            ("github", Some("github")),
            ("My Server (ü)", Some("my-server-")),
            ("@scope/pkg", Some("scope-pkg")),
            ("..", None),
            ("ü", None),
        ] {
            let expected = expected.map(|name| name.trim_end_matches('-').to_owned());
            assert_eq!(connector(server), expected, "{server}");
        }
        assert_eq!(connector(&"a".repeat(99)).map(|name| name.len()), Some(64));
    }
}
