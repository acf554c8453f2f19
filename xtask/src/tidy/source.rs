//! What every Rust file keeps: it says what it is, stays short enough to read, has no
//! `unsafe` where none belongs, and gives the reason for every suppression.

use std::path::Path;

use super::{check::Fault, token::Source};

/// Lines without tests over which a file is noted.
const LONG: usize = 400;

/// Lines without tests over which a file is refused.
const TOO_LONG: usize = 500;

/// Where `unsafe` may be: the kernel's side, the one mark of shared records, the calls that
/// aya has no name for, the init without a C library, and tests that do what a hostile program would.
const UNSAFE: [&str; 5] = [
    "egress-ebpf",
    "egress-common/src/pod.rs",
    "egress-sys",
    "egress-init",
    "tests",
];

/// Checks one file.
pub(super) fn check(
    file: &Path,
    text: &str,
    source: &Source,
    faults: &mut Vec<Fault>,
    notes: &mut Vec<Fault>,
) {
    if !text.starts_with("//!") {
        let what = "does not say what it is: start with a //! line";
        faults.push(Fault::new(file, 1, what));
    }
    length(file, text, source, faults, notes);
    unsafety(file, source, faults);
    suppressions(file, source, faults);
    if file.ends_with("mod.rs") {
        door(file, source, faults, notes);
    }
}

fn length(
    file: &Path,
    text: &str,
    source: &Source,
    faults: &mut Vec<Fault>,
    notes: &mut Vec<Fault>,
) {
    if is_test_file(file) {
        return;
    }
    let lines = (1..=text.lines().count())
        .filter(|line| !source.is_test(*line))
        .count();
    let what = format!("{lines} lines without tests; {LONG} are many, over {TOO_LONG} too many");
    if lines > TOO_LONG {
        faults.push(Fault::new(file, 0, what));
    } else if lines > LONG {
        notes.push(Fault::new(file, 0, what));
    }
}

fn unsafety(file: &Path, source: &Source, faults: &mut Vec<Fault>) {
    if UNSAFE.iter().any(|place| file.starts_with(place)) {
        return;
    }
    for (_, line) in source.words.iter().filter(|(word, _)| word == "unsafe") {
        let what = format!("unsafe belongs to {} alone", UNSAFE.join(", "));
        faults.push(Fault::new(file, *line, what));
    }
}

/// What runs tests that are ignored here, for their reason to name; attributes are without blanks.
const RUN_ELSEWHERE: &str = "cargoxtaskvm";

fn suppressions(file: &Path, source: &Source, faults: &mut Vec<Fault>) {
    for (attribute, line) in &source.attributes {
        if attribute.starts_with("allow(") {
            let what = "allow hides what has long been mended: expect(…, reason = \"…\")";
            faults.push(Fault::new(file, *line, what));
        } else if attribute.starts_with("expect(") && !attribute.contains("reason=") {
            faults.push(Fault::new(file, *line, "expect without a reason"));
        } else if (attribute == "ignore" || attribute.starts_with("ignore="))
            && !attribute.contains(RUN_ELSEWHERE)
        {
            let what = "a test that is ignored proves nothing: let it fail with the reason";
            faults.push(Fault::new(file, *line, what));
        }
    }
}

/// Whether a whole file is there for tests: those of the tests crate, and a module's.
pub(super) fn is_test_file(file: &Path) -> bool {
    file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

/// A `mod.rs` only opens doors, so that the folder's listing shows the whole room. Noted
/// in tests, refused elsewhere.
fn door(file: &Path, source: &Source, faults: &mut Vec<Fault>, notes: &mut Vec<Fault>) {
    let mut others = source.items.iter();
    let Some((_, line)) = others.find(|(word, _)| !matches!(word.as_str(), "mod" | "use")) else {
        return;
    };
    let what = "mod.rs has more than declarations and re-exports: give it a file of its own";
    let list = if is_test_file(file) { notes } else { faults };
    list.push(Fault::new(file, *line, what));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn faults(file: &str, text: &str) -> Vec<String> {
        let (mut faults, mut notes) = (Vec::new(), Vec::new());
        let source = Source::read(text).unwrap();
        check(Path::new(file), text, &source, &mut faults, &mut notes);
        faults.extend(notes);
        faults.into_iter().map(|fault| fault.to_string()).collect()
    }

    #[test]
    fn a_file_says_what_it_is() {
        assert_eq!(faults("a.rs", "//! A.\nfn a() {}"), [""; 0]);
        assert_eq!(faults("a.rs", "fn a() {}").len(), 1);
    }

    #[test]
    fn tests_do_not_count_as_length() {
        let body = "fn a() {}\n".repeat(450);
        assert_eq!(faults("a.rs", &format!("//! A.\n{body}")).len(), 1);
        let tests = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{body}}}\n");
        assert_eq!(faults("a.rs", &tests), [""; 0]);
    }

    #[test]
    fn unsafe_has_its_places() {
        let text = "//! A, unsafe.\nfn a() { unsafe { b() } }";
        assert_eq!(faults("egress-agent/src/a.rs", text).len(), 1);
        assert_eq!(faults("egress-ebpf/src/a.rs", text), [""; 0]);
        let forbids = "//! A.\n#![forbid(unsafe_code)]";
        assert_eq!(faults("egress-agent/src/lib.rs", forbids), [""; 0]);
    }

    #[test]
    fn suppressions_are_expected_and_explained() {
        assert_eq!(faults("a.rs", "//! A.\n#[allow(x)]\nfn a() {}").len(), 1);
        assert_eq!(faults("a.rs", "//! A.\n#[expect(x)]\nfn a() {}").len(), 1);
        let good = "//! A.\n#![expect(x, reason = \"y\")]\nfn a() {}";
        assert_eq!(faults("a.rs", good), [""; 0]);
        assert_eq!(
            faults("a.rs", "//! A.\n#[test]\n#[ignore]\nfn a() {}").len(),
            1
        );
    }

    #[test]
    fn a_door_is_only_a_door() {
        let good = "//! A.\nmod a;\npub mod b;\npub use b::C;";
        assert_eq!(faults("x/mod.rs", good), [""; 0]);
        assert_eq!(faults("x/mod.rs", "//! A.\nmod a;\nfn b() {}").len(), 1);
    }
}
