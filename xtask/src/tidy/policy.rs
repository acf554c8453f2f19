//! Shipped policies: every allowed destination says why. Whether a policy is valid is the
//! agent's to say (`egress-agent check`), not tidy's.

use std::path::Path;

use serde_yaml::Value;

use super::check::Fault;

/// Checks one policy.
pub(super) fn check(file: &Path, text: &str, faults: &mut Vec<Fault>) {
    let policy: Value = match serde_yaml::from_str(text) {
        Ok(policy) => policy,
        Err(error) => {
            let line = error.location().map_or(0, |place| place.line());
            faults.push(Fault::new(file, line, format!("is no YAML: {error}")));
            return;
        }
    };
    let allow = policy.get("allow").and_then(Value::as_sequence);
    for (rule, number) in allow.into_iter().flatten().zip(1..) {
        let why = rule.get("why").and_then(Value::as_str).unwrap_or_default();
        if why.trim().is_empty() {
            let what = format!("entry {number} of allow does not say why");
            faults.push(Fault::new(file, 0, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> usize {
        let mut faults = Vec::new();
        check(Path::new("policies/a.yaml"), text, &mut faults);
        faults.len()
    }

    #[test]
    fn every_allow_says_why() {
        assert_eq!(faults("version: 1"), 0);
        assert_eq!(faults("allow: []"), 0);
        assert_eq!(faults("allow:\n  - host: a.b\n    why: mail\n"), 0);
        assert_eq!(
            faults("allow:\n  - a.b:443\n  - host: a.b\n    why: ''\n"),
            2
        );
        assert_eq!(faults("allow: [\n"), 1);
    }
}
