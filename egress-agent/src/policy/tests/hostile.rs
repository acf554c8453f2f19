//! Input that is made to hurt: one clear fault each, at once.

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{faults_of, head};
use crate::policy::{find, load_dir, load_file, parse};

/// Asserts that a text has one fault that says so, found within a second.
#[track_caller]
fn one(text: &str, expected: &str) {
    let start = Instant::now();
    let found = faults_of(text);
    let took = start.elapsed();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found.iter().all(|fault| fault.contains(expected)),
        "{found:?}"
    );
    assert!(took < Duration::from_secs(1), "took {took:?}");
}

#[test]
fn nothing_at_all() {
    one("", "the file is empty");
    one("\n\n# only a comment\n", "the file is empty");
    one("---\n", "the file is empty");
    one("~\n", "the file is empty");
    one("[]\n", "no mapping");
    one("just text\n", "no mapping");
    one("443\n", "no mapping");
}

#[test]
fn no_yaml() {
    one(&head("allow:\n\t- a.example:443\n"), "tabs");
    one(&head("allow: [a\n"), "not valid YAML");
    one(&head("allow: *nowhere\n"), "not valid YAML");
    one(&head("allow: @x\n"), "not valid YAML");
    one("\u{0}\u{1}\u{2}", "control characters");
    one("\u{1b}[31mred", "control characters");
    one("# harmless\rallow: [a.example:443]\n", "hide or reorder");
    one(
        "# harmless\u{2028}allow: [a.example:443]\n",
        "hide or reorder",
    );
    one("connector: \u{202e}x\n", "hide or reorder");
    one("%YAML 1.1\n---\nversion: 1\n", "directive");
    one(&head("---\nversion: 1\n"), "more than one YAML document");
    one(&head("? [a, b]\n: c\n"), "a key is no text");
    one(&head("443: c\n"), "a key is no text");
    one(&head("mode: !x enforce\n"), "tag");
    one(&head("<<: {mode: audit}\n"), "unknown key “<<”");
}

#[test]
fn alias_bombs() {
    let mut classic = head("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(classic, "a{level}: &a{level} [{list}]").unwrap_or_default();
    }
    one(&classic, "more than 20000 values");
    let mut flat = head("a: &a [");
    flat.push_str(&"x, ".repeat(15_000));
    flat.push_str("]\nb: [");
    flat.push_str(&"*a, ".repeat(15_000));
    flat.push_str("]\n");
    one(&flat, "more than 20000 values");
    one(&head("a: &a [*a]\n"), "");
}

#[test]
fn deep_and_long() {
    one(
        &head(&format!("allow: {}{}\n", "[".repeat(60), "]".repeat(60))),
        "16 deep",
    );
    for text in [
        "[".repeat(500_000),
        "{".repeat(500_000),
        "- ".repeat(400_000),
        "? ".repeat(400_000),
        "a: ".repeat(300_000),
        "[a: ".repeat(200_000),
        "!".repeat(500_000),
        "&a ".repeat(300_000),
        "\"".repeat(500_001),
        "%".repeat(500_000),
        "a\n".repeat(300_000),
        "|\n".repeat(300_000),
        "#".repeat(1_000_000),
        format!("{}{}", "[".repeat(4_000), "a,".repeat(400_000)),
        format!("{}{}", "[\"]\",".repeat(4_000), "a,".repeat(400_000)),
        "*a ".repeat(300_000),
        "- a: &b\n  ".repeat(80_000),
        "a: b\n".repeat(200_000),
        (0..2_000)
            .map(|n| format!("{}- a\n", " ".repeat(n % 400)))
            .collect(),
        (0..700).map(|n| format!("{}a:\n", " ".repeat(n))).collect(),
        format!("%TAG ! {}\n---\na", "x".repeat(900_000)),
        "%TAG !a! b\n".repeat(80_000),
        (0..60_000).map(|n| format!("%TAG !a{n}! b\n")).collect(),
        (0..60_000).map(|n| format!("- &a{n} b\n")).collect(),
        (0..60_000).map(|n| format!("k{n}: b\n")).collect(),
    ] {
        let start = Instant::now();
        let start_of = text.get(..6).unwrap_or_default();
        assert!(parse(Path::new("p.yaml"), &text).is_err());
        let took = start.elapsed();
        // Milliseconds when nothing else runs; what this keeps out took minutes.
        assert!(took < Duration::from_secs(15), "{start_of:?} took {took:?}");
    }
    one(&"a: b\n".repeat(300_000), "larger than 1024 KiB");
}

#[test]
fn many_faults_are_cut_off() {
    let mut text = head("allow:\n");
    for _ in 0..5_000 {
        text.push_str("  - nonsense\n");
    }
    let start = Instant::now();
    let found = faults_of(&text);
    assert_eq!(found.len(), 201);
    assert!(found.iter().any(|fault| fault.contains("4800 more faults")));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn messages_hold_no_control_characters() {
    let found = faults_of(&head("\"a\\e[31m\\n\\u202E\": 1\nmode: \"\\e]0;x\\a\"\n"));
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|fault| !fault.contains(|c: char| c.is_control() || c == '\u{202e}'))
    );
}

#[test]
fn files_and_folders() -> std::io::Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let fault = |path: &Path| match load_file(path) {
        Ok(policy) => panic!("accepted {policy:?}"),
        Err(faults) => {
            assert_eq!(faults.as_slice().len(), 1, "{faults}");
            faults.to_string()
        }
    };
    assert!(fault(&at("missing.yaml")).contains("cannot be read"));
    assert!(fault(folder.path()).contains("is no regular file"));
    assert!(fault(Path::new("/dev/zero")).contains("is no regular file"));
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU)?;
    assert!(fault(&at("fifo")).contains("is no regular file"));
    std::fs::write(at("binary.bin"), [0xff, 0xfe, 0x00])?;
    assert!(fault(&at("binary.bin")).contains("is not UTF-8"));
    std::fs::write(at("large.bin"), vec![b'a'; 10 << 20])?;
    assert!(fault(&at("large.bin")).contains("larger than 1024 KiB"));

    let missing = load_dir(&at("nowhere")).map_err(|faults| faults.to_string());
    assert!(missing.is_err_and(|text| text.contains("the folder cannot be read")));
    assert_eq!(
        load_dir(folder.path()),
        Ok(Vec::new()),
        "other files are no policies"
    );

    std::fs::write(at("a.yaml"), "version: 1\nconnector: one\n")?;
    std::fs::write(at("b.yml"), "version: 1\nconnector: two\n")?;
    std::fs::write(at(".hidden.yaml"), "nonsense")?;
    let names: Vec<String> = load_dir(folder.path())
        .map_err(std::io::Error::other)?
        .into_iter()
        .map(|policy| policy.connector)
        .collect();
    assert_eq!(names, ["one", "two"]);

    std::fs::write(at("c.yaml"), "version: 1\nconnector: one\n")?;
    std::fs::write(at("d.yaml"), "version: 1\nconnector: [\n")?;
    let text = match load_dir(folder.path()) {
        Ok(_) => panic!("accepted"),
        Err(faults) => faults.to_string(),
    };
    assert!(
        text.contains("c.yaml:1:1: the connector “one” already has the policy"),
        "{text}"
    );
    assert!(text.contains("a.yaml"), "{text}");
    assert!(text.contains("d.yaml:3:1: not valid YAML"), "{text}");

    assert!(
        find(folder.path(), "two").is_ok(),
        "faults of others are no matter"
    );
    assert!(find(folder.path(), "one").is_err_and(|f| f.to_string().contains("already has")));
    assert!(find(folder.path(), "three").is_err_and(|f| f.to_string().contains("no policy here")));
    Ok(())
}

/// Pieces that policies are made of, and pieces that parsers stumble over.
const PIECES: &[&str] = &[
    "version: 1\n",
    "connector: x\n",
    "allow:\n",
    "deny:\n",
    "  - ",
    "host: ",
    "cidr: ",
    "unix: ",
    "ports: ",
    "    ",
    "\n",
    "[443]",
    "[",
    "]",
    "{",
    "}",
    ", ",
    ": ",
    "? ",
    "- ",
    "&a ",
    "*a",
    "!t ",
    "|\n",
    ">-\n",
    "\"",
    "'",
    "#",
    "a.example:443",
    "*.example.org",
    "10.0.0.0/8",
    "::1/128",
    "6432-6440",
    "~",
    "null",
    "é",
    "\u{feff}",
    "\u{2028}",
    "0x1F",
    "1e999",
    "-",
    "99999999999999999999999999",
    "<<: ",
    "dns: ",
    "ttl: ",
    "run: ",
    "\r\n",
    "\t",
    "---\n",
    "...\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_is_too_odd(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        let text = pieces.concat();
        if let Err(faults) = parse(Path::new("p.yaml"), &text) {
            prop_assert!(!faults.as_slice().is_empty());
            for fault in faults.as_slice() {
                prop_assert!(fault.line >= 1 && fault.column >= 1);
                prop_assert!(fault.line <= text.lines().count() + 2, "{fault}");
                prop_assert!(!fault.message.is_empty() && !fault.help.is_empty());
                prop_assert!(!fault.to_string().contains(char::is_control), "{fault:?}");
            }
        }
    }

    #[test]
    fn no_edit_of_a_policy_is_too_odd(
        cut in any::<prop::sample::Index>(),
        length in 0_usize..8,
        piece in prop::sample::select(PIECES),
    ) {
        let mut text: Vec<char> = include_str!("../../../../policies/fetch.yaml").chars().collect();
        let start = cut.index(text.len());
        let end = (start + length).min(text.len());
        text.splice(start..end, piece.chars());
        let text: String = text.into_iter().collect();
        if let Err(faults) = parse(Path::new("p.yaml"), &text) {
            prop_assert!(!faults.as_slice().is_empty());
        }
    }
}
