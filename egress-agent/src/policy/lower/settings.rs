//! The `dns:` block.

use std::{collections::BTreeMap, time::Duration};

use super::value;
use crate::policy::{
    fault::{Findings, quote},
    model::DnsSettings,
    name::Name,
    schema::{Dns, Loose, Ttl},
    server::Server,
};

/// How names become addresses.
pub(super) fn dns(dns: &Dns, findings: &mut Findings) -> DnsSettings {
    value::unknown::<Dns>("“dns”", &dns.unknown, findings);
    let mut settings = DnsSettings {
        servers: value::field("servers", &dns.servers, SERVERS, findings)
            .map(|list| findings.within("servers", |findings| servers(list, findings)))
            .unwrap_or_default(),
        domains: domains(dns, findings),
        ..DnsSettings::default()
    };
    let help = "write a mapping with “floor:”, “ceiling:” and “grace:”";
    if let Some(ttl) = value::field("ttl", &dns.ttl, help, findings) {
        findings.within("ttl", |findings| times(ttl, &mut settings, findings));
    }
    settings
}

const SERVERS: &str =
    "write a list of addresses, such as [192.0.2.53, \"[2001:db8::53]:5353\", \"fe80::1%eth0\"]";
/// Servers of one list.
const MAX_SERVERS: usize = 8;
/// Domains with servers of their own.
const MAX_DOMAINS: usize = 64;

fn servers(list: &[Loose<String>], findings: &mut Findings) -> Vec<Server> {
    let mut servers = Vec::new();
    if list.len() > MAX_SERVERS {
        findings.note("more than 8 DNS servers", "keep the nearest ones");
    }
    for (index, server) in list.iter().enumerate() {
        findings.within(index, |findings| {
            let Some(text) = value::entry("a DNS server", server, SERVERS, findings) else {
                return;
            };
            match Server::parse(text) {
                None => findings.note(format!("{} is no DNS server", quote(text)), SERVERS),
                Some(server) if servers.contains(&server) => {
                    findings.note(format!("{server} is listed twice"), "remove one of them");
                }
                Some(server) => servers.push(server),
            }
        });
    }
    servers
}

fn domains(dns: &Dns, findings: &mut Findings) -> BTreeMap<Name, Vec<Server>> {
    const HELP: &str = "write a mapping of domains to servers, such as “corp.example: [10.0.0.53]”";
    let Some(map) = value::field("domains", &dns.domains, HELP, findings) else {
        return BTreeMap::new();
    };
    findings.within("domains", |findings| {
        let mut domains = BTreeMap::new();
        if map.len() > MAX_DOMAINS {
            findings.note(
                "more than 64 domains",
                "name a domain above several of them",
            );
        }
        for (text, list) in map {
            let name = match Name::parse(text) {
                Ok(name) => name,
                Err(error) => {
                    let message = format!("the domain {} {error}", quote(text));
                    let help = "write the domain alone, such as “corp.example:”; names below it \
                                are meant, too";
                    findings.note_key(text, 0, message, help);
                    continue;
                }
            };
            let servers = findings.within(text.as_str(), |findings| {
                let list = value::entry("the list of servers", list, SERVERS, findings)?;
                if list.is_empty() {
                    findings.note("the list of servers is empty", SERVERS);
                }
                Some(servers(list, findings))
            });
            if domains.insert(name, servers.unwrap_or_default()).is_some() {
                findings.note_key(
                    text,
                    0,
                    format!("the domain {} stands here twice", quote(text)),
                    "remove one of the two",
                );
            }
        }
        domains
    })
}

fn times(ttl: &Ttl, settings: &mut DnsSettings, findings: &mut Findings) {
    const HOUR: Duration = Duration::from_secs(3_600);
    value::unknown::<Ttl>("“ttl”", &ttl.unknown, findings);
    let zero = Duration::ZERO;
    let day = HOUR.saturating_mul(24);
    if let Some(floor) = time("floor", &ttl.floor, zero, HOUR, findings) {
        settings.ttl_floor = floor;
    }
    if let Some(ceiling) = time(
        "ceiling",
        &ttl.ceiling,
        Duration::from_secs(1),
        day,
        findings,
    ) {
        settings.ttl_ceiling = ceiling;
    }
    if let Some(grace) = time("grace", &ttl.grace, zero, HOUR, findings) {
        settings.grace = grace;
    }
    if settings.ttl_floor > settings.ttl_ceiling {
        findings.note(
            format!(
                "the floor ({}) is above the ceiling ({})",
                spoken(settings.ttl_floor),
                spoken(settings.ttl_ceiling)
            ),
            "lower “floor:” or raise “ceiling:” (defaults: 30s and 1h)",
        );
    }
}

fn time(
    key: &str,
    value: &Option<Loose<String>>,
    least: Duration,
    most: Duration,
    findings: &mut Findings,
) -> Option<Duration> {
    let help = format!(
        "write a number with s, m or h behind it, from {} to {}, such as “30s”",
        spoken(least),
        spoken(most)
    );
    let text = value::field(key, value, &help, findings)?;
    match duration(text) {
        Some(time) if least <= time && time <= most => Some(time),
        _ => {
            findings.within(key, |findings| {
                findings.note(format!("{} is no usable time", quote(text)), help);
            });
            None
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        _ => return None,
    };
    let digits = text.strip_suffix(unit)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds > 0 && seconds.is_multiple_of(3_600) {
        format!("{}h", seconds / 3_600)
    } else {
        format!("{seconds}s")
    }
}
