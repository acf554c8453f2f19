//! What a start tells the operator before the connector runs.

use super::Run;
use crate::{
    host::inherited::file_limit,
    kernel::leftovers::Leftovers,
    policy::{model::Target, name::HostPattern, open},
    reload::say,
};

/// What the operator should know before anything runs: topic and message.
pub(super) fn cautions(run: &Run) -> impl Iterator<Item = (&'static str, String)> {
    let changeable = run.changeable.as_ref().map(|found| {
        let told = say::changeable(&run.policy, run.user.uid, found);
        ("policy", told)
    });
    let files = file_limit().map(|bytes| {
        let told = format!(
            "a limit of the caller's (ulimit -f) cannot be lifted: no file of the agent's holds \
             more than {bytes} bytes; events that find no room are counted (unwritten)"
        );
        ("limits", told)
    });
    let wide = run.policy.written();
    let wide = wide.filter(|rule| rule.target == Target::Host(HostPattern::Public));
    let wide = wide.map(|rule| ("internet", say::internet(&rule.id)));
    let unsettled = run.unsettled.iter().cloned().map(|told| ("session", told));
    let open = open::all(&run.policy).into_iter();
    let open = open.map(|told| ("open", told));
    let all = changeable.into_iter().chain(files).chain(wide);
    all.chain(unsettled).chain(open)
}

/// What became of that which dead agents had left, for people.
pub(super) fn leftovers(cleaned: &Leftovers) -> impl Iterator<Item = String> {
    let ended = cleaned
        .ended
        .iter()
        .map(|name| format!("ended {name}, which a dead agent had left"));
    let kept = cleaned.kept.iter().map(|(name, error)| {
        format!("{name}, which a dead agent had left, stays confined: {error}; the next start tries again")
    });
    ended.chain(kept)
}
