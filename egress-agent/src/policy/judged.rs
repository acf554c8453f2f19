//! What rules with `inspect:` mean, and where they mean less than they seem to, in words. Pure.

use egress_envelope::judge::{Inspect, Limits, Mode, OnViolation, Recipients, Unlisted};

use super::model::{Policy, Rule, Target};

/// One sentence for each such rule.
pub fn meanings(policy: &Policy) -> Vec<String> {
    let rules = policy.inspected();
    let mut all: Vec<String> = rules
        .map(|(_, name, inspect)| meaning(name.as_str(), &inspect))
        .collect();
    if let Some(content) = &policy.content {
        let kinds: Vec<&str> = content.refuse.iter().map(|kind| kind.name()).collect();
        all.push(format!(
            "these are refused with a secret in them where it does not belong ({})",
            kinds.join(", ")
        ));
    }
    all.extend(match policy.on_violation {
        OnViolation::Refuse => None,
        OnViolation::Freeze => Some("a connector that tries what it must not is frozen".to_owned()),
        OnViolation::Kill => Some("a connector that tries what it must not is ended".to_owned()),
    });
    all
}

fn meaning(host: &str, inspect: &Inspect) -> String {
    let count = inspect.service.operations.len();
    let operations = match (count, inspect.service.service.as_str()) {
        (0, _) => "no operation is known".to_owned(),
        (1, "") => "1 operation".to_owned(),
        (_, "") => format!("{count} operations"),
        (_, service) => format!("{service}, {count} operations"),
    };
    let listed = match inspect.listed.len() {
        0 => String::new(),
        1 => ", or the one listed".to_owned(),
        count => format!(", or one of the {count} listed"),
    };
    let recipients = match inspect.recipients {
        Recipients::FromCall => {
            format!("recipients are those that tool calls or the operator named{listed}")
        }
        Recipients::Listed => format!("recipients are the {} listed", inspect.listed.len()),
        Recipients::Any => "everybody may be a recipient".to_owned(),
    };
    let unlisted = match inspect.unlisted {
        Unlisted::Refuse => "other operations are refused",
        Unlisted::Report => "other operations pass and are reported",
    };
    let mode = match inspect.mode {
        Mode::Enforce => "",
        Mode::Report => "; report mode: nothing is refused",
    };
    let limits = match limits(&inspect.limits).as_slice() {
        [] => String::new(),
        limits => format!("; at most {}", limits.join(", ")),
    };
    format!("requests to {host} are judged ({operations}): {recipients}; {unlisted}{limits}{mode}")
}

/// Limits in a time, in words.
pub(super) fn limits(limits: &Limits) -> Vec<String> {
    let all = [
        ("requests", limits.requests),
        ("recipients", limits.recipients),
        ("bytes of bodies", limits.bytes),
    ];
    let said = all
        .into_iter()
        .filter_map(|(what, rate)| Some(format!("{what} {}", rate?)));
    said.collect()
}

/// Why a policy cannot be put in force: requests would pass that its rules say are judged.
pub fn unfit(policy: &Policy) -> Option<String> {
    let proxy = policy.through()?;
    let (_, name, _) = policy.inspected().next()?;
    let proxied = policy.inspected().find(|(_, name, _)| proxy.takes(name));
    Some(match proxied {
        Some((_, name, _)) => format!(
            "connections to {name} go through the proxy {proxy}, where nothing is judged; add the \
             name to “proxy.direct”, write “proxy: off”, or remove “inspect”"
        ),
        None => format!(
            "the proxy {proxy} and requests that are judged ({name}) do not go together in one \
             policy; write “proxy: off”, or remove “inspect”"
        ),
    })
}

/// Where they mean less.
pub fn cautions(policy: &Policy) -> Vec<String> {
    let mut cautions = Vec::new();
    for (index, name, inspect) in policy.inspected() {
        let Some(rule) = policy.allow.get(index) else {
            continue;
        };
        if inspect.recipients == Recipients::FromCall && !policy.listen.is_empty() {
            cautions.push(format!(
                "rule {}: recipients come from tool calls on the connector's standard input, and this \
                 connector is called over the network (listen): calls that come that way are not \
                 seen, so their recipients are refused unless they are listed",
                rule.id
            ));
        }
        let round = policy.allow.iter().filter(|other| by_address(other, rule));
        cautions.extend(round.map(|other| {
            format!(
                "rule {} leads to addresses whatever is said there: where it covers one of {name}, \
                 requests to it are not judged",
                other.id
            )
        }));
    }
    cautions
}

/// Whether a rule permits addresses at a port of another rule.
fn by_address(rule: &Rule, judged: &Rule) -> bool {
    let meets = |span| judged.ports.iter().any(|other| other.meets(span));
    matches!(rule.target, Target::Cidr(_)) && rule.protocols.tcp && rule.ports.iter().any(meets)
}
