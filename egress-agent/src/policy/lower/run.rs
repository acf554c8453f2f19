//! The `run:` block.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use super::value;
use crate::policy::{
    fault::{Findings, quote},
    model::{Environment, Processes, Run},
    schema::{self, Env},
};

/// How the connector is started.
pub(super) fn run(run: &schema::Run, findings: &mut Findings) -> Run {
    value::unknown::<schema::Run>("“run”", &run.unknown, findings);
    let help = "write a mapping with “pass:” and “set:”";
    let env = value::field("env", &run.env, help, findings);
    Run {
        command: command(run, findings),
        user: user(run, findings),
        env: env.map(|env| findings.within("env", |findings| environment(env, findings))),
        processes: processes(run, findings),
        devices: devices(run, findings),
    }
}

fn processes(run: &schema::Run, findings: &mut Findings) -> Processes {
    const HELP: &str = "write “processes: own” (the default) or “processes: host”";
    match value::field("processes", &run.processes, HELP, findings) {
        Some(schema::Processes::Host) => Processes::Host,
        Some(schema::Processes::Own) | None => Processes::Own,
    }
}

fn devices(run: &schema::Run, findings: &mut Findings) -> Vec<PathBuf> {
    const HELP: &str = "write paths below /dev, such as “devices: [/dev/dri]”";
    let Some(list) = value::field("devices", &run.devices, HELP, findings) else {
        return Vec::new();
    };
    findings.within("devices", |findings| {
        let mut devices = Vec::new();
        for (index, path) in list.iter().enumerate() {
            findings.within(index, |findings| {
                let Some(text) = value::entry("a device", path, HELP, findings) else {
                    return;
                };
                let path = PathBuf::from(text);
                match fault_of_device(text, &path) {
                    Some(fault) => findings.note(format!("{} {fault}", quote(text)), HELP),
                    None if devices.contains(&path) => {
                        findings.note(
                            format!("{} is listed twice", quote(text)),
                            "remove one of them",
                        );
                    }
                    None => devices.push(path),
                }
            });
        }
        devices
    })
}

/// Why a text does not name a device that can be asked for.
fn fault_of_device(text: &str, path: &Path) -> Option<&'static str> {
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let whole: PathBuf = path.components().collect();
    if !path.starts_with("/dev") || path == Path::new("/dev") {
        return Some("is not below /dev");
    }
    if !path.components().all(is_plain) || whole.as_os_str() != text || text.contains('\0') {
        return Some("is not written in its shortest form");
    }
    if text.contains(['*', '?', '[']) {
        return Some("is a pattern; each device, or a folder of them, has to be named");
    }
    let top = path.components().nth(2).map(|part| part.as_os_str());
    let given = top.and_then(|top| top.to_str());
    let given = given.is_some_and(|top| GIVEN.contains(&top));
    given.then_some("is there in any case, the connector's own")
}

/// What every connector has below /dev.
const GIVEN: [&str; 12] = [
    "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "fd", "stdin", "stdout",
    "stderr",
];

fn command(run: &schema::Run, findings: &mut Findings) -> Vec<String> {
    const HELP: &str =
        "write program and arguments as a list of texts, such as “command: [npx, -y, \"x@1.0.0\"]”";
    let Some(list) = value::field("command", &run.command, HELP, findings) else {
        return Vec::new();
    };
    findings.within("command", |findings| {
        if list.is_empty() {
            findings.note("“command” is an empty list", HELP);
        }
        let mut command = Vec::new();
        for (index, word) in list.iter().enumerate() {
            findings.within(index, |findings| {
                let Some(word) = value::entry("an argument", word, HELP, findings) else {
                    return;
                };
                if word.contains('\0') || (index == 0 && word.is_empty()) {
                    findings.note(format!("{} cannot be run", quote(word)), HELP);
                }
                command.push(word.clone());
            });
        }
        command
    })
}

fn user(run: &schema::Run, findings: &mut Findings) -> Option<String> {
    const HELP: &str = "write a user's name or number, such as “user: connector”";
    let user = match value::field("user", &run.user, HELP, findings)? {
        schema::User::Id(id) => id.to_string(),
        schema::User::Name(name) => name.clone(),
    };
    let odd = |c: char| c.is_control() || c.is_whitespace() || c == ':' || c == '/';
    if user.is_empty() || user.starts_with('-') || user.contains(odd) {
        findings.within("user", |findings| {
            findings.note(format!("{} is no user", quote(&user)), HELP);
        });
    }
    Some(user)
}

fn environment(env: &Env, findings: &mut Findings) -> Environment {
    value::unknown::<Env>("“env”", &env.unknown, findings);
    let pass = pass(env, findings);
    let set = set(env, findings);
    for name in pass.iter().filter(|name| set.contains_key(*name)) {
        findings.note(
            format!("{} is both passed and set", quote(name)),
            "keep it under “pass:” or under “set:”",
        );
    }
    Environment { pass, set }
}

fn pass(env: &Env, findings: &mut Findings) -> Vec<String> {
    const HELP: &str = "write names of variables, such as “pass: [API_TOKEN]”";
    let Some(list) = value::field("pass", &env.pass, HELP, findings) else {
        return Vec::new();
    };
    findings.within("pass", |findings| {
        let mut names = Vec::new();
        for (index, name) in list.iter().enumerate() {
            findings.within(index, |findings| {
                let Some(name) = value::entry("a variable", name, HELP, findings) else {
                    return;
                };
                if !is_variable(name) {
                    findings.note(format!("{} is no name of a variable", quote(name)), HELP);
                }
                names.push(name.clone());
            });
        }
        names
    })
}

fn set(env: &Env, findings: &mut Findings) -> BTreeMap<String, String> {
    const HELP: &str = "write a text, in quotes where it looks like a number or truth value";
    let help = "write a mapping, such as “set: { NODE_ENV: production }”";
    let Some(map) = value::field("set", &env.set, help, findings) else {
        return BTreeMap::new();
    };
    findings.within("set", |findings| {
        let mut variables = BTreeMap::new();
        for (name, content) in map {
            if !is_variable(name) {
                findings.note_key(
                    name,
                    0,
                    format!("{} is no name of a variable", quote(name)),
                    "write a name without blanks and “=”",
                );
            }
            findings.within(name.as_str(), |findings| {
                let Some(content) = value::entry("the value", content, HELP, findings) else {
                    return;
                };
                if content.contains('\0') {
                    findings.note("the value contains a NUL byte", "remove it");
                }
                variables.insert(name.clone(), content.clone());
            });
        }
        variables
    })
}

/// What `execve` takes as a name; blanks are refused because they are always a mistake.
fn is_variable(name: &str) -> bool {
    let odd = |c: char| c == '=' || c.is_control() || c.is_whitespace();
    !name.is_empty() && !name.contains(odd)
}
