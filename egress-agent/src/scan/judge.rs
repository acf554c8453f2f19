//! Configurations → servers and findings. Decides by structure alone. Pure: policies come in by
//! a question that the caller answers.

use std::collections::BTreeMap;

use super::{
    find::Config,
    finding::{self, Finding, Rule, Severity},
    guard::Guard,
    known,
    pinned::{Origin, origin},
    program::{Agent, Program, base, understand},
    secret,
    server::{Server, servers},
    shell, wallet,
};
use crate::{
    host::User,
    policy::model::{Mode, Policy, Target},
    policy::name::HostPattern,
};

/// Days in audit mode after which it looks forgotten.
pub const AUDIT_DAYS: u64 = 14;

/// One server, for the list of what was looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which of the configurations it is in.
    pub config: usize,
    /// Its name there.
    pub name: String,
    /// Line of its name.
    pub line: usize,
    /// It is switched off.
    pub off: bool,
    /// It is reached by an address.
    pub remote: bool,
    /// The agent is in front of it.
    pub confined: bool,
    /// Package, program or host: without arguments, which could hold secrets.
    pub starts: String,
}

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// Servers, in the order of the files.
    pub servers: Vec<Seen>,
    /// Findings, in the order of the files and lines.
    pub findings: Vec<Finding>,
}

/// Judges all configurations together.
pub fn judge(configs: &[Config], mut guard: impl FnMut(&Agent, &User) -> Guard) -> Judged {
    let mut judged = Judged::default();
    let mut names: BTreeMap<(u32, String), (String, String)> = BTreeMap::new();
    for (at, config) in configs.iter().enumerate() {
        let mut sink = Sink {
            config,
            server: None,
            found: Vec::new(),
        };
        if let Some(others) = &config.others {
            sink.add(
                &finding::WRITABLE,
                1,
                "",
                format!("{others}, which decides what is started here"),
            );
        }
        match &config.tree {
            Err(unread) => sink.add(&finding::UNREAD, unread.line, "", unread.why.to_owned()),
            Ok(tree) => {
                let servers = config.client.keys.iter().flat_map(|keys| {
                    let shared = !config.project && !keys.contains('*');
                    let found = tree.at(keys).into_iter().flat_map(servers);
                    found.map(move |server| (server, shared))
                });
                for (server, shared) in servers {
                    sink.server = Some(server.clone());
                    let texts: Vec<String> =
                        server.words.iter().map(|it| it.text.clone()).collect();
                    let program = understand(&texts);
                    let guard = program
                        .agent
                        .as_ref()
                        .map(|agent| guard(agent, &config.user));
                    let seen = one(&mut sink, &server, &program, guard.as_ref(), at);
                    twice(&mut sink, &mut names, &server, &program, &seen, shared);
                    judged.servers.push(seen);
                }
            }
        }
        sink.found.sort_by_key(|finding| finding.line);
        judged.findings.append(&mut sink.found);
    }
    judged
}

/// Findings about one configuration.
struct Sink<'a> {
    config: &'a Config,
    server: Option<Server>,
    found: Vec<Finding>,
}

impl Sink<'_> {
    fn add(&mut self, rule: &'static Rule, line: usize, subject: &str, message: String) {
        // What is switched off starts nothing until somebody switches it on.
        let off = self.server.as_ref().is_some_and(|server| server.off);
        self.found.push(Finding {
            rule,
            severity: match off && rule.id != finding::SECRET.id {
                true => Severity::Note,
                false => rule.severity,
            },
            file: self.config.path.clone(),
            line,
            client: self.config.client.name,
            server: self.server.as_ref().map(|server| server.name.clone()),
            subject: subject.to_owned(),
            message,
        });
    }
}

fn one(
    sink: &mut Sink<'_>,
    server: &Server,
    program: &Program,
    guard: Option<&Guard>,
    at: usize,
) -> Seen {
    let line = server.words.first().map_or(server.line, |word| word.line);
    let mut words = program.words.clone();
    if words.is_empty()
        && let Some(Guard::Known(known)) = guard
        && let Some(run) = &known.policy.run
    {
        words.clone_from(&run.command);
    }
    let words = match program.agent {
        Some(_) => understand(&words).words,
        None => words,
    };
    let origin = origin(&words);
    secrets(sink, server);
    if let Some(url) = &server.url {
        let host = host(&url.text);
        let message = match is_loopback(&host) {
            true => format!(
                "{host}: started by somebody else on this host; start it under the agent there"
            ),
            false => format!("{host} is reached by its address; nothing here confines it"),
        };
        sink.add(&finding::REMOTE, url.line, &host, message);
    }
    if !server.words.is_empty() {
        packages(sink, server, &origin, line);
        let shell = program.shell.as_deref().or_else(|| shell::line_of(&words));
        if let Some(shell) = shell.filter(|line| shell::runs_what_it_fetches(line)) {
            let line = server
                .words
                .iter()
                .find(|word| word.text.contains(shell))
                .map_or(line, |word| word.line);
            sink.add(
                &finding::PIPED_TO_SHELL,
                line,
                "",
                "what is fetched is run at once".to_owned(),
            );
        }
        if origin.container {
            let client = words
                .first()
                .map(|word| base(word))
                .unwrap_or_default()
                .to_owned();
            let message =
                format!("{client} asks the container engine; the server is not its child");
            sink.add(&finding::CONTAINER, line, "", message);
        } else if program.agent.is_none() {
            let name = words
                .first()
                .map(|word| base(word))
                .unwrap_or_default()
                .to_owned();
            sink.add(
                &finding::NOT_CONFINED,
                line,
                "",
                format!("{name} is started without the agent"),
            );
        }
        if let (Some(agent), Some(guard)) = (&program.agent, guard) {
            policy(sink, agent, guard, line);
        }
        if let Some(marks) = wallet::marks(server, &origin)
            && !is_exact(program.agent.as_ref(), guard)
        {
            let message =
                format!("it signs ({marks}), and no policy limits it to hosts that are named");
            sink.add(&finding::WALLET, line, "", message);
        }
    }
    Seen {
        config: at,
        name: server.name.clone(),
        line: server.line,
        off: server.off,
        remote: server.words.is_empty(),
        confined: program.agent.is_some() && !origin.container,
        starts: match (&server.url, origin.packages.first()) {
            (Some(url), _) => host(&url.text),
            (None, Some(package)) => package.name.clone(),
            (None, None) => words
                .first()
                .map(|word| base(word).to_owned())
                .unwrap_or_default(),
        },
    }
}

fn packages(sink: &mut Sink<'_>, server: &Server, origin: &Origin, line: usize) {
    for package in &origin.packages {
        let word = server
            .words
            .iter()
            .find(|word| word.text.contains(&package.spec));
        let line = word.map_or(line, |word| word.line);
        let spec = without_password(&package.spec);
        if !package.pinned {
            let message = format!("{spec} is whatever is published when the server starts");
            sink.add(&finding::NOT_PINNED, line, &spec, message);
        }
        if let Some(known) = known::resembled(package) {
            let message = format!("{spec} is nearly {known}, and is not it");
            sink.add(&finding::LOOK_ALIKE, line, &spec, message);
        }
    }
}

/// Secrets in values and in words.
fn secrets(sink: &mut Sink<'_>, server: &Server) {
    for value in &server.values {
        if let Some(kind) = secret::kind(&value.key, &value.text) {
            let message = format!("{} {} holds a {kind}", value.group, value.key);
            sink.add(&finding::SECRET, value.line, &value.key, message);
        }
    }
    let mut before = "";
    for word in server.words.iter().chain(&server.url) {
        let text = word.text.as_str();
        let bare = text.trim_start_matches('-');
        // `--token=x`, `TOKEN=x`, `Authorization: Bearer x`, `--token x`, or by itself.
        let named = [bare.split_once('='), bare.split_once(':')]
            .into_iter()
            .flatten()
            .find(|(name, _)| secret::is_secret_key(name) && !name.contains(['/', ' ']));
        let (key, value) = match named {
            Some((key, value)) => (key, value),
            None if before.starts_with('-') && !before.contains('=') => {
                (before.trim_start_matches('-'), text)
            }
            None => match bare.split_once('=') {
                Some((key, value)) if !key.contains("://") => (key, value),
                _ => ("", text),
            },
        };
        if !(named.is_none() && text.starts_with('-') && !text.contains('='))
            && let Some(kind) = secret::kind(key, value)
        {
            let place = if key.is_empty() {
                "a word of the command".to_owned()
            } else {
                format!("argument {key}")
            };
            sink.add(
                &finding::SECRET,
                word.line,
                key,
                format!("{place} holds a {kind}"),
            );
        }
        before = text;
    }
}

fn policy(sink: &mut Sink<'_>, agent: &Agent, guard: &Guard, line: usize) {
    match guard {
        Guard::Unknown => {}
        Guard::Missing(place) => {
            let what = agent
                .connector
                .as_deref()
                .or(agent.policy.as_deref())
                .unwrap_or_default();
            sink.add(
                &finding::POLICY_MISSING,
                line,
                "",
                format!("there is no policy for {what} ({place})"),
            );
        }
        Guard::Faulty(fault) => {
            sink.add(&finding::POLICY_FAULTY, line, "", fault.to_string());
        }
        Guard::Known(known) => {
            let file = known.policy.source.display();
            if let Some(rule) = internet(&known.policy) {
                sink.add(
                    &finding::POLICY_WIDE,
                    line,
                    "",
                    format!("rule {rule} of {file} permits the whole public Internet"),
                );
            }
            if known.policy.mode == Mode::Audit && known.days >= AUDIT_DAYS {
                let days = known.days;
                sink.add(
                    &finding::POLICY_AUDIT,
                    line,
                    "",
                    format!("{file} has been in audit mode for {days} days"),
                );
            }
            if let Some(how) = &known.changeable {
                sink.add(
                    &finding::WRITABLE,
                    line,
                    "policy",
                    format!("{file}: the server's own user {how}"),
                );
            }
        }
    }
    if agent.audit {
        sink.add(
            &finding::POLICY_AUDIT,
            line,
            "--audit",
            "--audit lets everything pass, whatever the policy says".to_owned(),
        );
    }
}

/// The rule for every public name, or for every address.
fn internet(policy: &Policy) -> Option<&str> {
    let rule = policy.allow.iter().find(|rule| match &rule.target {
        Target::Host(host) => *host == HostPattern::Public,
        Target::Cidr(net) => net.prefix_len() == 0,
        Target::Unix(_) | Target::Session(_) => false,
    })?;
    Some(&rule.id)
}

/// Whether a server is held to names that are written out, or nobody here can tell.
fn is_exact(agent: Option<&Agent>, guard: Option<&Guard>) -> bool {
    match (agent, guard) {
        (Some(agent), Some(Guard::Known(known))) => {
            let exact = |target: &Target| match target {
                Target::Host(host) => matches!(host, HostPattern::Exact(_)),
                Target::Cidr(net) => net.prefix_len() == net.max_prefix_len(),
                Target::Unix(_) | Target::Session(_) => true,
            };
            !agent.audit
                && known.policy.mode == Mode::Enforce
                && known.policy.allow.iter().all(|rule| exact(&rule.target))
        }
        (Some(agent), Some(Guard::Unknown)) => !agent.audit,
        _ => false,
    }
}

fn twice(
    sink: &mut Sink<'_>,
    names: &mut BTreeMap<(u32, String), (String, String)>,
    server: &Server,
    program: &Program,
    seen: &Seen,
    shared: bool,
) {
    if server.again {
        let message = format!(
            "{} stands in this file before; one of the two is never started",
            server.name
        );
        sink.add(&finding::NAME_TWICE, server.line, "", message);
        return;
    }
    // What the agent starts by its own name is told by the policy, not by this file.
    if program.agent.is_some() && program.words.is_empty() {
        return;
    }
    let script = program
        .words
        .iter()
        .skip(1)
        .find(|word| !word.starts_with('-'));
    let generic = [
        "node", "python", "python3", "bun", "deno", "uv", "java", "ruby", "dotnet", "sh", "bash",
    ];
    let identity = match script {
        Some(script) if generic.contains(&seen.starts.as_str()) => {
            format!("{} {}", seen.starts, base(script))
        }
        _ => seen.starts.clone(),
    };
    let place = sink.config.path.display().to_string();
    let key = (sink.config.user.uid, server.name.clone());
    match names.get(&key) {
        Some((other, first)) if *other != identity => {
            let message = format!("{} is another server in {first}", server.name);
            sink.add(&finding::NAME_TWICE, server.line, "", message);
        }
        // Two projects may each have a server of that name: they never meet.
        None if shared => {
            names.insert(key, (identity, place));
        }
        _ => {}
    }
}

/// The host of an address, without what stands before and behind it.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name == "::1" || name.starts_with("127.")
}

/// An address without the password in it.
fn without_password(spec: &str) -> String {
    let Some((scheme, rest)) = spec.split_once("://") else {
        return spec.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}
