//! Mail addresses out of the texts that list them (RFC 5322 section 3.4), read strictly: what one
//! server takes for an address and another for a name, a comment or a group is no list at all.

use crate::base64;

/// Longest address (RFC 5321 section 4.5.3.1). Bytes.
const MAX_ADDRESS: usize = 254;

/// One piece of a list.
#[derive(Debug)]
enum Token {
    /// What was between quotes, without them.
    Quoted(String),
    /// What was between angle brackets, without them.
    Angle(String),
    /// Anything else but blanks.
    Word(String),
}

/// The addresses of a list such as `a@b.example, Bob <bob@c.example>`, canonical. `None`: the text
/// says something besides, or could be read in another way. Comments and groups are such.
pub(crate) fn list(text: &str) -> Option<Vec<String>> {
    if is_nobody(text) {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    let mut tokens = Vec::new();
    let mut chars = text.chars();
    let mut word = String::new();
    let mut touching = false;
    let mut end = |tokens: &mut Vec<Token>| -> Option<()> {
        found.extend(mailbox(&std::mem::take(tokens))?);
        Some(())
    };
    while let Some(c) = chars.next() {
        if !matches!(c, '"' | '<') && !is_between(c) {
            if is_odd(c) {
                return None;
            }
            // `"a"b`: a quoted word that is not apart from the next one. A local part is read so.
            if touching && word.is_empty() && c != '@' {
                return None;
            }
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            // `a"b"`: likewise.
            if c == '"' {
                return None;
            }
            tokens.push(Token::Word(std::mem::take(&mut word)));
        }
        touching = false;
        match c {
            '"' => {
                tokens.push(Token::Quoted(quoted(&mut chars)?));
                touching = true;
            }
            '<' => tokens.push(Token::Angle(until(&mut chars, '>')?)),
            ',' | ';' | '\n' => end(&mut tokens)?,
            _ => {}
        }
    }
    if !word.is_empty() {
        tokens.push(Token::Word(word));
    }
    end(&mut tokens)?;
    Some(found)
}

/// Whether a list says in the way of old that those who get the mail stand elsewhere.
pub(crate) fn is_nobody(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("undisclosed-recipients:;")
}

fn is_between(c: char) -> bool {
    matches!(c, ',' | ';') || c.is_whitespace()
}

/// What has a meaning of its own elsewhere in the grammar, or can be taken for it.
fn is_odd(c: char) -> bool {
    c.is_control()
        || "()>[]\\:".contains(c)
        || "＜＞＠，；：（）﹤﹥﹫﹐﹔﹕".contains(c)
        || is_hidden(c)
}

/// Characters that nobody sees, and that some servers take away.
pub(crate) fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn quoted(chars: &mut std::str::Chars<'_>) -> Option<String> {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Some(text),
            '\\' => text.push(chars.next().filter(|c| !c.is_control())?),
            c if c.is_control() || is_hidden(c) => return None,
            c => text.push(c),
        }
    }
    None
}

fn until(chars: &mut std::str::Chars<'_>, last: char) -> Option<String> {
    let mut text = String::new();
    for c in chars {
        match c {
            c if c == last => return Some(text),
            '<' | ',' | ';' | '"' => return None,
            c if is_odd(c) => return None,
            c => text.push(c),
        }
    }
    None
}

/// One address, with or without a name before it; none where there is nothing.
fn mailbox(tokens: &[Token]) -> Option<Option<String>> {
    match tokens {
        [] => Some(None),
        [Token::Word(word)] => address(word).map(Some),
        // A quoted local part. What needs the quotes is read in several ways.
        [Token::Quoted(local), Token::Word(rest)] if rest.starts_with('@') => {
            address(&format!("{local}{rest}")).map(Some)
        }
        [names @ .., Token::Angle(bare)] => {
            let own = address(bare.trim())?;
            let mut all = String::new();
            for name in names {
                let text = match name {
                    Token::Angle(_) => return None,
                    // The address once more, as mail programs write it.
                    Token::Quoted(text) | Token::Word(text)
                        if address(text).as_ref() == Some(&own) =>
                    {
                        continue;
                    }
                    Token::Quoted(text) | Token::Word(text) => text,
                };
                all.push_str(text);
                all.push(' ');
            }
            is_name(&all).then_some(Some(own))
        }
        _ => None,
    }
}

/// Whether nobody takes a name for an address, before or after encoded words in it are read.
fn is_name(text: &str) -> bool {
    let plain =
        |text: &str| !text.contains(['@', '<', '>', '＠', '﹫', '＜', '＞', '\n', '\r', '\0']);
    plain(text) && words(text).is_some_and(|text| plain(&text))
}

/// Without encoded words (RFC 2047). `None`: they are not proper, or of a charset that is not read.
pub(crate) fn words(text: &str) -> Option<String> {
    let mut out = String::new();
    let (mut rest, mut first) = (text, true);
    while let Some((before, word)) = rest.split_once("=?") {
        // Blanks between two of them belong to neither (section 6.2).
        if first || !before.trim().is_empty() {
            out.push_str(before);
        }
        first = false;
        let mut parts = word.splitn(3, '?');
        let (charset, how, tail) = (parts.next()?, parts.next()?, parts.next()?);
        let (inner, after) = tail.split_once("?=")?;
        let bytes = match how {
            "b" | "B" => base64::read(inner)?,
            "q" | "Q" => printable(inner)?,
            _ => return None,
        };
        let read = match charset.to_ascii_lowercase().as_str() {
            "utf-8" | "us-ascii" => String::from_utf8(bytes).ok()?,
            "iso-8859-1" | "windows-1252" => bytes.iter().map(|byte| char::from(*byte)).collect(),
            _ => return None,
        };
        out.push_str(&read);
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

/// RFC 2047 section 4.2.
fn printable(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'_' => b' ',
            b'=' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from((high << 4) | low).ok()?
            }
            byte if byte.is_ascii_graphic() => byte,
            _ => return None,
        });
    }
    Some(out)
}

/// An address by itself, in lower case, its domain in ASCII.
fn address(text: &str) -> Option<String> {
    let (local, domain) = text.split_once('@')?;
    let atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    let dots = local
        .split('.')
        .all(|part| !part.is_empty() && part.chars().all(atom));
    // Some gateways read `%` and `!` as a way further (RFC 5321 appendix C), and encoded words.
    if !dots || local.contains(['%', '!']) || local.contains("=?") {
        return None;
    }
    let domain = if domain.is_ascii() {
        domain.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii_strict(domain).ok()?
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let good = domain.contains('.') && domain.split('.').all(label);
    let whole = format!("{}@{domain}", local.to_ascii_lowercase());
    (good && whole.len() <= MAX_ADDRESS).then_some(whole)
}

/// The addresses anywhere in a text. `None`: something in it could be one and is not read.
pub(crate) fn within(text: &str) -> Option<Vec<String>> {
    let folded = text.to_ascii_lowercase();
    let hidden = ["%40", "%2540", "&commat", "\\u0040", "\\x40", "＠", "﹫"];
    if hidden.iter().any(|it| folded.contains(it)) || folded.split("&#").skip(1).any(is_at) {
        return None;
    }
    let text = match text.contains("?=") {
        true => words(text)?,
        false => text.to_owned(),
    };
    let near = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.\"".contains(c);
    // Of what is not ASCII, quotes and the like end a domain; the rest is a part of it, or taken away.
    let ends = |c: char| c.is_whitespace() || "«»‘’‚“”„‹›–—…、，；）」》】".contains(c);
    let far = |c: char| match c.is_ascii() {
        true => c.is_ascii_alphanumeric() || "-._[]:".contains(c),
        false => !ends(c),
    };
    let mut found = Vec::new();
    for (at, _) in text.match_indices('@') {
        let (before, after) = text.split_at_checked(at)?;
        let after = after.get(1..)?;
        let local = before.trim_end_matches(near);
        let local = before.get(local.len()..)?.trim_start_matches('.');
        let (domain, rest) = after.split_at(after.find(|c| !far(c)).unwrap_or(after.len()));
        let ended = domain.ends_with('.');
        let domain = domain.trim_end_matches(['.', ':', '-', ']']);
        // `@a.example:b@c.example` is a route.
        if goes_on(rest, ended) || (local.is_empty() && domain.contains(':')) {
            return None;
        }
        // `@bob`, and the release of a package.
        let last = domain.rsplit('.').next().unwrap_or_default();
        let digits = last.chars().all(|c| c.is_ascii_digit()) && domain.split('.').count() != 4;
        // `icon@2x.png`
        let picture = domain.len() == 6
            && domain.starts_with(|c: char| c.is_ascii_digit())
            && ["x.png", "x.jpg", "x.gif", "x.svg"]
                .iter()
                .any(|it| domain.ends_with(it));
        let no_host = !domain.contains('.') || digits || picture;
        if local.is_empty() || (no_host && !domain.starts_with('[')) {
            continue;
        }
        found.push(address(&format!("{}@{domain}", local.trim_matches('"')))?);
    }
    Some(found)
}

/// Whether what is behind `&#` is the number of an `@`, in one of the ways of HTML.
fn is_at(text: &str) -> bool {
    let hex = text.strip_prefix('x');
    let number = hex.unwrap_or(text).trim_start_matches('0');
    let number = number.strip_prefix(if hex.is_some() { "40" } else { "64" });
    let digit = |c: char| c.is_digit(if hex.is_some() { 16 } else { 10 });
    number.is_some_and(|rest| !rest.starts_with(digit))
}

/// Whether a domain goes on behind blanks and comments (RFC 5322 section 4.4), as `a@b.example .c`;
/// `ended`: a dot was its last character.
fn goes_on(mut rest: &str, ended: bool) -> bool {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let all = rest;
    loop {
        rest = rest.trim_start_matches(blank);
        let Some((_, after)) = rest.strip_prefix('(').and_then(|it| it.split_once(')')) else {
            break;
        };
        rest = after;
    }
    if rest.len() == all.len() {
        return false;
    }
    if rest.starts_with('.') {
        return true;
    }
    // `a@b. example`, and not the end of a sentence.
    let word = rest.split(|c: char| !(c.is_alphanumeric() || "-.".contains(c)));
    let word = word.into_iter().next().unwrap_or_default();
    let after = rest.get(word.len()..).unwrap_or_default();
    let last = !after
        .trim_start_matches(blank)
        .starts_with(char::is_alphanumeric);
    ended && !word.is_empty() && (last || word.trim_end_matches('.').contains('.'))
}
