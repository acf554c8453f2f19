//! The `proxy:` key.

use super::{document::Placed, value};
use crate::policy::{
    fault::Findings,
    proxy::{Choice, Direct, MAX_DIRECT, Proxy, Source, leads_to},
    schema::{self, LongProxy, Loose},
};

const HELP: &str = "write “proxy: http://HOST:PORT”, or “proxy: off” for none";

/// What is written of a proxy.
pub(super) fn lower(proxy: &Option<Loose<schema::Proxy>>, findings: &mut Findings) -> Choice {
    let Some(proxy) = value::field("proxy", proxy, HELP, findings) else {
        return Choice::Caller;
    };
    findings.within("proxy", |findings| match proxy {
        schema::Proxy::Short(text) if text == "off" => Choice::Off,
        schema::Proxy::Short(url) => read(url, findings).map_or(Choice::Caller, through),
        schema::Proxy::Long(long) => self::long(long, findings).map_or(Choice::Caller, through),
    })
}

fn through(proxy: Proxy) -> Choice {
    Choice::Through(Box::new(proxy))
}

fn long(long: &LongProxy, findings: &mut Findings) -> Option<Proxy> {
    value::unknown::<LongProxy>("“proxy”", &long.unknown, findings);
    if long.url.is_none() {
        findings.note("the proxy has no “url”", HELP);
    }
    let direct = direct(long, findings);
    let url = value::field("url", &long.url, HELP, findings)?;
    let proxy = findings.within("url", |findings| read(url, findings))?;
    Some(Proxy { direct, ..proxy })
}

fn read(url: &str, findings: &mut Findings) -> Option<Proxy> {
    Proxy::parse(url, Source::Policy)
        .map_err(|complaint| findings.complain(complaint))
        .ok()
}

fn direct(long: &LongProxy, findings: &mut Findings) -> Vec<Direct> {
    const HELP: &str = "write a list of names, such as “direct: [wiki.corp.example]”";
    let Some(list) = value::field("direct", &long.direct, HELP, findings) else {
        return Vec::new();
    };
    findings.within("direct", |findings| {
        if list.len() > MAX_DIRECT {
            findings.note(
                format!(
                    "“direct” has {} entries; at most {MAX_DIRECT} fit",
                    list.len()
                ),
                "name the domain above them, such as “*.corp.example”",
            );
        }
        let mut direct = Vec::new();
        for (index, text) in list.iter().take(MAX_DIRECT).enumerate() {
            findings.within(index, |findings| {
                let Some(text) = value::entry("a name", text, HELP, findings) else {
                    return;
                };
                match Direct::parse(text) {
                    Ok(one) => direct.push(one),
                    Err(complaint) => findings.complain(complaint),
                }
            });
        }
        direct
    })
}

/// Notes rules that lead to the proxy itself: spoken to directly, it leads anywhere.
pub(super) fn not_passed(choice: &Choice, allow: &[Placed], findings: &mut Findings) {
    let Choice::Through(proxy) = choice else {
        return;
    };
    for (path, written) in allow {
        if leads_to(&written.rule, proxy) {
            findings.note_at(
                path.clone(),
                format!("this rule leads to the proxy {proxy} itself, and by it anywhere"),
                "remove it: what the other rules permit goes through the proxy by itself",
            );
        }
    }
}
