//! A record as one aligned line that a person reads while tailing. Pure.

use std::fmt::Write as _;

use crate::event::{
    escape,
    model::{Body, Denial, Destination, Operation, Record},
};

/// When to use colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set (no-color.org) or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Whether to use colour, given what standard output or error is connected to and the
    /// values of two environment variables.
    pub fn enabled(self, terminal: bool, no_color: Option<&str>, term: Option<&str>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                terminal && no_color.unwrap_or_default().is_empty() && term != Some("dumb")
            }
        }
    }
}

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const MAGENTA: &str = "\x1b[35m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// The line, without a line end. Text that others chose is escaped.
pub fn line(record: &Record, color: bool) -> String {
    let mut line = Line::new(color);
    line.cell(&format!("{:.3}", record.time), 24, DIM);
    match &record.body {
        Body::Denied(denial) => line.denial("denied", RED, denial),
        Body::WouldDeny(denial) => line.denial("would-deny", YELLOW, denial),
        Body::Layers(body) => line.layers(body),
        Body::Operation(body) => line.operation(body),
        Body::Started(body) => {
            line.head("started", GREEN, Some(&body.connector));
            line.rest(&format!(
                "mode {}, {}, user {}",
                escape::field(&body.mode),
                counted(body.rules, "rule"),
                body.uid
            ));
            if let Some(proxy) = &body.proxy {
                line.rest(&format!("proxy {}", escape::inner(proxy)));
            }
            line.rest(&words(&body.command));
        }
        Body::Stopped(body) => line.stopped(body),
        Body::Lost(body) => line.lost(body),
        Body::Policy(body) => {
            line.head("policy", GREEN, Some(&body.connector));
            line.rest(&format!("mode {}", escape::field(&body.mode)));
            for (sign, rules) in [('+', &body.added), ('-', &body.removed)] {
                for rule in rules {
                    line.rest(&format!("{sign}{}", escape::field(rule)));
                }
            }
        }
        Body::NameUnresolved(body) => {
            line.head("unresolved", YELLOW, Some(&body.connector));
            line.rest(&escape::field(&body.name));
            line.rest(&escape::inner(&body.message));
        }
        Body::Warning(body) => {
            line.head("warning", YELLOW, body.connector.as_deref());
            line.rest(&escape::field(&body.topic));
            line.rest(&escape::inner(&body.message));
        }
    }
    line.text.truncate(line.text.trim_end().len());
    line.text
}

struct Line {
    text: String,
    color: bool,
}

impl Line {
    fn new(color: bool) -> Self {
        let text = String::with_capacity(160);
        Self { text, color }
    }

    /// A column: at least `width` characters and two blanks.
    fn cell(&mut self, text: &str, width: usize, style: &str) {
        let pad = width.saturating_sub(text.chars().count()) + 2;
        if self.color && !style.is_empty() {
            self.text.extend([style, text, PLAIN]);
        } else {
            self.text.push_str(text);
        }
        self.text.extend(std::iter::repeat_n(' ', pad));
    }

    fn rest(&mut self, text: &str) {
        if !text.is_empty() {
            self.cell(text, 0, "");
        }
    }

    fn head(&mut self, verb: &str, style: &str, connector: Option<&str>) {
        self.cell(verb, 10, style);
        self.cell(&connector.map_or("-".into(), escape::field), 12, BOLD);
    }

    fn denial(&mut self, verb: &str, style: &str, denial: &Denial) {
        self.head(verb, style, denial.connector.as_deref());
        self.cell(denial.layer.as_str(), 7, "");
        self.cell(&escape::field(&denial.protocol), 4, "");
        let target = match &denial.call {
            Some(call) => format!("{}()", escape::field(call)),
            None => destination(&denial.destination),
        };
        self.cell(&target, 32, BOLD);
        self.cell(denial.reason.as_str(), 16, style);
        match &denial.process {
            Some(process) => {
                self.rest(&format!(
                    "{}[{}]",
                    escape::field(&process.comm),
                    process.pid
                ));
            }
            None => self.rest("-"),
        }
        if let Some(rule) = &denial.rule {
            self.rest(&format!("rule {}", escape::field(rule)));
        }
        if denial.count > 1 {
            self.rest(&format!("x{}", denial.count));
        }
        if denial.lost > 0 {
            self.cell(&format!("+{} lost", denial.lost), 0, MAGENTA);
        }
        if let Some(message) = &denial.message {
            self.rest(&escape::inner(message));
        }
    }

    fn operation(&mut self, body: &Operation) {
        let (verb, style) = match body.verdict.as_str() {
            Operation::REFUSED => ("refused", RED),
            Operation::WOULD_REFUSE => ("would-refuse", YELLOW),
            _ => ("operation", GREEN),
        };
        self.head(verb, style, Some(&body.connector));
        let (method, path) = (escape::field(&body.method), escape::field(&body.path));
        let name = escape::field(&body.name);
        self.cell(&format!("{method} {name}:{}{path}", body.port), 32, BOLD);
        if let Some(operation) = &body.operation {
            self.rest(&escape::field(operation));
        }
        for refusal in &body.refusals {
            self.cell(&escape::field(&refusal.reason), 0, style);
            self.rest(&escape::inner(&refusal.message));
        }
        if body.refusals.is_empty() {
            for to in &body.recipients {
                let (value, origin) = (escape::field(&to.value), escape::field(&to.origin));
                self.rest(&format!("{value} ({origin})"));
            }
        }
        for new in &body.new {
            self.rest(&escape::inner(new));
        }
        if let Some(tool) = &body.tool {
            let call = body.call.as_deref().map(escape::field);
            let call = call.map(|call| format!(" #{call}")).unwrap_or_default();
            self.rest(&format!("in {}{call}", escape::field(tool)));
        }
        if let Some(status) = body.status {
            self.rest(&status.to_string());
        }
    }

    fn layers(&mut self, body: &crate::event::model::LayersFound) {
        let style = if body.missing.is_empty() {
            GREEN
        } else {
            YELLOW
        };
        self.head("layers", style, Some(&body.connector));
        self.rest(&words(&body.active));
        for missing in &body.missing {
            let layer = escape::field(&missing.layer);
            let (why, open) = (escape::inner(&missing.why), escape::inner(&missing.open));
            self.rest(&format!("without {layer} ({why}): open: {open}"));
        }
    }

    fn stopped(&mut self, body: &crate::event::model::Stopped) {
        self.head("stopped", GREEN, Some(&body.connector));
        match (body.exit.code, body.exit.signal) {
            (Some(code), Some(signal)) => self.rest(&format!("exit {code} (signal {signal})")),
            (Some(code), None) => self.rest(&format!("exit {code}")),
            (None, Some(signal)) => self.rest(&format!("signal {signal}")),
            (None, None) => {}
        }
        let connections = body.allowed.iter().map(|rule| rule.connections);
        let bytes = body.allowed.iter().map(|rule| rule.bytes);
        self.rest(&format!(
            "{} allowed, {} out",
            counted(sum(connections), "connection"),
            counted(sum(bytes), "byte")
        ));
        self.rest(&format!(
            "{} denied{}",
            sum(body.denied.values().copied()),
            reasons(&body.denied)
        ));
        if body.unanswered > 0 {
            self.rest(&format!(
                "{} that no DNS server answered",
                counted(body.unanswered, "look-up")
            ));
        }
        let hidden = sum(body.not_shown.values().copied());
        if hidden > 0 || body.unwritten > 0 {
            self.cell(&missing(hidden, body.lost, body.unwritten), 0, MAGENTA);
        }
    }

    fn lost(&mut self, body: &crate::event::model::Lost) {
        self.head("lost", MAGENTA, body.connector.as_deref());
        let hidden = sum(body.not_shown.values().copied());
        self.rest(&format!(
            "{} of {} denials not shown{}",
            hidden,
            body.denied,
            reasons(&body.not_shown)
        ));
        if body.lost > 0 {
            self.rest(&format!("+{} lost", body.lost));
        }
        if body.unwritten > 0 {
            self.rest(&format!("{} not written", counted(body.unwritten, "line")));
        }
        if body.malformed > 0 {
            self.rest(&format!("{} unreadable", counted(body.malformed, "record")));
        }
    }
}

fn missing(hidden: u64, lost: u64, unwritten: u64) -> String {
    let mut text = format!("{hidden} not shown ({lost} lost)");
    if unwritten > 0 {
        text += &format!(", {} not written", counted(unwritten, "line"));
    }
    text
}

fn destination(to: &Destination) -> String {
    if let Some(path) = &to.path {
        return escape::field(path);
    }
    let name = to.name.as_deref().map(escape::field);
    let port = to.port.map(|port| format!(":{port}")).unwrap_or_default();
    let query = to.query.as_deref().map(escape::field);
    match (name, to.ip, query) {
        (Some(name), Some(ip), Some(query)) => format!("{name} {query} ({ip})"),
        (Some(name), None, Some(query)) => format!("{name} {query}"),
        (Some(name), Some(ip), None) => format!("{name}{port} ({ip})"),
        (Some(name), None, None) => format!("{name}{port}"),
        (None, Some(std::net::IpAddr::V6(ip)), _) => format!("[{ip}]{port}"),
        (None, Some(ip), _) => format!("{ip}{port}"),
        (None, None, _) => "-".into(),
    }
}

fn reasons(counts: &std::collections::BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return String::new();
    }
    let mut text = String::from(" (");
    for (index, (reason, count)) in counts.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        write!(text, "{comma}{} {count}", escape::field(reason)).unwrap_or_default();
    }
    text + ")"
}

fn words(list: &[String]) -> String {
    list.iter()
        .map(|word| escape::field(word))
        .collect::<Vec<_>>()
        .join(" ")
}

fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use super::*;
    use crate::event::model::{
        ProcessFacts,
        tests::{denial, every_kind, record},
    };

    #[test]
    fn the_line_of_a_denial() {
        let shown = line(&record(Body::Denied(denial())), false);
        assert_eq!(
            shown,
            "2026-03-04T05:06:07.089Z  denied      postmark      connect  tcp   \
             giftshop.club:443 (203.0.113.7)   no-rule           node[4242]"
        );
        let mut other = Denial {
            count: 12,
            lost: 3,
            process: None,
            rule: Some("a:443/tcp".into()),
            ..denial()
        };
        other.destination.name = None;
        other.destination.ip = Some("2001:db8::7".parse().unwrap());
        let shown = line(&record(Body::WouldDeny(other)), false);
        assert!(
            shown.ends_with("[2001:db8::7]:443                 no-rule           -  rule a:443/tcp  x12  +3 lost"),
            "{shown}"
        );
    }

    #[test]
    fn every_kind_is_one_line() {
        for record in every_kind() {
            let plain = line(&record, false);
            assert!(plain.bytes().all(|byte| byte >= 0x20), "{plain}");
            let colored = line(&record, true);
            let mut stripped = colored.clone();
            for code in [RED, YELLOW, GREEN, MAGENTA, DIM, BOLD, PLAIN] {
                stripped = stripped.replace(code, "");
            }
            assert_eq!(stripped, plain);
            assert_ne!(colored, plain);
        }
    }

    #[test]
    fn hostile_text_stays_in_its_column() {
        let hostile = "x\n2026 denied \x1b[2K\u{202e}\u{9b}0m";
        let mut denial = Denial {
            connector: Some(hostile.into()),
            rule: Some(hostile.into()),
            protocol: hostile.into(),
            process: Some(ProcessFacts {
                pid: 1,
                uid: None,
                comm: hostile.into(),
                exe: None,
                cmdline: vec![],
                parents: vec![],
            }),
            ..denial()
        };
        denial.destination.name = Some(hostile.into());
        let shown = line(&record(Body::Denied(denial)), false);
        assert!(
            shown.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            "{shown}"
        );
    }

    #[test]
    fn colour_is_asked_for() {
        assert!(Color::Auto.enabled(true, None, Some("xterm")));
        assert!(Color::Auto.enabled(true, Some(""), None));
        assert!(!Color::Auto.enabled(true, Some("1"), None));
        assert!(!Color::Auto.enabled(true, None, Some("dumb")));
        assert!(!Color::Auto.enabled(false, None, None));
        assert!(Color::Always.enabled(false, Some("1"), None));
        assert!(!Color::Never.enabled(true, None, None));
    }
}
