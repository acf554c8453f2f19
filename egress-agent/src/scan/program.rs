//! A command line of a configuration → what it starts: behind sudo, env and shells, and whether
//! the agent is in front of it. Pure.

/// Words at most that are taken out of one shell line.
const MAX_WORDS: usize = 1_000;
/// Wrappers inside each other at most.
const MAX_WRAPPERS: usize = 16;

/// What a command line starts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Program {
    /// Words of the server's own command: wrappers, shells and the agent are taken off.
    pub words: Vec<String>,
    /// How the agent is called, where it is in front.
    pub agent: Option<Agent>,
    /// The line of a shell that is more than one plain command.
    pub shell: Option<String>,
}

/// The agent's own words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Agent {
    /// Connector, whose policy is in the folder of policies.
    pub connector: Option<String>,
    /// `--policy FILE`.
    pub policy: Option<String>,
    /// `--audit`: refuses nothing, whatever the policy says.
    pub audit: bool,
}

/// A program that runs the program behind it.
struct Wrapper {
    name: &'static str,
    /// Options whose value is the next word.
    valued: &'static [&'static str],
    /// Words before the command, after the options.
    skip: usize,
    /// First words that make it a wrapper: `mise exec`; none for those that always are.
    verbs: &'static [&'static str],
}

#[rustfmt::skip]
const WRAPPERS: [Wrapper; 16] = [
    Wrapper { name: "sudo", valued: &["-u", "-g", "-h", "-p", "-C", "-D", "-R", "-r", "-t", "-T", "-U", "--user", "--group", "--host", "--prompt", "--close-from", "--chdir", "--chroot", "--role", "--type", "--command-timeout", "--other-user"], skip: 0, verbs: &[] },
    Wrapper { name: "doas", valued: &["-u", "-C", "-a"], skip: 0, verbs: &[] },
    Wrapper { name: "env", valued: &["-u", "--unset", "-C", "--chdir"], skip: 0, verbs: &[] },
    Wrapper { name: "nice", valued: &["-n", "--adjustment"], skip: 0, verbs: &[] },
    Wrapper { name: "ionice", valued: &["-c", "-n", "--class", "--classdata"], skip: 0, verbs: &[] },
    Wrapper { name: "nohup", valued: &[], skip: 0, verbs: &[] },
    Wrapper { name: "setsid", valued: &[], skip: 0, verbs: &[] },
    Wrapper { name: "stdbuf", valued: &["-i", "-o", "-e", "--input", "--output", "--error"], skip: 0, verbs: &[] },
    Wrapper { name: "timeout", valued: &["-k", "-s", "--kill-after", "--signal"], skip: 1, verbs: &[] },
    Wrapper { name: "exec", valued: &["-a"], skip: 0, verbs: &[] },
    Wrapper { name: "command", valued: &[], skip: 0, verbs: &[] },
    Wrapper { name: "mise", valued: &["-C", "--cd", "-j", "--jobs"], skip: 0, verbs: &["exec", "x"] },
    Wrapper { name: "op", valued: &["--env-file", "--account"], skip: 0, verbs: &["run"] },
    Wrapper { name: "doppler", valued: &["-p", "-c", "-t", "--project", "--config", "--token"], skip: 0, verbs: &["run"] },
    Wrapper { name: "dotenvx", valued: &["-f", "-e", "--env-file", "--env"], skip: 0, verbs: &["run"] },
    Wrapper { name: "direnv", valued: &[], skip: 1, verbs: &["exec"] },
];

const SHELLS: [&str; 5] = ["sh", "bash", "zsh", "dash", "ksh"];

/// Understands a command line.
pub fn understand(words: &[String]) -> Program {
    let mut program = Program::default();
    let mut left = words.to_vec();
    for _ in 0..MAX_WRAPPERS {
        let Some(first) = left.first() else {
            break;
        };
        let name = base(first);
        if SHELLS.contains(&name) {
            let Some(line) = shell_line(&left) else {
                break;
            };
            match split(&line) {
                Some(words) => left = words,
                None => {
                    program.shell = Some(line);
                    break;
                }
            }
        } else if name.eq_ignore_ascii_case("cmd") || name.eq_ignore_ascii_case("cmd.exe") {
            match left.get(1) {
                Some(option) if option.eq_ignore_ascii_case("/c") => left.drain(..2),
                _ => break,
            };
        } else if is_agent(first) && program.agent.is_none() {
            match agent(&left) {
                Some((agent, rest)) => {
                    program.agent = Some(agent);
                    left = rest;
                }
                None => break,
            }
        } else if let Some(rest) = unwrapped(name, &left) {
            left = rest;
        } else {
            break;
        }
    }
    program.words = left;
    program
}

/// The last part of a path, without what Windows adds to it.
pub fn base(word: &str) -> &str {
    let name = word.rsplit(['/', '\\']).next().unwrap_or(word);
    [".exe", ".cmd"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name)
}

/// By its name or an absolute path: a relative one is whatever lies there.
fn is_agent(word: &str) -> bool {
    word == "egress-agent" || (word.starts_with('/') && word.ends_with("/egress-agent"))
}

/// The words behind a wrapper's own.
fn unwrapped(name: &str, words: &[String]) -> Option<Vec<String>> {
    let wrapper = WRAPPERS.iter().find(|wrapper| wrapper.name == name)?;
    let mut words = words.get(1..)?.iter();
    if !wrapper.verbs.is_empty() && !wrapper.verbs.contains(&words.next()?.as_str()) {
        return None;
    }
    let mut skip = wrapper.skip;
    while let Some(word) = words.next() {
        if name == "env" {
            let line = match word.as_str() {
                "-S" | "--split-string" => Some(words.next()?.as_str()),
                _ => word
                    .strip_prefix("--split-string=")
                    .or_else(|| word.strip_prefix("-S")),
            };
            if let Some(line) = line {
                let mut split = split(line)?;
                split.extend(words.cloned());
                split.insert(0, "env".to_owned());
                return Some(split);
            }
        }
        if word == "--" {
            let rest: Vec<String> = words.skip(skip).cloned().collect();
            return (!rest.is_empty()).then_some(rest);
        }
        if word.len() > 1 && word.starts_with('-') {
            if wrapper.valued.contains(&word.as_str()) {
                words.next();
            }
            continue;
        }
        // Variables before the command; `mise exec node@22 -- node` has tools there.
        if is_assignment(word) || name == "mise" {
            continue;
        }
        if skip > 0 {
            skip -= 1;
            continue;
        }
        let mut rest = vec![word.clone()];
        rest.extend(words.cloned());
        return Some(rest);
    }
    None
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// `egress-agent run …` or `exec …`, and the words behind it.
fn agent(words: &[String]) -> Option<(Agent, Vec<String>)> {
    let mut words = words.get(1..)?.iter();
    if !matches!(words.next()?.as_str(), "run" | "exec") {
        return None;
    }
    let mut agent = Agent::default();
    let mut rest = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--" => {
                rest = words.cloned().collect();
                break;
            }
            "--policy" | "-p" => agent.policy = words.next().cloned(),
            "--user" | "-u" | "--events" => {
                words.next();
            }
            "--audit" => agent.audit = true,
            // It shows how to call it, and starts nothing.
            "--help" | "-h" => return None,
            other => {
                if let Some(file) = other.strip_prefix("--policy=") {
                    agent.policy = Some(file.to_owned());
                } else if !other.starts_with('-') && agent.connector.is_none() {
                    agent.connector = Some(other.to_owned());
                }
            }
        }
    }
    Some((agent, rest))
}

/// The line of `sh -c LINE`, `bash -lc LINE`.
fn shell_line(words: &[String]) -> Option<String> {
    let at = words.iter().skip(1).position(|word| {
        word.starts_with('-')
            && !word.starts_with("--")
            && word.trim_start_matches('-').contains('c')
    })?;
    // Only options may stand before it: `bash script.sh -c x` runs a script.
    let before = words.get(1..=at)?;
    before
        .iter()
        .all(|word| word.starts_with('-'))
        .then(|| words.get(at + 2).cloned())
        .flatten()
}

/// The words of a shell line that is one plain command; `None` where a shell would do more.
fn split(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.trim().chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '|' | '&' | ';' | '<' | '>' | '(' | ')' | '`' | '\n' | '#' | '*' | '?' => return None,
            '$' if chars.peek() == Some(&'(') => return None,
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        char => word.push(char),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '`' => return None,
                        '$' if chars.peek() == Some(&'(') => return None,
                        '\\' => word.push(chars.next()?),
                        char => word.push(char),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next()?),
            char => word.get_or_insert_default().push(char),
        }
        if words.len() > MAX_WORDS {
            return None;
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `|` stands between words that have blanks in them.
    fn of(line: &str) -> Program {
        let blank = if line.contains('|') { '|' } else { ' ' };
        let words: Vec<String> = line.split(blank).map(str::to_owned).collect();
        understand(&words)
    }

    #[test]
    fn the_agent_is_seen_wherever_it_stands() {
        for line in [
            "egress-agent run a -- node x",
            "egress-agent exec a -- node x",
            "/usr/local/bin/egress-agent run a -- node x",
            "egress-agent run --events /e.jsonl a --quiet -- node x",
            "sudo -n egress-agent run a -- node x",
            "sudo -u root -- env A=b egress-agent run a -- node x",
            "env -i A=b sudo egress-agent run a -- node x",
            "env|-S|A=b sudo -n egress-agent run a -- node x",
            "bash|-lc|exec sudo egress-agent run 'a' -- node \"x\"",
            "cmd /c egress-agent run a -- node x",
            "timeout -k 5 60 nice -n 5 egress-agent run a -- node x",
        ] {
            let program = of(line);
            assert_eq!(program.words, ["node", "x"], "{line}");
            let agent = program.agent.unwrap_or_default();
            assert_eq!(agent.connector.as_deref(), Some("a"), "{line}");
        }
    }

    #[test]
    fn what_only_looks_like_the_agent_is_not() {
        for line in [
            "egress-agent events",
            "egress-agent run --help",
            "egress-agent exec --help",
            "./egress-agent run a",
            "my-egress-agent run a",
            "egress-agent.sh run a",
            "node egress-agent run a",
            "echo egress-agent run a",
            "sh|-c|node x; egress-agent run a",
            "sh|x.sh|-c|egress-agent run a",
            "env A=b node /usr/bin/egress-agent run a",
        ] {
            assert_eq!(of(line).agent, None, "{line}");
        }
    }

    #[test]
    fn the_agents_options_are_understood() {
        let program = of("egress-agent run -p /p.yaml --audit -u me -- x");
        let expected = Agent {
            connector: None,
            policy: Some("/p.yaml".to_owned()),
            audit: true,
        };
        assert_eq!(program.agent, Some(expected));
        assert_eq!(program.words, ["x"]);
    }
}
