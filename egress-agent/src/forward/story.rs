//! What a connection that came to nothing means, for people. Pure.

use super::spec::Why;

/// What happened and what to do. `proxy` is its URL without credentials; `known`: the agent has
/// credentials for it.
pub(super) fn story(proxy: &str, known: bool, name: &str, port: u16, why: &Why) -> String {
    let asked = format!("CONNECT {name}:{port}");
    match why {
        Why::Status { code, reason } => {
            let reason = reason.trim();
            let words = if reason.is_empty() {
                String::new()
            } else {
                format!(" ({reason})")
            };
            format!(
                "{proxy} answered {code}{words} to {asked}: {}",
                advice(*code, known)
            )
        }
        Why::Nowhere => format!(
            "{asked} was not sent: no address of {proxy} is known; look at its name and at the DNS servers"
        ),
        Why::Unreachable(error) => format!(
            "{asked} was not sent: {proxy} cannot be reached ({error}); look whether it runs there"
        ),
        Why::Silent => {
            format!("{proxy} gave no answer to {asked}, or ended the connection; ask who runs it")
        }
        Why::Garbled => {
            format!("what {proxy} answered to {asked} is no HTTP; is it the port of an HTTP proxy?")
        }
    }
}

fn advice(code: u16, known: bool) -> &'static str {
    match (code, known) {
        (407, false) => {
            "it asks who is there; write user name and password into its URL, http://USER:PASSWORD@HOST:PORT"
        }
        (407, true) => {
            "it does not take the user name and password of its URL; they are sent as Basic, and a proxy \
             that wants Negotiate or NTLM needs a helper such as cntlm or px in front of it"
        }
        (403 | 405, _) => "it does not permit that destination or port; ask who runs it",
        (404 | 502..=504, _) => "it does not find or reach that destination",
        (429, _) => "it takes no more connections now",
        _ => "ask who runs it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_to_do() {
        let status = |code| Why::Status {
            code,
            reason: "Words".to_owned(),
        };
        let told = |why: &Why, known| story("http://proxy:3128", known, "api.example", 443, why);
        for (why, known, part) in [
            (status(407), false, "USER:PASSWORD"),
            (status(407), true, "cntlm"),
            (status(403), false, "permit"),
            (status(503), false, "reach"),
            (status(418), false, "ask"),
            (Why::Nowhere, false, "DNS"),
            (Why::Unreachable("refused".into()), false, "refused"),
            (Why::Silent, false, "no answer"),
            (Why::Garbled, false, "no HTTP"),
        ] {
            let text = told(&why, known);
            assert!(text.contains(part), "{text}");
            assert!(
                text.contains("api.example:443") && text.contains("http://proxy:3128"),
                "{text}"
            );
        }
        assert!(told(&status(407), false).contains("407 (Words)"));
    }
}
