//! Ports and ranges of ports.

use crate::policy::{
    fault::{Complaint, Findings, quote},
    model::PortSpan,
    schema::{Loose, Port},
};
use egress_common::abi::DNS_PORT;

use super::value;

const HELP: &str = "write ports from 1 to 65535, such as “ports: [443, \"6432-6440\"]”";

/// Entries of one `ports:` list.
const MAX_ENTRIES: usize = 256;

/// The ports of a rule: sorted, neighbours joined. Overlaps are faults.
pub(super) fn lower(list: &[Loose<Port>], findings: &mut Findings) -> Vec<PortSpan> {
    if list.is_empty() {
        findings.note("“ports” is an empty list", HELP);
    }
    if list.len() > MAX_ENTRIES {
        findings.note(
            format!(
                "“ports” has {} entries; at most {MAX_ENTRIES} fit",
                list.len()
            ),
            "combine neighbours to ranges, such as \"8000-8100\"",
        );
    }
    let mut spans: Vec<PortSpan> = Vec::new();
    for (index, port) in list.iter().take(MAX_ENTRIES).enumerate() {
        findings.within(index, |findings| {
            let Some(port) = value::entry("a port", port, HELP, findings) else {
                return;
            };
            match span(port) {
                Err(complaint) => findings.complain(complaint),
                Ok(span) => match spans.iter().find(|other| overlap(other, &span)) {
                    Some(other) => findings.note(
                        format!("{} overlaps {}", spoken(&span), spoken(other)),
                        "name each port once",
                    ),
                    None => spans.push(span),
                },
            }
        });
    }
    join(spans)
}

/// All ports: what a `deny` rule without `ports` covers.
pub(super) const ALL: PortSpan = PortSpan {
    first: 1,
    last: u16::MAX,
};

/// Why a rule may not lead to port 53, if the span holds it.
pub(super) fn dns_port(span: &PortSpan) -> Option<Complaint> {
    if !holds(span, DNS_PORT) {
        return None;
    }
    let message = "port 53 always leads to the connector's own DNS door";
    if span.first == span.last {
        return Some(Complaint::new(message, "remove it"));
    }
    let below = (span.first < DNS_PORT).then(|| format!("\"{}-{}\"", span.first, DNS_PORT - 1));
    let above = (span.last > DNS_PORT).then(|| format!("\"{}-{}\"", DNS_PORT + 1, span.last));
    let rest: Vec<String> = below.into_iter().chain(above).collect();
    let help = format!("leave it out of the range: {}", rest.join(", "));
    Some(Complaint::new(message, help))
}

/// A port in a short form.
pub(super) fn single(text: &str) -> Result<PortSpan, Complaint> {
    if text.contains('-') {
        return Err(Complaint::new(
            format!("{} is a range, and short forms take one port", quote(text)),
            format!("write “host: …” with “ports: [\"{}\"]”", short(text)),
        ));
    }
    let port = number(text)?;
    Ok(PortSpan {
        first: port,
        last: port,
    })
}

/// The number of ports in a list of spans.
pub(super) fn count(spans: &[PortSpan]) -> usize {
    spans
        .iter()
        .map(|span| usize::from(span.last - span.first) + 1)
        .sum()
}

/// A port, or a range of ports, in a short form.
pub(super) fn text(text: &str) -> Result<PortSpan, Complaint> {
    span(&Port::Range(text.to_owned()))
}

fn span(port: &Port) -> Result<PortSpan, Complaint> {
    let text = match port {
        Port::Number(number) => number.to_string(),
        Port::Range(text) => text.clone(),
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(Complaint::new(
            format!("the range {} runs backwards", quote(&text)),
            format!("write \"{last}-{first}\""),
        ));
    }
    Ok(PortSpan { first, last })
}

fn number(text: &str) -> Result<u16, Complaint> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(Complaint::new(format!("{} is no port", quote(text)), HELP)),
    }
}

fn join(mut spans: Vec<PortSpan>) -> Vec<PortSpan> {
    spans.sort_unstable();
    let mut joined: Vec<PortSpan> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.last.checked_add(1) == Some(span.first) => last.last = span.last,
            _ => joined.push(span),
        }
    }
    joined
}

fn overlap(a: &PortSpan, b: &PortSpan) -> bool {
    a.first <= b.last && b.first <= a.last
}

fn holds(span: &PortSpan, port: u16) -> bool {
    span.first <= port && port <= span.last
}

fn spoken(span: &PortSpan) -> String {
    if span.first == span.last {
        return format!("port {}", span.first);
    }
    format!("the range {}-{}", span.first, span.last)
}

fn short(text: &str) -> String {
    text.chars()
        .take(11)
        .filter(|c| c.is_ascii_digit() || *c == '-')
        .collect()
}
