//! What becomes of a connector that tries what it must not: it stands still, or it is ended.

use egress_envelope::judge::{Inspect, Mode, OnViolation};

use crate::{envelope::Judged, event::model::Body, kernel::instance::Instance, reload::say};

/// What is to become of it, and why; `None`: it goes on.
pub(super) fn of(inspect: &Inspect, judged: &Judged) -> Option<(OnViolation, String)> {
    let refusal = judged.refusals.iter().find(|it| it.reason.is_violation())?;
    let carried_out = inspect.mode == Mode::Enforce && inspect.on_violation != OnViolation::Refuse;
    carried_out.then(|| (inspect.on_violation, format!("{}: {refusal}", judged.name)))
}

/// Carries it out; `first` is the connector's first process. Answers the line that says so.
pub(super) fn carry_out(
    (what, why): (OnViolation, String),
    connector: &str,
    (instance, first): (&Instance, u32),
) -> Option<Body> {
    let name = instance.name();
    let (done, told, stays) = match what {
        OnViolation::Refuse => return None,
        OnViolation::Freeze => (
            instance.freeze(first),
            format!(
                "the connector is frozen ({why}); look at it, then let it go on with “egress-agent \
                 thaw {name}” as root, or end it"
            ),
            "cannot be frozen",
        ),
        OnViolation::Kill => (
            instance.kill_connector(),
            format!("the connector is ended ({why})"),
            "cannot be ended",
        ),
    };
    let line = match done {
        Ok(()) => told,
        Err(error) => format!("the connector {stays} ({why}): {error}; end the agent"),
    };
    Some(say::warning(connector, name, "violation", line))
}
