//! `limits:` of `inspect:`: how much a request may be, and all of them together.

use egress_envelope::{
    judge::Limits,
    limit::{Rate, Span},
};

use super::value;
use crate::policy::{
    fault::{Findings, quote},
    schema::Loose,
    written::{Inspect, InspectLimits},
};

/// Bytes of a body that is judged, where the policy does not say.
const BODY: u64 = 1 << 20;
/// And the most that it may say: the process that judges has 512 MiB for everything.
const MAX_BODY: u64 = 16 << 20;

const BYTES: &str = "write a size, such as “512KiB” or “4MiB”";
const RATE: &str = "write a number and a time, such as “60/m” (s, m, h or d)";
const BYTE_RATE: &str = "write a size and a time, such as “10MiB/h” (s, m, h or d)";

/// The limits of a rule. Those that are not said do not hold, but for that of a body.
pub(super) fn read(inspect: &Inspect, findings: &mut Findings) -> Limits {
    const HELP: &str = "write a mapping, such as “limits: { body: 4MiB, requests: 60/m }”";
    let none = Limits {
        body: BODY,
        ..Limits::default()
    };
    let Some(limits) = value::field("limits", &inspect.limits, HELP, findings) else {
        return none;
    };
    findings.within("limits", |findings| {
        value::unknown::<InspectLimits>("“limits”", &limits.unknown, findings);
        let body = value::field("body", &limits.body, BYTES, findings);
        let body =
            body.and_then(|text| findings.within("body", |findings| body_of(text, findings)));
        Limits {
            body: body.unwrap_or(none.body),
            requests: rate("requests", &limits.requests, RATE, findings),
            recipients: rate("recipients", &limits.recipients, RATE, findings),
            bytes: rate("bytes", &limits.bytes, BYTE_RATE, findings),
        }
    })
}

fn body_of(text: &str, findings: &mut Findings) -> Option<u64> {
    let size = bytes(text).filter(|size| (1..=MAX_BODY).contains(size));
    if size.is_none() {
        let message = format!("{} is no size of a body that can be judged", quote(text));
        findings.note(message, format!("{BYTES}; at most {}MiB", MAX_BODY >> 20));
    }
    size
}

fn rate(
    key: &str,
    written: &Option<Loose<String>>,
    help: &'static str,
    findings: &mut Findings,
) -> Option<Rate> {
    let text = value::field(key, written, help, findings)?;
    let most = if help == RATE { number } else { bytes };
    let rate = text.split_once('/').and_then(|(amount, per)| {
        let per = Span::ALL.into_iter().find(|span| span.letter() == per)?;
        let most = most(amount).filter(|most| *most > 0)?;
        Some(Rate { most, per })
    });
    if rate.is_none() {
        let message = format!("{} is no limit in a time", quote(text));
        findings.within(key, |findings| findings.note(message, help));
    }
    rate
}

/// `512KiB`, `4MiB` or `1GiB`.
fn bytes(text: &str) -> Option<u64> {
    let units = [("KiB", 10_u32), ("MiB", 20), ("GiB", 30)];
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
    number(digits)?.checked_mul(1_u64 << shift)
}

fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}
