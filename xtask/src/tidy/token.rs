//! Rust source as far as the rules look into it: its tokens with their lines, what belongs
//! to tests, and the paths it names. Comments are gone and strings are opaque.

use std::ops::RangeInclusive;

use anyhow::{Result, anyhow};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One file.
pub(super) struct Source {
    /// Every path with at least two segments that code names, `use` trees spelt out.
    pub(super) paths: Vec<NamedPath>,
    /// Every identifier or keyword with its line.
    pub(super) words: Vec<(String, usize)>,
    /// Every attribute: its text without blanks, and its line.
    pub(super) attributes: Vec<(String, usize)>,
    /// The first word of every item at the file's top level after its visibility.
    pub(super) items: Vec<(String, usize)>,
    /// Whether the file's first lines say that it only decides.
    pub(super) says_pure: bool,
    /// Lines of modules and items that only tests are built from.
    tests: Vec<RangeInclusive<usize>>,
}

/// A path such as `crate::policy::name::Name`.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct NamedPath {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
}

impl Source {
    /// Reads a file's text. Errors where it is not made of Rust tokens.
    pub(super) fn read(text: &str) -> Result<Self> {
        let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
        let mut source = Self {
            paths: Vec::new(),
            words: Vec::new(),
            attributes: Vec::new(),
            items: Vec::new(),
            says_pure: text
                .lines()
                .take_while(|line| line.starts_with("//!"))
                .any(|line| line.contains("Pure") || line.contains('◦')),
            tests: Vec::new(),
        };
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        source.top_level(&tokens);
        source.walk(&tokens);
        Ok(source)
    }

    /// Whether a line belongs to tests alone.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|lines| lines.contains(&line))
    }

    fn walk(&mut self, tokens: &[TokenTree]) {
        let mut rest = tokens;
        while let [first, after @ ..] = rest {
            let line = first.span().start().line;
            match first {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    rest = self.attribute(rest, line);
                }
                // `use<'a>` in a type is no import.
                TokenTree::Ident(ident) if ident == "use" && !is_punct(after.first(), '<') => {
                    self.words.push(("use".to_owned(), line));
                    rest = self.use_tree(&[], after);
                }
                TokenTree::Ident(_) => rest = self.path(rest),
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    self.walk(&inner);
                    rest = after;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => rest = after,
            }
        }
    }

    /// `#[…]` or `#![…]`; `cfg(test)` marks the item that follows it.
    fn attribute<'t>(&mut self, tokens: &'t [TokenTree], line: usize) -> &'t [TokenTree] {
        let after = tokens.get(1..).unwrap_or_default();
        let inner = is_punct(after.first(), '!');
        let after = if inner {
            after.get(1..).unwrap_or_default()
        } else {
            after
        };
        let Some(TokenTree::Group(group)) = after.first() else {
            return after;
        };
        if group.delimiter() != Delimiter::Bracket {
            return after;
        }
        let text: String = compact(group.stream());
        let rest = after.get(1..).unwrap_or_default();
        if text == "cfg(test)" {
            let last = if inner { usize::MAX } else { item_end(rest) };
            self.tests.push(line..=last);
        }
        if !text.starts_with("doc=") {
            self.attributes.push((text, line));
        }
        rest
    }

    /// `a::b::c` from its first identifier; a single word is no path but is a word.
    fn path<'t>(&mut self, tokens: &'t [TokenTree]) -> &'t [TokenTree] {
        let mut segments = Vec::new();
        let mut first_line = 0;
        let mut rest = tokens;
        while let [TokenTree::Ident(ident), after @ ..] = rest {
            let line = ident.span().start().line;
            if segments.is_empty() {
                first_line = line;
            }
            self.words.push((ident.to_string(), line));
            segments.push(ident.to_string());
            rest = after;
            match after_colons(after) {
                Some(next) if matches!(next.first(), Some(TokenTree::Ident(_))) => rest = next,
                _ => break,
            }
        }
        if segments.len() > 1 {
            self.paths.push(NamedPath {
                segments,
                line: first_line,
            });
        }
        rest
    }

    /// What follows `use`, up to its semicolon or, inside braces, its comma.
    fn use_tree<'t>(&mut self, prefix: &[String], tokens: &'t [TokenTree]) -> &'t [TokenTree] {
        let mut segments = prefix.to_vec();
        let mut line = 0;
        let mut rest = tokens;
        let mut renamed = false;
        while let [first, after @ ..] = rest {
            match first {
                TokenTree::Punct(punct) if matches!(punct.as_char(), ';' | ',') => {
                    rest = after;
                    break;
                }
                TokenTree::Ident(ident) if ident == "as" => renamed = true,
                TokenTree::Ident(ident) if !renamed => {
                    line = ident.span().start().line;
                    segments.push(ident.to_string());
                }
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    let mut inner = inner.as_slice();
                    while !inner.is_empty() {
                        inner = self.use_tree(&segments, inner);
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            rest = after;
        }
        if line > 0 {
            self.paths.push(NamedPath { segments, line });
        }
        rest
    }

    fn top_level(&mut self, tokens: &[TokenTree]) {
        let mut at_start = true;
        let mut rest = tokens;
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                TokenTree::Ident(ident) if at_start && ident == "pub" => {
                    if let [TokenTree::Group(group), after @ ..] = rest
                        && group.delimiter() == Delimiter::Parenthesis
                    {
                        rest = after;
                    }
                }
                TokenTree::Ident(ident) if at_start => {
                    let line = ident.span().start().line;
                    self.items.push((ident.to_string(), line));
                    at_start = false;
                }
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    while let [TokenTree::Punct(_) | TokenTree::Group(_), after @ ..] = rest {
                        let done = matches!(rest.first(), Some(TokenTree::Group(_)));
                        rest = after;
                        if done {
                            break;
                        }
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => at_start = true,
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    at_start = true;
                }
                _ => {}
            }
        }
    }
}

/// The last line of the item that starts here: to its braces or its semicolon.
fn item_end(tokens: &[TokenTree]) -> usize {
    let end = tokens.iter().find(|token| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    });
    end.map_or(usize::MAX, |token| token.span().end().line)
}

fn after_colons(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    let both = is_punct(tokens.first(), ':') && is_punct(tokens.get(1), ':');
    if both { tokens.get(2..) } else { None }
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

fn compact(stream: TokenStream) -> String {
    stream
        .to_string()
        .chars()
        .filter(|character| !character.is_whitespace())
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let source = Source::read(text).unwrap();
        let paths = source.paths.iter();
        paths.map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_spelt_out() {
        let text = "use crate::{kernel::{load, pin as p}, event};\nuse std::fs;";
        let expected = [
            "crate::kernel::load",
            "crate::kernel::pin",
            "crate::event",
            "std::fs",
        ];
        let mut found = paths(text);
        found.retain(|path| expected.contains(&path.as_str()));
        assert_eq!(found, expected);
    }

    #[test]
    fn paths_in_code_and_macros_are_seen_and_comments_are_not() {
        let text = "// crate::app::x\nfn f() { crate::dns::wire::read(); log!(crate::app::go()); \"crate::cli::x\"; }";
        assert_eq!(paths(text), ["crate::dns::wire::read", "crate::app::go"]);
    }

    #[test]
    fn test_modules_end_where_their_braces_do() {
        let source =
            Source::read("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}")
                .unwrap();
        let marks: Vec<bool> = (1..=6).map(|line| source.is_test(line)).collect();
        assert_eq!(marks, [false, true, true, true, true, false]);
    }

    #[test]
    fn items_are_told_by_their_first_word() {
        let source =
            Source::read("//! x\n#![a]\npub(crate) mod x;\npub use y::{a, b};\n#[c] fn z() {}")
                .unwrap();
        let items: Vec<&str> = source.items.iter().map(|(word, _)| word.as_str()).collect();
        assert_eq!(items, ["mod", "use", "fn"]);
    }
}
