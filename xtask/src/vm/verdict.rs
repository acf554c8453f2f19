//! What `vm-init` reports of a machine, line by line, and what it amounts to.
//!
//! `@kernel RELEASE`, `@lsm MODULES`, then for each case `@begin NAME`, `| ` and a line of its output any
//! number of times, `@end NAME (HELD | FAILED | TIMEOUT) MILLISECONDS`; last `@done`.

use std::{collections::BTreeMap, fmt};

/// One case in one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Test program and test.
    pub(crate) name: String,
    /// `HELD`, `FAILED`, `TIMEOUT`; `BROKEN OFF` where the machine ended in its middle.
    pub(crate) verdict: String,
    /// How long it took. Milliseconds.
    pub(crate) ms: u64,
    /// What it printed.
    pub(crate) output: Vec<String>,
}

/// Everything a machine reported.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// `uname -r`; empty: it did not come that far.
    pub(crate) kernel: String,
    /// The security modules that are active, as the kernel lists them.
    pub(crate) lsm: String,
    /// In their order.
    pub(crate) cases: Vec<Case>,
    /// All cases were tried.
    pub(crate) done: bool,
    /// What went wrong outside any case.
    pub(crate) faults: Vec<String>,
}

/// What a test says that the kernel is too old for: `tests/src/kernel.rs`.
const NOT_OFFERED: &str = "not offered here: ";
const BROKEN: &str = "BROKEN OFF";
/// Where the boundary is whole.
const SUITE: &str = "bypass/";

impl Report {
    /// Takes the next line. Answers the case that it ends.
    pub(crate) fn line(&mut self, line: &str) -> Option<&Case> {
        let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "@kernel" => rest.clone_into(&mut self.kernel),
            "@lsm" => rest.clone_into(&mut self.lsm),
            "@done" => self.done = true,
            "@fault" => self.faults.push(rest.to_owned()),
            "@begin" => self.cases.push(Case {
                name: rest.to_owned(),
                verdict: BROKEN.to_owned(),
                ms: 0,
                output: Vec::new(),
            }),
            "|" => {
                if let Some(case) = self.cases.last_mut() {
                    case.output.push(rest.to_owned());
                }
            }
            "@end" => {
                let mut words = rest.split(' ');
                let case = self.cases.last_mut()?;
                if words.next() == Some(&case.name) {
                    // A verdict may be two words.
                    let words: Vec<&str> = words.collect();
                    let (ms, verdict) = words.split_last()?;
                    case.verdict = verdict.join(" ");
                    case.ms = ms.parse().unwrap_or_default();
                    return Some(case);
                }
            }
            _ => {}
        }
        None
    }

    /// Takes over what another run on the same kernel saw.
    pub(crate) fn take(&mut self, newer: &Self) {
        self.kernel.clone_from(&newer.kernel);
        self.lsm.clone_from(&newer.lsm);
        self.done = newer.done;
        for case in &newer.cases {
            match self.cases.iter_mut().find(|known| known.name == case.name) {
                Some(known) => known.clone_from(case),
                None => self.cases.push(case.clone()),
            }
        }
        self.cases.sort_by(|one, other| one.name.cmp(&other.name));
    }

    /// Major and minor number of the kernel, to sort by.
    pub(crate) fn age(&self) -> (u32, u32) {
        let mut numbers = self.kernel.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next().and_then(|text| text.parse().ok());
        (number().unwrap_or(0), number().unwrap_or(0))
    }

    /// What held, in a line.
    pub(crate) fn summary(&self) -> String {
        let held = self.cases.iter().filter(|case| case.held()).count();
        let vectors = self.vectors();
        let blocked = vectors.values().filter(|verdict| **verdict == "BLOCKED");
        format!(
            "Linux {}: {held} tests hold, {} ways out are blocked",
            self.kernel,
            blocked.count()
        )
    }

    /// What the bypass suite says of each way out, by its name and who tried it.
    pub(crate) fn vectors(&self) -> BTreeMap<String, &'static str> {
        // Others take layers away, and say what is open then.
        let suite = self
            .cases
            .iter()
            .filter(|case| case.name.starts_with(SUITE));
        let lines = suite.flat_map(|case| &case.output);
        lines.filter_map(|line| vector(line)).collect()
    }
}

/// In the form in which it was read.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "@kernel {}\n@lsm {}", self.kernel, self.lsm)?;
        for case in &self.cases {
            writeln!(f, "@begin {}", case.name)?;
            for line in &case.output {
                writeln!(f, "| {line}")?;
            }
            writeln!(f, "@end {} {} {}", case.name, case.verdict, case.ms)?;
        }
        if self.done {
            writeln!(f, "@done")?;
        }
        Ok(())
    }
}

/// A row of the bypass suite's table: verdict, the mark of a control, user, name, remark.
fn vector(line: &str) -> Option<(String, &'static str)> {
    const VERDICTS: [&str; 5] = [
        "BLOCKED",
        "DELIVERED",
        "OPEN LIMIT",
        "NOT APPLICABLE",
        "UNPROVEN",
    ];
    let line = line.trim_start();
    let verdict = VERDICTS.into_iter().find(|word| line.starts_with(word))?;
    let mut words = line.get(verdict.len()..)?.split_whitespace();
    let mut word = words.next()?;
    if ["+", "!"].contains(&word) {
        word = words.next()?;
    }
    let name = words.next()?;
    ["user", "root"]
        .contains(&word)
        .then(|| (format!("{name} ({word})"), verdict))
}

impl Case {
    /// Whether everything it asks for was seen.
    pub(crate) fn held(&self) -> bool {
        self.verdict == "HELD"
    }

    /// Whether the kernel is too old for what it is about.
    pub(crate) fn is_absent(&self) -> bool {
        self.held() && self.output.iter().any(|line| line.contains(NOT_OFFERED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let mut report = Report::default();
        for line in [
            "@kernel 6.1.0-50-cloud-amd64",
            "@begin bypass/streams",
            "| test streams ... streams",
            "|   BLOCKED        + user tcp4                       REFUSED EPERM",
            "|   NOT APPLICABLE   root mptcp                      free: no",
            "| BLOCKED for another reason",
            "noise",
            "@end bypass/streams HELD 1234",
            "@begin burst/burst",
            "|   DELIVERED        user tcp4                       without a layer",
        ] {
            report.line(line);
        }
        assert_eq!(report.kernel, "6.1.0-50-cloud-amd64");
        assert!(!report.done);
        let verdicts: Vec<_> = report
            .cases
            .iter()
            .map(|case| case.verdict.as_str())
            .collect();
        assert_eq!(verdicts, ["HELD", BROKEN]);
        assert_eq!(report.cases.first().map(|case| case.ms), Some(1234));
        let vectors = [
            ("mptcp (root)", "NOT APPLICABLE"),
            ("tcp4 (user)", "BLOCKED"),
        ];
        let vectors = vectors.map(|(name, verdict)| (name.to_owned(), verdict));
        assert_eq!(report.vectors(), BTreeMap::from(vectors));

        let mut again = Report::default();
        for line in report.to_string().lines() {
            again.line(line);
        }
        assert_eq!(again.cases, report.cases);
        assert_eq!(again.age(), (6, 1));
    }
}
