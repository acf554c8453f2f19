//! Whether what a command line starts is always the same: packages with exact versions, images
//! by digest, repositories by commit. Pure.

use super::program::base;

/// Where a package comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Registry {
    /// npm and those that speak with it.
    Npm,
    /// The Python Package Index.
    Pypi,
    /// Images.
    Container,
    /// Others: Go modules, JSR, NuGet, flakes, addresses.
    Other,
}

/// Something that is fetched or looked up when the server starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// Where from.
    pub registry: Registry,
    /// Its name, without a version.
    pub name: String,
    /// As it is written.
    pub spec: String,
    /// It is the same each time.
    pub pinned: bool,
}

/// What a command line tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// What is fetched.
    pub packages: Vec<Package>,
    /// The server is a process of a container engine, not of this command.
    pub container: bool,
}

/// Reads the words of a server's own command.
pub fn origin(words: &[String]) -> Origin {
    let mut words = words.iter().map(String::as_str);
    let Some(first) = words.next() else {
        return Origin::default();
    };
    let rest: Vec<&str> = words.collect();
    let verb = rest.first().copied().unwrap_or_default();
    let after = rest.get(1..).unwrap_or_default();
    let packages = match (base(first), verb) {
        ("npx" | "bunx" | "pnpx", _) => npm(&rest),
        ("npm", "exec" | "x") | ("bun", "x") | ("pnpm" | "yarn", "dlx") => npm(after),
        ("uvx", _) => pypi(&rest),
        ("uv", "tool") if after.first() == Some(&"run") => pypi(after.get(1..).unwrap_or_default()),
        ("uv", "run") => with(after),
        ("pipx", "run") => pypi(after),
        ("deno", "run" | "x") => deno(after),
        ("dnx", _) => first_word(&rest, &["--version", "--source", "--configfile"], nuget),
        ("go", "run") => first_word(after, &["-C", "-exec", "-modfile", "-tags"], go),
        ("nix", "run") => first_word(after, &["--inputs-from"], flake),
        ("docker" | "podman" | "nerdctl", _) => return engine(&rest),
        _ => Vec::new(),
    };
    Origin {
        packages,
        container: matches!(
            (base(first), verb),
            ("docker-compose" | "podman-compose", _)
        ) || matches!((base(first), verb), ("thv", "run" | "proxy")),
    }
}

const NPM_VALUED: [&str; 12] = [
    "-c",
    "--call",
    "-w",
    "--workspace",
    "--cache",
    "--registry",
    "--prefix",
    "--userconfig",
    "--node-options",
    "--loglevel",
    "--shell",
    "-C",
];

fn npm(words: &[&str]) -> Vec<Package> {
    // Runs what is installed, and nothing else.
    if words
        .iter()
        .any(|&word| matches!(word, "--no-install" | "--no"))
    {
        return Vec::new();
    }
    let options = Options::read(words, &["-p", "--package"], &NPM_VALUED);
    let named = if options.taken.is_empty() {
        options.first.into_iter().collect()
    } else {
        options.taken
    };
    named.into_iter().filter_map(npm_package).collect()
}

fn npm_package(spec: &str) -> Option<Package> {
    if is_place(spec) {
        return None;
    }
    let package = |name: &str, pinned| Package {
        registry: Registry::Npm,
        name: name.to_owned(),
        spec: spec.to_owned(),
        pinned,
    };
    // The sign of a scope is no version's.
    let at = spec.char_indices().skip(1).find(|&(_, char)| char == '@');
    let (name, version) = spec.split_at(at.map_or(spec.len(), |(at, _)| at));
    let version = version.trim_start_matches('@');
    if let Some(aliased) = version.strip_prefix("npm:") {
        return npm_package(aliased);
    }
    let source = if version.is_empty() { spec } else { version };
    let plain = !name.starts_with('@') && name.contains('/');
    if source.contains(':') || plain {
        return Some(package(name, is_commit(source)));
    }
    Some(package(name, is_exact(version)))
}

const PYPI_VALUED: [&str; 14] = [
    "-p",
    "--python",
    "--index",
    "--index-url",
    "--default-index",
    "--extra-index-url",
    "--directory",
    "--project",
    "--cache-dir",
    "-c",
    "--constraints",
    "--env-file",
    "--refresh-package",
    "--fetch-python",
];

fn pypi(words: &[&str]) -> Vec<Package> {
    let taken = ["--from", "--spec"];
    let mut options = Options::read(words, &taken, &[&PYPI_VALUED[..], &["--with"]].concat());
    let mut found: Vec<Package> = match options.taken.pop().or(options.first) {
        Some(spec) => pypi_package(spec).into_iter().collect(),
        None => Vec::new(),
    };
    found.extend(with(words));
    found
}

/// What `--with` adds.
fn with(words: &[&str]) -> Vec<Package> {
    let valued = [&PYPI_VALUED[..], &["--from", "--spec"]].concat();
    let options = Options::read(words, &["--with", "-w"], &valued);
    let specs = options.taken.into_iter().flat_map(|list| list.split(','));
    specs.filter_map(pypi_package).collect()
}

fn pypi_package(spec: &str) -> Option<Package> {
    let spec = spec.trim();
    if spec.is_empty() || is_place(spec) {
        return None;
    }
    let end = spec.find(|char: char| !(char.is_alphanumeric() || matches!(char, '-' | '_' | '.')));
    let (name, rest) = spec.split_at(end.unwrap_or(spec.len()));
    // Extras: `mcp[cli]==1.2.3`.
    let rest = rest.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(extras) => extras
            .split_once(']')
            .map_or("", |(_, rest)| rest.trim_start()),
        None => rest,
    };
    let pinned = if spec.contains("://") {
        is_commit(spec)
    } else {
        let version = rest
            .strip_prefix("===")
            .or_else(|| rest.strip_prefix("=="))
            .or_else(|| rest.strip_prefix('@'));
        version.is_some_and(|version| is_exact_python(version.trim()))
    };
    Some(Package {
        registry: Registry::Pypi,
        name: if spec.contains("://") { spec } else { name }.to_owned(),
        spec: spec.to_owned(),
        pinned,
    })
}

fn deno(words: &[&str]) -> Vec<Package> {
    first_word(
        words,
        &["-c", "--config", "--import-map", "--lock", "--cert"],
        |spec| {
            if let Some(npm) = spec.strip_prefix("npm:") {
                let path = npm.char_indices().filter(|&(_, char)| char == '/');
                let scoped = usize::from(npm.starts_with('@'));
                let end = path.map(|(at, _)| at).nth(scoped).unwrap_or(npm.len());
                return npm_package(npm.get(..end)?);
            }
            let remote = spec.starts_with("jsr:")
                || spec.starts_with("https://")
                || spec.starts_with("http://");
            if !remote {
                return None;
            }
            let version = spec.rsplit_once('@').map_or("", |(_, rest)| rest);
            let version = version.split('/').next().unwrap_or_default();
            Some(other(
                spec,
                is_exact(version.trim_start_matches('v')) || is_commit(spec),
            ))
        },
    )
}

fn nuget(spec: &str) -> Option<Package> {
    let version = spec.split_once('@').map_or("", |(_, version)| version);
    (!is_place(spec)).then(|| other(spec, is_exact(version)))
}

fn go(spec: &str) -> Option<Package> {
    let (_, version) = spec.split_once('@')?;
    let exact = version.strip_prefix('v').is_some_and(is_exact);
    Some(other(spec, exact || is_commit(spec)))
}

fn flake(spec: &str) -> Option<Package> {
    (!is_place(spec) && !spec.starts_with('#')).then(|| other(spec, is_commit(spec)))
}

fn other(spec: &str, pinned: bool) -> Package {
    let end = spec.rfind('@').filter(|&at| at > 0).unwrap_or(spec.len());
    let name = spec.get(..end).unwrap_or(spec);
    Package {
        registry: Registry::Other,
        name: name.to_owned(),
        spec: spec.to_owned(),
        pinned,
    }
}

fn first_word(
    words: &[&str],
    valued: &[&str],
    read: impl Fn(&str) -> Option<Package>,
) -> Vec<Package> {
    let options = Options::read(words, &[], valued);
    options.first.and_then(read).into_iter().collect()
}

/// `docker run` options that stand alone; every other one has a value.
const ALONE: [&str; 14] = [
    "--rm",
    "--init",
    "--interactive",
    "--tty",
    "--detach",
    "--privileged",
    "--publish-all",
    "--read-only",
    "--no-healthcheck",
    "--oom-kill-disable",
    "--quiet",
    "--replace",
    "--sig-proxy",
    "--disable-content-trust",
];

/// A container engine's client.
fn engine(words: &[&str]) -> Origin {
    let mut left = words.iter().copied().peekable();
    // Options of the client itself, before its verb.
    while let Some(word) = left.next_if(|word| word.starts_with('-')) {
        if matches!(
            word,
            "-H" | "--host" | "--context" | "--config" | "-l" | "--log-level"
        ) {
            left.next();
        }
    }
    let mut verb = left.next().unwrap_or_default();
    if verb == "container" {
        verb = left.next().unwrap_or_default();
    }
    let mut packages = Vec::new();
    if matches!(verb, "run" | "create") {
        while let Some(word) = left.next() {
            if !word.starts_with('-') {
                packages.push(image(word));
                break;
            }
            let joined = word.contains('=');
            let long = word.starts_with("--");
            let letters = word.trim_start_matches('-');
            let short_alone = letters
                .chars()
                .all(|char| matches!(char, 'i' | 't' | 'd' | 'P' | 'q'));
            // `-e`, `-it -e`, `-ie NAME`; `-eNAME=x` has its value with it.
            let short_valued = letters
                .chars()
                .last()
                .is_some_and(|char| "evpuwhlmca".contains(char))
                && letters
                    .chars()
                    .rev()
                    .skip(1)
                    .all(|char| "itdPq".contains(char));
            let takes = if long {
                !joined && !ALONE.contains(&word)
            } else {
                !short_alone && short_valued
            };
            if takes {
                left.next();
            }
        }
    }
    Origin {
        packages,
        container: matches!(
            verb,
            "run" | "create" | "start" | "exec" | "compose" | "mcp" | "attach"
        ),
    }
}

fn image(spec: &str) -> Package {
    let name = spec.split('@').next().unwrap_or(spec);
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let tag = name.get(slash..).and_then(|last| last.find(':'));
    let digest = spec.split_once("@sha256:").map(|(_, digest)| digest);
    Package {
        registry: Registry::Container,
        name: name
            .get(..tag.map_or(name.len(), |at| slash + at))
            .unwrap_or(name)
            .to_owned(),
        spec: spec.to_owned(),
        pinned: digest
            .is_some_and(|it| it.len() == 64 && it.bytes().all(|byte| byte.is_ascii_hexdigit())),
    }
}

/// Options, and the first word that is none.
struct Options<'a> {
    taken: Vec<&'a str>,
    first: Option<&'a str>,
}

impl<'a> Options<'a> {
    /// Reads up to the command's name. Values of `take` are kept, those of `valued` skipped.
    fn read(words: &[&'a str], take: &[&str], valued: &[&str]) -> Self {
        let mut found = Self {
            taken: Vec::new(),
            first: None,
        };
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            if word == "--" {
                found.first = words.next();
                break;
            }
            if !word.starts_with('-') {
                found.first = Some(word);
                break;
            }
            let joined = word.split_once('=');
            if take.contains(&word) {
                found.taken.extend(words.next());
            } else if let Some((_, value)) = joined.filter(|(name, _)| take.contains(name)) {
                found.taken.push(value);
            } else if valued.contains(&word) {
                words.next();
            }
        }
        found
    }
}

/// A place on this host.
fn is_place(spec: &str) -> bool {
    spec.starts_with(['/', '.', '~', '$', '%'])
        || spec.starts_with("file:")
        || spec.contains(":\\")
        || [".tgz", ".whl", ".py", ".js", ".ts"]
            .iter()
            .any(|end| spec.ends_with(end) && !spec.contains("://"))
}

/// Three numbers and what semver permits behind them: `1.2.3`, `1.2.3-rc.1+x`.
fn is_exact(version: &str) -> bool {
    let end = version.find(['-', '+']).unwrap_or(version.len());
    let (numbers, rest) = version.split_at(end);
    numbers.split('.').count() == 3
        && numbers
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.'))
}

/// A version after PEP 440, without a star or a second condition.
fn is_exact_python(version: &str) -> bool {
    version.starts_with(|char: char| char.is_ascii_digit())
        && version.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-' | b'_' | b'!')
        })
}

/// Names a commit: 40 hexadecimal digits in a row (64 where the repository has SHA-256).
fn is_commit(spec: &str) -> bool {
    spec.split(|char: char| !char.is_ascii_hexdigit())
        .any(|run| matches!(run.len(), 40 | 64))
}
