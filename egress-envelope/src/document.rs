//! A body that was read, and what stands at its places.

use serde_json::Value;

use crate::{
    base64,
    content::Content,
    form, json, keys,
    mime::{self, Field},
    multipart::{self, Part},
    service::Place,
    transaction,
};

/// A body, by what it is.
#[derive(Debug)]
pub(crate) enum Document {
    /// There is none, or it is not to be read.
    Nothing,
    /// JSON.
    Json(Value),
    /// The fields of a form: keys and texts.
    Fields(Vec<(String, String)>),
    /// The parts of a form.
    Parts(Vec<Part>),
    /// The fields of a mail.
    Mail(Vec<Field>),
}

impl Document {
    /// Reads a body as its type says.
    pub(crate) fn read(content: &Content, body: &[u8]) -> Result<Self, &'static str> {
        match content {
            Content::Json => json::read(body).map(Self::Json),
            Content::Form => form::read(body).map(Self::Fields),
            Content::Multipart(boundary) => multipart::read(body, boundary).map(Self::Parts),
            Content::Mail => mime::read(body).map(Self::Mail),
            Content::Unsaid | Content::Other => Err("a body of a type that is not read"),
        }
    }

    /// The texts at a place of the body.
    pub(crate) fn at(&self, place: &Place) -> Result<Vec<String>, &'static str> {
        let mut found = Vec::new();
        match (self, place) {
            (Self::Nothing, _) => {}
            (Self::Json(value), Place::Field(steps)) => json::at(value, steps, &mut found),
            (Self::Fields(fields), Place::Field(steps)) => {
                for (key, text) in fields {
                    if keys::meets(key, steps).ok_or("brackets in a key of the form")? {
                        found.push(text.clone());
                    }
                }
            }
            (Self::Parts(parts), Place::Field(steps)) => {
                for Part { key, value } in parts {
                    match value {
                        _ if !keys::meets(key, steps).ok_or("brackets in a name of a part")? => {}
                        multipart::Value::Text(text) => found.push(text.clone()),
                        multipart::Value::File(_) => return Err("a file where a value belongs"),
                    }
                }
            }
            (Self::Json(value), Place::Transaction(steps)) => {
                let mut transactions = Vec::new();
                json::exactly(value, steps, &mut transactions).ok_or("no transaction")?;
                for transaction in transactions {
                    found.extend(transaction::accounts(transaction)?);
                }
            }
            _ => return Err("a body that has no such place"),
        }
        Ok(found)
    }

    /// The mails at a place of the body, each by its fields. `word`: by which a table marks it.
    pub(crate) fn mails(
        &self,
        word: &str,
        steps: &[String],
    ) -> Result<Vec<Vec<Field>>, &'static str> {
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Mail(fields) if steps.is_empty() => Ok(vec![fields.clone()]),
            _ if steps.is_empty() => Err("a body that is no mail"),
            _ => {
                let texts = self.at(&Place::Field(steps.to_vec()))?;
                let texts = texts.iter().filter(|text| !text.is_empty());
                texts.map(|text| mail(word, text)).collect()
            }
        }
    }

    /// Gives the place of every key, without entries of lists.
    pub(crate) fn keys(&self, each: &mut impl FnMut(&[&str])) {
        match self {
            Self::Nothing => {}
            Self::Json(value) => json::keys(value, &mut Vec::new(), each),
            Self::Fields(fields) => {
                for (key, _) in fields {
                    nested(key, each);
                }
            }
            Self::Parts(parts) => {
                for Part { key, .. } in parts {
                    nested(key, each);
                }
            }
            Self::Mail(fields) => {
                for Field { name, .. } in fields {
                    each(&[&name.to_ascii_lowercase()]);
                }
            }
        }
    }

    /// Gives every text with its place.
    pub(crate) fn texts(&self, each: &mut impl FnMut(&[&str], &str)) {
        match self {
            // What a mail says is judged where it stands.
            Self::Nothing | Self::Mail(_) => {}
            Self::Json(value) => json::texts(value, &mut Vec::new(), each),
            Self::Fields(fields) => {
                for (key, text) in fields {
                    each(&[], key);
                    field(key, text, each);
                }
            }
            Self::Parts(parts) => {
                for Part { key, value } in parts {
                    each(&[], key);
                    match value {
                        multipart::Value::Text(text) => field(key, text, each),
                        multipart::Value::File(name) => each(&[key.as_str(), "filename"], name),
                    }
                }
            }
        }
    }
}

/// Gives the place of a form's key, which may be that of a nested field.
fn nested(key: &str, each: &mut impl FnMut(&[&str])) {
    let steps = keys::steps(key).unwrap_or_else(|| vec![key.to_owned()]);
    let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
    each(&steps);
}

/// Gives the text of a field, or those of the JSON that it is.
fn field(key: &str, text: &str, each: &mut impl FnMut(&[&str], &str)) {
    match json::read(text.as_bytes()) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => {
            json::texts(&value, &mut Vec::new(), &mut |_, text| each(&[key], text));
        }
        _ => each(&[key], text),
    }
}

/// The fields of a mail in base64.
fn mail(word: &str, text: &str) -> Result<Vec<Field>, &'static str> {
    let own = Some(text).filter(|text| base64::is_in_alphabet(word, text));
    let bytes = own.and_then(base64::read);
    mime::read(&bytes.ok_or("a mail that is not in base64, or not in one way")?)
}
