//! The `pin:` block.

use std::path::{Component, Path, PathBuf};

use super::value;
use crate::policy::{
    fault::{Findings, quote},
    model::{Pin, Run},
    schema::Document,
};

/// Pins at most.
const MAX_PINS: usize = 64;

/// What is pinned. The command has to be the policy's own, and to begin with what is pinned.
pub(super) fn lower(document: &Document, run: Option<&Run>, findings: &mut Findings) -> Vec<Pin> {
    const HELP: &str = "write paths with their hashes, as `egress-agent pin` shows them";
    let Some(map) = value::field("pin", &document.pin, HELP, findings) else {
        return Vec::new();
    };
    let mut pins = Vec::new();
    findings.within("pin", |findings| {
        if map.is_empty() || map.len() > MAX_PINS {
            findings.note(
                format!("it has {} entries", map.len()),
                "write 1 to 64, or leave it away",
            );
        }
        for (path, hash) in map {
            findings.within(path.as_str(), |findings| {
                let Some(hash) = value::entry("a hash", hash, HELP, findings) else {
                    return;
                };
                let digits = hash.0.strip_prefix("sha256:").unwrap_or_default();
                let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                if digits.len() != 64 || !digits.bytes().all(hex) {
                    findings.note(format!("{} is no hash", quote(&hash.0)), HELP);
                } else if !is_plain(Path::new(path)) {
                    findings.note(
                        format!("{} is no absolute path in its shortest form", quote(path)),
                        "write it without “.”, “..” and “//”",
                    );
                } else {
                    pins.push(Pin {
                        path: PathBuf::from(path),
                        hash: digits.to_owned(),
                    });
                }
            });
        }
    });
    let command = run.and_then(|run| run.command.first());
    let begins = |program: &String| {
        pins.iter()
            .any(|pin| Path::new(program).starts_with(&pin.path))
    };
    if !pins.is_empty() && !command.is_some_and(begins) {
        findings.note(
            "“pin” does not hold the program that is started".to_owned(),
            "write run.command with the absolute path of its program, and pin that program",
        );
    }
    pins
}

fn is_plain(path: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    let whole: PathBuf = path.components().collect();
    path.is_absolute()
        && path != Path::new("/")
        && path.components().all(plain)
        && whole.as_os_str() == path.as_os_str()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::policy::parse;

    fn first_fault(pin: &str) -> Option<String> {
        let text =
            format!("version: 1\nconnector: a\nrun: {{ command: [/opt/a/x, y] }}\npin: {pin}\n");
        let faults = parse(Path::new("a.yaml"), &text).err()?;
        faults.into_vec().first().map(|fault| fault.message.clone())
    }

    #[test]
    fn a_pin_is_a_path_with_a_hash_and_holds_the_program() {
        let hash = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(first_fault(&format!("{{ /opt/a: '{hash}' }}")), None);
        assert_eq!(
            first_fault(&format!("{{ /opt/a/x: '{hash}', /usr/b: '{hash}' }}")),
            None
        );
        for (pin, said) in [
            (
                format!("{{ /opt/b: '{hash}' }}"),
                "does not hold the program",
            ),
            (format!("{{ /opt/a/: '{hash}' }}"), "shortest form"),
            (format!("{{ /opt/../opt/a: '{hash}' }}"), "shortest form"),
            (format!("{{ opt/a: '{hash}' }}"), "shortest form"),
            (format!("{{ /: '{hash}' }}"), "shortest form"),
            ("{ /opt/a: sha256:0a }".to_owned(), "no hash"),
            (
                format!("{{ /opt/a: '{}' }}", hash.to_uppercase()),
                "no hash",
            ),
            ("{ /opt/a: [1] }".to_owned(), "a hash is"),
            ("{}".to_owned(), "0 entries"),
            ("[/opt/a]".to_owned(), "“pin” is"),
        ] {
            let found = first_fault(&pin).unwrap_or_default();
            assert!(found.contains(said), "{pin}: {found}");
        }
    }
}
