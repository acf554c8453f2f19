//! What is executed is what was reviewed: checked before the connector runs, where it will run.
//!
//! The launcher looks while it is still root, in the connector's own mount namespace, which nobody
//! can change any more. Everything pinned can be changed by root alone ([`crate::host::tree`]), so
//! what was looked at is what is executed, whenever that is. Beside the files the ways are closed by
//! which a runtime takes in code from elsewhere: variables, the user's own packages, the caller's
//! folder, caches.

use std::{
    ffi::{OsStr, OsString},
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    host::tree::{self, Tree},
    policy::model::{Pin, Policy},
};

/// Differences that are shown.
const SHOWN: usize = 20;

/// What has to be as it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pinned {
    /// Files and folders.
    pub pins: Vec<Pin>,
    /// The policy's own command.
    pub command: Vec<String>,
    /// Variables that the policy itself sets.
    pub set: Vec<String>,
    /// Where the lists of what was reviewed are, to say what differs.
    pub lists: PathBuf,
}

/// Variables by which a runtime or the dynamic linker takes in code, or settings that name code:
/// whole names, and beginnings with a `*`.
const LOADERS: [&str; 45] = [
    "LD_*",
    "GLIBC_TUNABLES",
    "GCONV_PATH",
    "GIO_*",
    "GTK_*",
    "QT_*",
    "OPENSSL_*",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_REPL_*",
    "NODE_COMPILE_CACHE",
    "NODE_CHANNEL_*",
    "npm_*",
    "NPM_*",
    "BUN_*",
    "DENO_*",
    "PYTHON*",
    "VIRTUAL_ENV",
    "UV_*",
    "PIP_*",
    "PERL*",
    "RUBY*",
    "GEM_*",
    "BUNDLE_*",
    "JAVA_*",
    "JDK_*",
    "_JAVA_*",
    "CLASSPATH",
    "BASH_*",
    "ENV",
    "SHELLOPTS",
    "BASHOPTS",
    "ZDOTDIR",
    "DOTNET_*",
    "CORECLR_*",
    "COMPlus_*",
    "COMPLUS_*",
    "PHP*",
    "LUA_*",
    "GUILE_*",
    "R_*",
    "ERL_*",
    "TS_NODE_*",
    "TSX_*",
    "GODEBUG",
];

/// Of these, those that name no code.
const HARMLESS: [&str; 6] = [
    "PYTHONNOUSERSITE",
    "PYTHONSAFEPATH",
    "PYTHONUNBUFFERED",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUTF8",
    "PYTHONIOENCODING",
];

/// Programs that start what they fetch or find in a cache or folder of the caller's.
const FETCHERS: [&str; 15] = [
    "npx", "npm", "pnpm", "pnpx", "yarn", "bun", "bunx", "deno", "uv", "uvx", "pipx", "dnx", "env",
    "go", "nix",
];

/// Options of interpreters whose value names code.
const CODE_OPTIONS: [&str; 8] = [
    "-r",
    "-jar",
    "--jar",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "--env-file",
];
/// Those whose value is a word of its own.
const WORD_OPTIONS: [&str; 10] = [
    "-c",
    "-e",
    "-m",
    "-p",
    "--eval",
    "--print",
    "-W",
    "-X",
    "-o",
    "--conditions",
];

/// What a policy pins; `None`: nothing.
pub fn of(policy: &Policy) -> Option<Pinned> {
    if policy.pin.is_empty() {
        return None;
    }
    let run = policy.run.as_ref();
    let env = run.and_then(|run| run.env.as_ref());
    Some(Pinned {
        pins: policy.pin.clone(),
        command: run.map(|run| run.command.clone()).unwrap_or_default(),
        set: env
            .map(|env| env.set.keys().cloned().collect())
            .unwrap_or_default(),
        lists: lists(&policy.source),
    })
}

/// The file beside a policy in which the lists of what was reviewed are kept.
pub fn lists(policy: &Path) -> PathBuf {
    policy.with_extension("pins")
}

/// Closes what variables open, before anything is started.
pub fn close(env: &mut Vec<(OsString, OsString)>) {
    // Packages of the user's own, whose `.pth` files and `usercustomize` run at each start.
    env.retain(|(name, _)| name != "PYTHONNOUSERSITE");
    env.push(("PYTHONNOUSERSITE".into(), "1".into()));
}

/// Looks. Errors say what differs; nothing is started then.
pub fn check(
    pinned: &Pinned,
    uid: u32,
    command: &[OsString],
    env: &[(OsString, OsString)],
) -> Result<(), String> {
    let refused = |why: String| Err(format!("{why}; the connector was not started"));
    if uid == 0 {
        return refused(
            "what is pinned has to be out of the connector's reach, and it would run as root: say \
             whom to run as with `run: { user: NAME }`"
                .to_owned(),
        );
    }
    if !command.iter().eq(pinned
        .command
        .iter()
        .map(OsString::from)
        .collect::<Vec<_>>()
        .iter())
    {
        return refused(
            "the policy pins what is executed, and the command is another one than its run.command"
                .to_owned(),
        );
    }
    if let Some(why) = odd_command(&pinned.command, &pinned.pins) {
        return refused(why);
    }
    for (name, _) in env {
        let own = pinned.set.iter().any(|set| name == set.as_str());
        if is_loader(name) && !own {
            return refused(format!(
                "the variable {} can bring in code that is not pinned: take it out of the environment, \
                 or set it under run.env.set",
                name.display()
            ));
        }
    }
    let home = env.iter().find(|(name, _)| name == "HOME");
    if let Some(why) = home.and_then(|(_, home)| modules_at_home(&pinned.command, Path::new(home)))
    {
        return refused(why);
    }
    let inside: Vec<PathBuf> = pinned.pins.iter().map(|pin| pin.path.clone()).collect();
    for pin in &pinned.pins {
        let found = tree::hash(&pin.path, &inside)
            .map_err(|error| format!("{error}; it is pinned, and the connector was not started"))?;
        if found.hash != pin.hash {
            return refused(differs(pin, &found, &pinned.lists));
        }
    }
    // Not before: what it says is what was reviewed.
    match command
        .first()
        .map(|program| interpreter(Path::new(program), &pinned.pins))
    {
        Some(Err(why)) => refused(why),
        _ => Ok(()),
    }
}

/// A script names its interpreter, which is then the program (execve(2)); that may be one again.
fn interpreter(program: &Path, pins: &[Pin]) -> Result<(), String> {
    interpreter_of(program, pins, 0)
}

/// `depth`: scripts before it; the kernel goes no further than five (`fs/exec.c` `exec_binprm`).
fn interpreter_of(program: &Path, pins: &[Pin], depth: u32) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{}: {error}", program.display());
    let mut line = Vec::new();
    let file = std::fs::File::open(program).map_err(told)?;
    file.take(256).read_to_end(&mut line).map_err(told)?;
    let Some(rest) = line.strip_prefix(b"#!") else {
        return Ok(());
    };
    let rest = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let mut words = rest.split(blank).filter(|word| !word.is_empty());
    let path = Path::new(OsStr::from_bytes(words.next().unwrap_or_default()));
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let pinned = pins.iter().any(|pin| path.starts_with(&pin.path));
    if pinned && !FETCHERS.contains(&name) && depth < 5 {
        return interpreter_of(path, pins, depth + 1);
    }
    Err(format!(
        "{} is a script for {}, which is not pinned; name its interpreter in run.command, and pin that",
        program.display(),
        path.display()
    ))
}

/// Node looks for modules in two folders of the home, where it finds them nowhere else.
fn modules_at_home(command: &[String], home: &Path) -> Option<String> {
    let program = Path::new(command.first()?).file_name()?.to_str()?;
    if !program.starts_with("node") {
        return None;
    }
    let folders = [".node_modules", ".node_libraries"].map(|name| home.join(name));
    let found = folders
        .iter()
        .find(|folder| folder.symlink_metadata().is_ok())?;
    Some(format!(
        "node takes in modules from {}, which is not pinned; remove it, or set HOME under run.env.set",
        found.display()
    ))
}

/// Whether a variable can bring code into the program that gets it.
pub fn is_loader(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return true;
    };
    let known = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    };
    LOADERS.iter().any(known) && !HARMLESS.contains(&name)
}

/// Why a command starts more than what is pinned; `None`: it does not.
pub fn odd_command(command: &[String], pins: &[Pin]) -> Option<String> {
    let (program, words) = command.split_first()?;
    let path = Path::new(program);
    if !pins.iter().any(|pin| path.starts_with(&pin.path)) {
        return Some(format!("{program} is not pinned"));
    }
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if FETCHERS.contains(&name) {
        return Some(format!(
            "{name} starts what it finds in a cache or folder of the caller's; install the package where \
             root alone writes, and start it with its interpreter"
        ));
    }
    let python = name
        .strip_prefix("python")
        .or_else(|| name.strip_prefix("pypy"));
    if python.is_some_and(|version| {
        version
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    }) {
        let options = || words.iter().take_while(|word| word.starts_with('-'));
        let safe = options().any(|word| matches!(word.as_str(), "-I" | "-P"));
        let elsewhere = options().any(|word| word.starts_with("-m") || word.starts_with("-c"));
        if elsewhere && !safe {
            return Some(format!(
                "{name} -m and -c look for modules in the caller's folder first; write -P (Python 3.11) \
                 or -I before"
            ));
        }
    }
    let interpreted = [
        "node", "python", "pypy", "ruby", "perl", "java", "php", "lua", "sh", "bash", "dash", "zsh",
    ];
    if !interpreted.iter().any(|known| name.starts_with(known)) {
        return None;
    }
    // By its name alone the caller's folder decides which file it is.
    if let Some(word) = scripts(words).find(|word| !Path::new(word).is_absolute()) {
        return Some(format!(
            "{word} is looked for in the caller's folder; write its whole path, and pin that"
        ));
    }
    // A script among the words, and what `--require` and its like name.
    let paths = words
        .iter()
        .map(|word| word.rsplit('=').next().unwrap_or(word));
    let mut loose = paths.filter(|word| {
        let path = Path::new(word);
        let code = path.is_absolute() && path.is_file();
        code && !pins.iter().any(|pin| path.starts_with(&pin.path))
    });
    let word = loose.next()?;
    Some(format!("{word} is a file that is not pinned"))
}

/// The words by which an interpreter is told of code: the values of options that take it in, and the
/// first word that is neither an option nor the value of one.
fn scripts(words: &[String]) -> impl Iterator<Item = &str> {
    let (mut value, mut over) = (None, false);
    words.iter().filter_map(move |word| {
        if over {
            return None;
        }
        if let Some(takes_code) = value.take() {
            return Some(word.as_str()).filter(|_| takes_code);
        }
        let option = word.split('=').next().unwrap_or(word);
        if CODE_OPTIONS.contains(&option) {
            return match word.split_once('=') {
                Some((_, code)) => Some(code),
                None => {
                    value = Some(true);
                    None
                }
            };
        }
        if WORD_OPTIONS.contains(&word.as_str()) {
            value = Some(false);
            // What it says is in the policy itself, and nothing behind it is a script.
            over = matches!(
                word.as_str(),
                "-c" | "-e" | "-m" | "-p" | "--eval" | "--print"
            );
            return None;
        }
        if word.starts_with('-') {
            return None;
        }
        over = true;
        Some(word.as_str())
    })
}

/// What differs, by the list from the review where that is there.
fn differs(pin: &Pin, found: &Tree, lists: &Path) -> String {
    let path = pin.path.display();
    let mut text = format!(
        "{path} is not what was pinned (sha256:{}, now sha256:{})",
        pin.hash, found.hash
    );
    match reviewed(pin, lists) {
        Some(list) => {
            let all = tree::differences(&list, &found.list);
            for line in all.iter().take(SHOWN) {
                text += &format!("\n  {line}");
            }
            if all.len() > SHOWN {
                text += &format!("\n  and {} more", all.len() - SHOWN);
            }
            text += "\nreview it, then `egress-agent pin` computes the new hashes";
        }
        None => text += "; review it, then `egress-agent pin` computes the new hashes",
    }
    text
}

/// The list of what was reviewed, where it is the one that is pinned.
fn reviewed(pin: &Pin, lists: &Path) -> Option<String> {
    let text = std::fs::read_to_string(lists).ok()?;
    let lists: Vec<(String, String)> = serde_json::from_str(&text).ok()?;
    let (_, list) = lists
        .into_iter()
        .find(|(path, _)| Path::new(path) == pin.path)?;
    (tree::digest(&list) == pin.hash).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_bring_in_code_are_known() {
        for name in [
            "NODE_OPTIONS",
            "LD_PRELOAD",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "npm_config_prefix",
            "BASH_FUNC_x%%",
            "RUBYOPT",
            "PERL5OPT",
            "JAVA_TOOL_OPTIONS",
            "DOTNET_STARTUP_HOOKS",
        ] {
            assert!(is_loader(OsStr::new(name)), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "GITHUB_TOKEN",
            "PYTHONUNBUFFERED",
            "NODE_ENV",
            "NODE_EXTRA_CA_CERTS",
            "LANG",
        ] {
            assert!(!is_loader(OsStr::new(name)), "{name}");
        }
    }
}
