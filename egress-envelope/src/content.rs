//! What a body is, by its head: one type, in UTF-8.

use crate::{head::Head, service::Body};

/// A content type that is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// There is none.
    Unsaid,
    /// application/json, and what ends with `+json`.
    Json,
    /// application/x-www-form-urlencoded.
    Form,
    /// multipart/form-data, with its boundary.
    Multipart(String),
    /// message/rfc822.
    Mail,
    /// Another one.
    Other,
}

impl Content {
    /// Whether a table's word for the body means this type.
    pub(crate) fn is(&self, body: Body) -> bool {
        match body {
            Body::Any => true,
            Body::None => *self == Self::Unsaid,
            Body::Json | Body::JsonRpc => *self == Self::Json,
            Body::Form => *self == Self::Form,
            Body::Multipart => matches!(self, Self::Multipart(_)),
            Body::Mime => *self == Self::Mail,
        }
    }
}

/// Reads `Content-Type` (RFC 9110 section 8.3.1). A list, a second charset, a parameter that
/// stands twice: servers take one or the other.
pub(crate) fn of(head: &Head) -> Result<Content, &'static str> {
    let mut all = head.values("content-type");
    let text = match (all.next(), all.next()) {
        (None, _) => return Ok(Content::Unsaid),
        (Some(text), None) => text,
        (Some(_), Some(_)) => return Err("several content types"),
    };
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let token = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    if !kind
        .split_once('/')
        .is_some_and(|(one, other)| token(one) && token(other))
    {
        return Err("a content type that is none");
    }
    let (mut charset, mut boundary) = (false, None);
    for part in parts.filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or("a content type that is none")?;
        let bare = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        let value = bare.unwrap_or(value);
        // Boundaries may hold more (RFC 2046 section 5.1.1), which some servers cut off.
        let odd = |byte: u8| !(byte.is_ascii_alphanumeric() || b"'+_-./=".contains(&byte));
        if value.is_empty() || value.len() > 70 || value.bytes().any(odd) {
            return Err("a parameter of the content type");
        }
        match name.to_ascii_lowercase().as_str() {
            "charset" if !charset && value.eq_ignore_ascii_case("utf-8") => charset = true,
            "boundary" if boundary.is_none() => boundary = Some(value.to_owned()),
            _ => return Err("a parameter of the content type"),
        }
    }
    let content = match kind.as_str() {
        "multipart/form-data" => {
            return boundary
                .map(Content::Multipart)
                .ok_or("a multipart body without a boundary");
        }
        "application/x-www-form-urlencoded" => Content::Form,
        "message/rfc822" => Content::Mail,
        "application/json" => Content::Json,
        kind if kind.starts_with("application/") && kind.ends_with("+json") => Content::Json,
        _ => return Ok(Content::Other),
    };
    match boundary {
        Some(_) => Err("a boundary where none belongs"),
        None => Ok(content),
    }
}
