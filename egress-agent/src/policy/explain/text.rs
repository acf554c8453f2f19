//! An explanation for a person.

use std::fmt;

use super::story::{Answer, Explanation, RuleRef, Stage};
use crate::policy::fault::quiet;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for answer in &self.answers {
            head(f, &self.connector, answer)?;
            for line in &answer.stages {
                stage(f, line)?;
            }
        }
        for hint in &self.hints {
            writeln!(f, "  note: {}", quiet(hint))?;
        }
        Ok(())
    }
}

fn head(f: &mut fmt::Formatter<'_>, connector: &str, answer: &Answer) -> fmt::Result {
    let outcome = match answer.action {
        "allow" => "allowed",
        "redirect" => "led to the connector's own DNS door",
        "audit" => "would be denied (audit mode: passes and is reported)",
        _ => "denied",
    };
    let destination = quiet(&answer.destination);
    let arrow = if answer.direction == "in" {
        "←"
    } else {
        "→"
    };
    writeln!(f, "{connector} {arrow} {destination}: {outcome}")
}

fn stage(f: &mut fmt::Formatter<'_>, stage: &Stage) -> fmt::Result {
    write!(f, "  {:<8} {:<8}", stage.layer, stage.action)?;
    if stage.reason != "none" {
        write!(f, " {}", stage.reason)?;
    }
    if let Some(RuleRef { id, why }) = &stage.rule {
        write!(f, " by rule {}", quiet(id))?;
        if let Some(why) = why {
            write!(f, " ({})", quiet(why))?;
        }
    }
    writeln!(f)
}
