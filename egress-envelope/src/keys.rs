//! Keys of bodies and queries, compared as the most lenient server would: a key that some server
//! takes for a marked one is taken for it here.

use crate::mail::is_hidden;

/// The form in which keys are compared: in lower case, with what looks or folds like an ASCII letter
/// as that letter (`ſ`, `K`, full width), and without characters that nobody sees.
pub(crate) fn folded(key: &str) -> String {
    let seen = key.trim().chars().filter(|c| !is_hidden(*c));
    let narrow = |c: char| match c {
        'İ' => 'i',
        '\u{ff01}'..='\u{ff5e}' => {
            let code = u32::from(c).wrapping_sub(0xfee0);
            char::from_u32(code).unwrap_or(c)
        }
        c => c,
    };
    // By way of capitals: `ſ` and `ı` have those of `s` and `i`.
    let folded = seen.map(narrow).flat_map(char::to_uppercase);
    folded.flat_map(char::to_lowercase).collect()
}

/// Whether two keys are the same for some server.
pub(crate) fn same(one: &str, other: &str) -> bool {
    folded(one) == folded(other)
}

/// Whether a key can be written without a second reading: servers end a key at a NUL, take other
/// control characters away, and read every object's keys from one that is its prototype.
pub(crate) fn is_plain(key: &str) -> bool {
    !key.chars().any(char::is_control) && !key.contains("__proto__")
}

/// The steps of a key as frameworks write nested fields in forms and queries: `a[b][]`, `a.b`.
/// Empty steps and numbers are entries of lists and left out. `None`: brackets that are none.
pub(crate) fn steps(key: &str) -> Option<Vec<String>> {
    let mut steps = Vec::new();
    for part in key.split('.') {
        let (first, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        steps.push(first);
        while !rest.is_empty() {
            let (step, after) = rest.strip_prefix('[')?.split_once(']')?;
            if step.contains('[') {
                return None;
            }
            steps.push(step);
            rest = after;
        }
        if first.contains(']') {
            return None;
        }
    }
    let named = |step: &&str| !step.is_empty() && !step.bytes().all(|it| it.is_ascii_digit());
    Some(steps.into_iter().filter(named).map(folded).collect())
}

/// Whether a key of a form or query says something about a place, as steps of a pointer. `None`: its
/// brackets are none.
pub(crate) fn meets(key: &str, place: &[String]) -> Option<bool> {
    let named = place.iter().filter(|step| *step != "*");
    let place: Vec<String> = named
        .flat_map(|step| steps(step).unwrap_or_default())
        .collect();
    // PHP has no dots and blanks in names.
    let flat = key.replace(['.', ' '], "_");
    for key in [key, &flat] {
        let key = steps(key)?;
        if !key.is_empty() && key.iter().zip(&place).all(|(own, step)| own == step) {
            return Some(!place.is_empty());
        }
    }
    Some(false)
}

/// Keys by which frameworks take a request for another one, or a text for another text.
pub(crate) fn overrides(key: &str) -> bool {
    let key = folded(key).replace(['-', '$'], "_");
    matches!(
        key.trim_matches('_'),
        "method"
            | "httpmethod"
            | "http_method"
            | "x_http_method"
            | "x_http_method_override"
            | "x_method_override"
            | "http_method_override"
            | "charset"
            | "httpheaders"
    ) && !matches!(key.as_str(), "method" | "charset")
}

#[cfg(test)]
mod tests {
    use super::{folded, meets, overrides, steps};

    #[test]
    fn keys_that_some_server_takes_for_the_same() {
        for key in ["bcc", "BCC", "ＢＣＣ", " bcc", "b\u{200b}cc", "\u{feff}bcc"] {
            assert_eq!(folded(key), "bcc", "{key}");
        }
        assert_eq!(folded("recipient\u{17f}"), "recipients");
        assert_eq!(folded("\u{212a}ind"), "kind");
        assert_eq!(folded("l\u{131}st"), "list");
        assert_eq!(folded("LİST"), "list");
    }

    #[test]
    fn nested_keys() {
        let place = ["List".to_owned(), "*".into(), "Email".into()];
        for key in [
            "List[0][Email]",
            "list[][email]",
            "List",
            "List.0.Email",
            "LIST[Email][x]",
        ] {
            assert_eq!(meets(key, &place), Some(true), "{key}");
        }
        for key in ["Lists", "Email", "List[0][Name]", "x[List]"] {
            assert_eq!(meets(key, &place), Some(false), "{key}");
        }
        assert_eq!(meets("reply.to", &["reply_to".to_owned()]), Some(true));
        for key in ["a[", "a]", "a[b", "a[b]c", "a[[b]"] {
            assert_eq!(steps(key), None, "{key}");
        }
        assert!(overrides("_method") && overrides("_METHOD") && overrides("$httpMethod"));
        assert!(!overrides("method") && !overrides("to"));
    }
}
