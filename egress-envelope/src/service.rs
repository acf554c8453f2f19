//! Tables of operations: which requests a service takes, and where they say who they go to.
//!
//! A table is data (YAML or JSON), so that people can write their own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::value::Kind;

/// The operations of one service.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, such as `postmark`.
    pub service: String,
    /// The host names that it is served at, where `*` stands for one label; empty: any.
    pub hosts: Vec<String>,
    /// What it does.
    pub operations: Vec<OperationRule>,
    /// Where requests hold what authenticates: [`Place`]s.
    #[serde(default)]
    pub credentials: Vec<String>,
}

/// One kind of request.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationRule {
    /// Its name in events.
    pub id: String,
    /// The method, in capitals.
    pub method: String,
    /// The path, a [`Template`].
    pub path: String,
    /// For [`Body::JsonRpc`], the method of the call.
    #[serde(default)]
    pub rpc: Option<String>,
    /// What the body is.
    #[serde(default)]
    pub body: Body,
    /// Who gets something: by kind of value, [`Place`]s.
    #[serde(default)]
    pub recipients: BTreeMap<Kind, Vec<String>>,
    /// Where else something goes: reply addresses, webhooks, accounts.
    #[serde(default)]
    pub destinations: BTreeMap<Kind, Vec<String>>,
}

/// What the body of a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// There is none.
    #[default]
    None,
    /// JSON.
    Json,
    /// application/x-www-form-urlencoded.
    Form,
    /// multipart/form-data.
    Multipart,
    /// message/rfc822.
    Mime,
    /// Anything: it is not read.
    Any,
    /// JSON-RPC 2.0.
    JsonRpc,
}

/// The path of an operation: segments, in which a variable stands for what is not always the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template(Vec<Segment>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    /// This text.
    Text(String),
    /// `before{name}`: one segment that begins so, and goes on.
    Variable { before: String, name: String },
    /// `{name...}`: one segment or more, to the end.
    Rest(String),
}

/// Where in a request a value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// `/to/*/email`: a field of the body, as a JSON pointer (RFC 6901) in which `*` stands for
    /// every entry of a list and every value of a mapping. Of a form, its field `to` is `/to`.
    Field(Vec<String>),
    /// `mime /raw`: a field of the body that holds a whole mail in base64 or base64url; its own
    /// fields say who gets it. `mime-base64 /data` and `mime-base64url /raw`: in that alphabet alone,
    /// since some servers skip what is not in theirs. `mime` alone: the body itself is one.
    Mime(Vec<String>),
    /// `transaction /params/0`: a field that holds a signed transaction; it says who gets it.
    Transaction(Vec<String>),
    /// `path NAME`: what stands for a variable of the path.
    Path(String),
    /// `query NAME`.
    Query(String),
    /// `header NAME`, in lower case.
    Header(String),
}

/// Why a text is no path or place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unusable {
    /// Not from the root on.
    #[error("does not begin with a slash")]
    NoSlash,
    /// With parts that belong elsewhere, or that can be written in several ways.
    #[error("is no plain path: a query, fragments, escapes and blanks have no place in it")]
    NotPlain,
    /// `.`, `..`, or an empty segment.
    #[error("has a segment that servers take away")]
    Dots,
    /// Braces that hold no name, or not at the end of their segment.
    #[error("has braces that are no variable: “{{name}}” ends its segment, “{{name...}}” the path")]
    Braces,
    /// None of the forms.
    #[error("is no place in a request")]
    NoPlace,
}

impl Template {
    /// Reads `/v1/{account}/mails`.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        let rest = text.strip_prefix('/').ok_or(Unusable::NoSlash)?;
        let odd = |c: char| !c.is_ascii_graphic() || "?#%\\;".contains(c);
        if text.len() > 512 || text.contains(odd) {
            return Err(Unusable::NotPlain);
        }
        let count = rest.split('/').count();
        let segments = rest.split('/').enumerate();
        segments
            .map(|(index, text)| segment(text, index.saturating_add(1) == count))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The variables with what stands for them, where a path is one of these. It is compared as it
    /// is written, without a query.
    pub fn matches<'a>(&self, path: &'a str) -> Option<Vec<(&str, &'a str)>> {
        let mut rest = Some(path.strip_prefix('/')?);
        let mut found = Vec::new();
        for segment in &self.0 {
            let left = rest?;
            let (first, others) = match left.split_once('/') {
                Some((first, others)) => (first, Some(others)),
                None => (left, None),
            };
            rest = others;
            match segment {
                Segment::Text(text) => (text == first).then_some(())?,
                Segment::Variable { before, name } => {
                    let value = first
                        .strip_prefix(before.as_str())
                        .filter(|value| !value.is_empty())?;
                    found.push((name.as_str(), value));
                }
                Segment::Rest(name) => {
                    (!left.is_empty()).then_some(())?;
                    found.push((name.as_str(), left));
                    rest = None;
                }
            }
        }
        rest.is_none().then_some(found)
    }

    /// The names of its variables.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Text(_) => None,
            Segment::Variable { name, .. } | Segment::Rest(name) => Some(name.as_str()),
        })
    }

    /// Whether both stand for the same paths.
    pub fn is_like(&self, other: &Self) -> bool {
        let like = |(one, other): (&Segment, &Segment)| match (one, other) {
            (Segment::Variable { before: one, .. }, Segment::Variable { before: other, .. })
            | (Segment::Text(one), Segment::Text(other)) => one == other,
            (Segment::Rest(_), Segment::Rest(_)) => true,
            _ => false,
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(like)
    }

    /// How much of it is said: of several that match a path, the one that says most counts.
    fn weight(&self) -> usize {
        let texts = self.0.iter().map(|segment| match segment {
            Segment::Text(_) => 4,
            Segment::Variable { before, .. } => usize::from(!before.is_empty()).saturating_add(2),
            Segment::Rest(_) => 1,
        });
        texts.sum()
    }
}

fn segment(text: &str, last: bool) -> Result<Segment, Unusable> {
    let Some((before, braces)) = text.split_once('{') else {
        return match text {
            // A path may end with a slash.
            "" if last => Ok(Segment::Text(String::new())),
            "" | "." | ".." => Err(Unusable::Dots),
            _ if text.contains('}') => Err(Unusable::Braces),
            _ => Ok(Segment::Text(text.to_owned())),
        };
    };
    let name = braces.strip_suffix('}').ok_or(Unusable::Braces)?;
    let rest = name.strip_suffix("...");
    let name = rest.unwrap_or(name);
    let good = !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match rest {
        _ if !good || before.contains('}') => Err(Unusable::Braces),
        Some(_) if !last || !before.is_empty() => Err(Unusable::Braces),
        Some(name) => Ok(Segment::Rest(name.to_owned())),
        None => Ok(Segment::Variable {
            before: before.to_owned(),
            name: name.to_owned(),
        }),
    }
}

impl Place {
    /// Reads a place as tables write it.
    pub fn parse(text: &str) -> Result<Self, Unusable> {
        if text.starts_with('/') {
            return pointer(text).map(Self::Field);
        }
        let (what, name) = text.split_once(' ').unwrap_or((text, ""));
        let token = |c: char| c.is_ascii_graphic() && !"/{}*".contains(c);
        let named = !name.is_empty() && name.chars().all(token);
        match what {
            "mime" if name.is_empty() => Ok(Self::Mime(Vec::new())),
            "mime" | "mime-base64" | "mime-base64url" => pointer(name).map(Self::Mime),
            "transaction" => pointer(name).map(Self::Transaction),
            "path" if named => Ok(Self::Path(name.to_owned())),
            "query" if named => Ok(Self::Query(name.to_owned())),
            "header" if named => Ok(Self::Header(name.to_ascii_lowercase())),
            _ => Err(Unusable::NoPlace),
        }
    }

    /// Whether it stands in the body.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Self::Field(_) | Self::Mime(_) | Self::Transaction(_))
    }
}

/// The steps of a JSON pointer.
fn pointer(text: &str) -> Result<Vec<String>, Unusable> {
    let rest = text.strip_prefix('/').ok_or(Unusable::NoPlace)?;
    let step = |step: &str| {
        let good = !step.is_empty() && !step.chars().any(|c| c.is_control() || c.is_whitespace());
        let step = step.replace("~1", "/").replace("~0", "~");
        if good {
            Ok(step)
        } else {
            Err(Unusable::NoPlace)
        }
    };
    rest.split('/').map(step).collect()
}

impl OperationRule {
    /// All its places, with their kinds.
    pub fn places(&self) -> impl Iterator<Item = (Kind, &str)> {
        let all = self.recipients.iter().chain(&self.destinations);
        all.flat_map(|(kind, places)| places.iter().map(move |place| (*kind, place.as_str())))
    }

    /// Whether somebody gets something by a place, and it is not one where else something goes.
    pub(crate) fn is_recipient(&self, place: &str) -> bool {
        self.recipients.values().flatten().any(|own| own == place)
    }
}

impl Service {
    /// The operations whose method and path are those of a request, the one that says most first.
    /// They differ in their bodies.
    pub fn candidates(&self, method: &str, path: &str) -> Vec<&OperationRule> {
        let mut found: Vec<(usize, &OperationRule)> = self
            .operations
            .iter()
            .filter(|operation| operation.method == method)
            .filter_map(|operation| {
                let template = Template::parse(&operation.path).ok()?;
                template.matches(path)?;
                Some((template.weight(), operation))
            })
            .collect();
        let most = found.iter().map(|(weight, _)| *weight).max();
        found.retain(|(weight, _)| Some(*weight) == most);
        found.into_iter().map(|(_, operation)| operation).collect()
    }

    /// Whether a path is another request where escaped slashes are read first (RFC 3986 section 2.2):
    /// another operation, or one with other variables. Only a variable at the end takes them.
    pub fn has_two_readings(&self, method: &str, path: &str) -> bool {
        let slashes = |text: &str| text.replace("%2f", "/").replace("%2F", "/");
        let other = slashes(path);
        if other == path {
            return false;
        }
        let (one, two) = (
            self.candidates(method, path),
            self.candidates(method, &other),
        );
        let same = |(one, two): (&&OperationRule, &&OperationRule)| {
            let Ok(template) = Template::parse(&one.path) else {
                return false;
            };
            let (own, others) = (template.matches(path), template.matches(&other));
            let own = own.into_iter().flatten().map(|(_, value)| slashes(value));
            let others = others
                .into_iter()
                .flatten()
                .map(|(_, value)| value.to_owned());
            std::ptr::eq(*one, *two) && own.eq(others)
        };
        one.len() != two.len() || !one.iter().zip(&two).all(same)
    }

    /// Whether the service is served at a host.
    pub fn is_at(&self, host: &str) -> bool {
        let same = |own: &String| {
            let labels = own.split('.').count() == host.split('.').count();
            labels
                && own
                    .split('.')
                    .zip(host.split('.'))
                    .all(|(own, label)| own == "*" || own == label)
        };
        self.hosts.is_empty() || self.hosts.iter().any(same)
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Template, Unusable};

    #[test]
    fn a_path_is_what_its_template_says() {
        for (template, path, found) in [
            ("/email", "/email", Some(vec![])),
            ("/email", "/email/", None),
            ("/email", "/emails", None),
            ("/email", "/Email", None),
            ("/email/", "/email/", Some(vec![])),
            ("/a/{b}/c", "/a/x/c", Some(vec![("b", "x")])),
            ("/a/{b}/c", "/a//c", None),
            ("/a/{b}/c", "/a/x/y/c", None),
            (
                "/bot{token}/send",
                "/bot1:A/send",
                Some(vec![("token", "1:A")]),
            ),
            ("/bot{token}/send", "/bot/send", None),
            ("/c/{p...}", "/c/a/b", Some(vec![("p", "a/b")])),
            ("/c/{p...}", "/c/", None),
            ("/c/{p...}", "/c", None),
        ] {
            let found_now = Template::parse(template).map(|template| {
                let found = template.matches(path)?;
                let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
                Some(found.into_iter().map(own).collect::<Vec<_>>())
            });
            let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            let found = found.map(|list: Vec<_>| list.into_iter().map(own).collect());
            assert_eq!(found_now, Ok(found), "{template} {path}");
        }
    }

    #[test]
    fn what_is_no_path_and_no_place() {
        for (text, why) in [
            ("x", Unusable::NoSlash),
            ("/x?y", Unusable::NotPlain),
            ("/a b", Unusable::NotPlain),
            ("/a%20b", Unusable::NotPlain),
            ("/a;b", Unusable::NotPlain),
            ("/a//b", Unusable::Dots),
            ("/a/../b", Unusable::Dots),
            ("/{}", Unusable::Braces),
            ("/a}", Unusable::Braces),
            ("/{a}b", Unusable::Braces),
            ("/{a...}/b", Unusable::Braces),
            ("/x{a...}", Unusable::Braces),
        ] {
            assert_eq!(Template::parse(text), Err(why), "{text}");
        }
        for text in [
            "",
            "to",
            "/",
            "/a//b",
            "path",
            "path ",
            "path a b",
            "cookie x",
            "transaction",
            "header /x",
            "mime-base64",
            "mime-base32 /x",
        ] {
            assert_eq!(Place::parse(text), Err(Unusable::NoPlace), "{text}");
        }
        assert_eq!(
            Place::parse("header X-Token"),
            Ok(Place::Header("x-token".into()))
        );
        assert_eq!(
            Place::parse("/a~1b/*"),
            Ok(Place::Field(vec!["a/b".into(), "*".into()]))
        );
        assert_eq!(Place::parse("mime"), Ok(Place::Mime(vec![])));
        for text in ["mime /raw", "mime-base64 /raw", "mime-base64url /raw"] {
            assert_eq!(Place::parse(text), Ok(Place::Mime(vec!["raw".into()])));
        }
    }
}
