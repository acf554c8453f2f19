//! Several commands in one confined run, each with its own exit code, output and time.

use std::fmt::Write;

use anyhow::{Context, Result};

use crate::agent::{Agent, Report};

const MARK: &str = "#attempt";

/// One command inside a run.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What the test calls it.
    pub label: String,
    /// Exit code.
    pub code: i32,
    /// Duration. Milliseconds.
    pub ms: u64,
    /// Standard output and error.
    pub output: String,
}

/// A run of several commands.
#[derive(Debug)]
pub struct Attempts {
    /// One for each command, in order.
    pub all: Vec<Attempt>,
    /// The run as a whole.
    pub report: Report,
}

/// A command with its label.
pub type Labelled<'a> = (&'a str, Vec<String>);

impl Agent<'_> {
    /// Runs commands one after the other in one confined shell. Errors: the shell itself did not
    /// end well, so nothing is known about the commands.
    pub fn attempts(self, commands: &[Labelled<'_>]) -> Result<Attempts> {
        let report = self.run(&["/bin/bash", "-c", &script(commands)])?;
        report.ensure_printed("#end")?;
        let all = parse(&report.text()).with_context(|| report.to_string())?;
        Ok(Attempts { all, report })
    }
}

impl Attempts {
    /// The attempt with a label. Errors: there is none.
    pub fn get(&self, label: &str) -> Result<&Attempt> {
        let found = self.all.iter().find(|attempt| attempt.label == label);
        found.with_context(|| format!("no attempt {label}; {}", self.report))
    }
}

fn script(commands: &[Labelled<'_>]) -> String {
    let mut script = String::new();
    for (label, words) in commands {
        let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
        let _ = writeln!(script, "start=$(date +%s%3N)");
        let _ = writeln!(
            script,
            "output=$({} 2>&1 </dev/null); code=$?",
            words.join(" ")
        );
        let _ = writeln!(script, "end=$(date +%s%3N)");
        let _ = writeln!(script, "echo \"{MARK} $code $((end-start)) {label}\"");
        let _ = writeln!(script, "printf '%s\\n' \"$output\"");
    }
    script + "echo '#end'\n"
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn parse(text: &str) -> Result<Vec<Attempt>> {
    let mut all: Vec<Attempt> = Vec::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix(MARK) {
            let mut words = head.trim().splitn(3, ' ');
            let mut next = || words.next().context("short mark");
            all.push(Attempt {
                code: next()?.parse()?,
                ms: next()?.parse()?,
                label: next()?.to_owned(),
                output: String::new(),
            });
        } else if let Some(last) = all.last_mut() {
            last.output.push_str(line);
            last.output.push('\n');
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_back() -> Result<()> {
        let all = parse("noise\n#attempt 7 12 two words\nout\nmore\n#attempt 0 1 x\n#end\n")?;
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].code, all[0].ms), (7, 12));
        assert_eq!(
            (all[0].label.as_str(), all[0].output.as_str()),
            ("two words", "out\nmore\n")
        );
        Ok(())
    }

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quote("it's"), "'it'\\''s'");
    }
}
