//! Whether a recipient is one that a policy takes: where it came from, and whether that is enough.

use crate::{
    judge::{Inspect, Origin, Pattern, Recipients},
    ledger::Ledger,
    value::{Kind, canonical},
};

impl Inspect {
    /// Where a value in its canonical form came from. Of several sources the one is told by which it
    /// is permitted; of those, the nearest.
    pub fn origin(&self, kind: Kind, value: &str, ledger: &Ledger) -> Origin {
        let is_listed = || {
            self.listed
                .iter()
                .any(|pattern| pattern.covers(kind, value))
        };
        let found = ledger.find(kind, value);
        match (&self.recipients, found) {
            (Recipients::Listed, _) if is_listed() => Origin::Listed,
            (_, Some(named @ (Origin::Call { .. } | Origin::Operator))) => named,
            _ if is_listed() => Origin::Listed,
            (_, found) => found.unwrap_or(Origin::Nowhere),
        }
    }

    /// Whether a recipient from there may be one. An answer of the service is not enough: a
    /// stranger's mail is one.
    pub fn permits(&self, origin: &Origin) -> bool {
        match (self.recipients, origin) {
            (Recipients::Any, _) | (_, Origin::Listed) => true,
            (Recipients::FromCall, Origin::Call { .. } | Origin::Operator) => true,
            (Recipients::FromCall | Recipients::Listed, _) => false,
        }
    }
}

impl Pattern {
    /// Whether a value in its canonical form is listed by it.
    pub fn covers(&self, kind: Kind, value: &str) -> bool {
        match self.0.strip_prefix("*@") {
            Some(domain) => {
                let own = value.rsplit_once('@').map(|(_, domain)| domain);
                kind == Kind::Mail && own.is_some_and(|own| own.eq_ignore_ascii_case(domain))
            }
            None => canonical(kind, &self.0).iter().any(|form| form == value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::{Limits, Mode, OnViolation, Unlisted},
        leaves::Leaf,
        mcp::Call,
        service::Service,
        shape::Shape,
    };

    fn inspect(recipients: Recipients, listed: &[&str]) -> Inspect {
        Inspect {
            service: Service::default(),
            recipients,
            listed: listed
                .iter()
                .map(|text| Pattern((*text).to_owned()))
                .collect(),
            unlisted: Unlisted::Refuse,
            mode: Mode::Enforce,
            limits: Limits::default(),
            content: None,
            on_violation: OnViolation::Refuse,
            shape: Shape::Off,
        }
    }

    #[test]
    fn each_setting_takes_its_sources() {
        let mut ledger = Ledger::new();
        let to = Leaf {
            place: "/to".into(),
            text: "called@a.example".into(),
        };
        ledger.called(Call {
            id: None,
            tool: "send".into(),
            named: vec![to],
            left_out: 0,
        });
        ledger.operator("operator@a.example");
        ledger.answered(Kind::Mail, "answered@a.example");
        let listed = ["*@b.example", "one@c.example"];
        for (value, from_call, only_listed) in [
            ("called@a.example", true, false),
            ("operator@a.example", true, false),
            ("answered@a.example", false, false),
            ("stranger@a.example", false, false),
            ("anybody@b.example", true, true),
            ("anybody@sub.b.example", false, false),
            ("anybody@xb.example", false, false),
            ("one@c.example", true, true),
            ("two@c.example", false, false),
        ] {
            for (recipients, permitted) in [
                (Recipients::FromCall, from_call),
                (Recipients::Listed, only_listed),
                (Recipients::Any, true),
            ] {
                let inspect = inspect(recipients, &listed);
                let origin = inspect.origin(Kind::Mail, value, &ledger);
                assert_eq!(
                    inspect.permits(&origin),
                    permitted,
                    "{value} {recipients:?} {origin:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_named_and_listed_is_permitted_in_every_setting() {
        let mut ledger = Ledger::new();
        ledger.operator("one@c.example");
        for recipients in [Recipients::FromCall, Recipients::Listed] {
            let inspect = inspect(recipients, &["One@c.example"]);
            let origin = inspect.origin(Kind::Mail, "one@c.example", &ledger);
            assert!(inspect.permits(&origin), "{recipients:?} {origin:?}");
        }
    }
}
