//! Lines of a shell that run what they fetch. Pure.

use super::program::base;

/// The line that an interpreter is given as a word: `python -c "$(curl …)"`.
pub fn line_of(words: &[String]) -> Option<&str> {
    let at = words
        .iter()
        .position(|word| matches!(word.as_str(), "-c" | "-e"))?;
    words.get(at + 1).map(String::as_str)
}

/// A shell line that runs what it fetches.
pub fn runs_what_it_fetches(line: &str) -> bool {
    const RUN: [&str; 12] = [
        "sh", "bash", "zsh", "dash", "ksh", "python", "python3", "node", "perl", "ruby", "deno",
        "bun",
    ];
    let fetches = |part: &str| {
        part.split([' ', '\t', ';', '&', '(', '`', '\n', '"', '\''])
            .any(|word| matches!(base(word), "curl" | "wget"))
    };
    let mut fetched = false;
    for part in line.split('|') {
        let mut words = part.split_whitespace().map(base);
        if fetched
            && words
                .find(|word| !matches!(*word, "sudo" | "env" | "-n" | "-E" | "exec"))
                .is_some_and(|word| RUN.contains(&word))
        {
            return true;
        }
        fetched |= fetches(part);
    }
    ["$(", "<(", "`"].iter().any(|open| {
        line.match_indices(open).any(|(at, _)| {
            let inner = line.get(at + open.len()..).unwrap_or_default().trim_start();
            let word = inner.split_whitespace().next().unwrap_or_default();
            let before = line
                .get(..at)
                .unwrap_or_default()
                .trim_end()
                .trim_end_matches(['"', '\''])
                .trim_end();
            let run = before.split_whitespace().next_back().unwrap_or_default();
            matches!(base(word), "curl" | "wget")
                && (run == "-c"
                    || run == "eval"
                    || run == "source"
                    || run == "."
                    || RUN.contains(&base(run)))
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_fetched_and_run_is_told_from_what_is_only_fetched() {
        for line in [
            "curl -fsSL https://x.example/i.sh | bash",
            "cd /x && wget -qO- https://x.example | sudo -E sh -s -- -y",
            "curl https://x.example | tee /x | python3 -",
            "bash <(curl -s https://x.example)",
            "bash -c \"$(curl -s https://x.example)\"",
            "eval `curl https://x.example`",
        ] {
            assert!(super::runs_what_it_fetches(line), "{line}");
        }
        for line in [
            "curl https://x.example | jq .",
            "curl -o /x https://x.example; node /opt/x.js",
            "TOKEN=$(curl https://x.example) node /opt/x.js",
            "node /opt/curl.js | sh",
            "ls | bash",
        ] {
            assert!(!super::runs_what_it_fetches(line), "{line}");
        }
    }
}
