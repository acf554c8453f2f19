//! What people read: no left-over notes, no folders of one machine, and no names of files
//! that are gone.

use std::path::{Path, PathBuf};

use super::check::Fault;

/// Put together so that this file does not break its own rule.
const NOTES: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];

/// Folders that exist on one machine only.
const MACHINE: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Checks any text file.
pub(super) fn words(file: &Path, text: &str, faults: &mut Vec<Fault>) {
    if file.ends_with("Cargo.lock") {
        return;
    }
    for (line, number) in text.lines().zip(1..) {
        let word = |word: &str| {
            line.split(|character: char| !character.is_alphanumeric())
                .any(|own| own == word)
        };
        for note in NOTES.into_iter().filter(|note| word(note)) {
            let what = format!("{note} is no place to keep work: do it or say what is missing");
            faults.push(Fault::new(file, number, what));
        }
        for folder in MACHINE.into_iter().filter(|folder| line.contains(folder)) {
            let what = format!("{folder} is a folder of one machine");
            faults.push(Fault::new(file, number, what));
        }
    }
}

/// Checks the files that a Markdown document names: link targets, and code spans that look
/// like files of this checkout. Fenced blocks are examples and left alone.
pub(super) fn names(file: &Path, text: &str, files: &[PathBuf], faults: &mut Vec<Fault>) {
    let mut fenced = false;
    for (line, number) in text.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        if fenced {
            continue;
        }
        for target in links(line) {
            let target = target.split('#').next().unwrap_or_default();
            let folder = file.parent().unwrap_or(Path::new(""));
            if !target.is_empty() && !target.contains(':') && !exists(&folder.join(target), files) {
                let what = format!("leads to {target}, which does not exist");
                faults.push(Fault::new(file, number, what));
            }
        }
        for span in spans(line).flat_map(alternatives) {
            if is_missing(&span, files) {
                let what = format!("names {span}, which does not exist");
                faults.push(Fault::new(file, number, what));
            }
        }
    }
}

/// Targets of `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next())
}

/// Texts between single backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn alternatives(span: &str) -> Vec<String> {
    let parts = span
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    let Some((before, (choices, after))) = parts else {
        return vec![span.to_owned()];
    };
    let choices = choices.split(',').map(str::trim);
    choices
        .map(|choice| format!("{before}{choice}{after}"))
        .collect()
}

/// Whether a text is surely meant as a file of this checkout, and none has that name. A
/// Rust file may be named from its room on: `policy/load.rs`.
fn is_missing(span: &str, files: &[PathBuf]) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
    if span.is_empty() || !span.chars().all(plain) || span.starts_with(['/', '-']) {
        return false;
    }
    let path = Path::new(span);
    if span.ends_with(".rs") {
        return !files.iter().any(|file| file.ends_with(path));
    }
    // `egress-agent/event/v1` is the name of a format, not of a file.
    let last = span.rsplit('/').next().unwrap_or_default();
    let like_a_file = last.is_empty() || last.contains('.') || span.starts_with('.');
    let first = path.components().next();
    let in_tree = like_a_file
        && span.contains('/')
        && files
            .iter()
            .any(|file| file.components().count() > 1 && file.components().next() == first);
    in_tree && !exists(path, files)
}

/// Whether a path is one of the files or a folder of some, `..` resolved.
fn exists(path: &Path, files: &[PathBuf]) -> bool {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                if !plain.pop() {
                    return false;
                }
            }
            std::path::Component::CurDir => {}
            other => plain.push(other),
        }
    }
    files.iter().any(|file| file.starts_with(&plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let files = [
            "docs/policy.md",
            "egress-agent/src/policy/load.rs",
            "README.md",
        ];
        let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
        let mut faults = Vec::new();
        words(Path::new("docs/policy.md"), text, &mut faults);
        names(Path::new("docs/policy.md"), text, &files, &mut faults);
        faults.into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn documents_name_what_exists() {
        let good = "[a](../README.md#top) `docs/policy.md` `policy/load.rs` `docs/` [b](https://x.y) \
                    `egress-agent/src/policy/{load,}.rs`";
        assert_eq!(faults(&good.replace(",}", "}")), [""; 0]);
        assert_eq!(faults("[a](gone.md)").len(), 1);
        assert_eq!(faults("`docs/gone.md`").len(), 1);
        assert_eq!(faults("`policy/gone.rs`").len(), 1);
        assert_eq!(faults("`policy/{load,gone}.rs`").len(), 1);
    }

    #[test]
    fn examples_and_other_words_are_left_alone() {
        assert_eq!(faults("```\n`docs/gone.md`\n```"), [""; 0]);
        assert_eq!(
            faults("`npm/x` `egress-agent/event/v1` `a b.rs` `/etc/hosts` `*.rs` `--flag`"),
            [""; 0]
        );
    }

    #[test]
    fn left_overs_are_found() {
        assert_eq!(faults(&format!("a {}: b", NOTES.concat())), [""; 0]);
        for note in NOTES {
            assert_eq!(faults(&format!("a {note}: b")).len(), 1);
        }
        for folder in MACHINE {
            assert_eq!(faults(&format!("in {folder}x")).len(), 1);
        }
    }
}
