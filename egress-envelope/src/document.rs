//! A body that was read, and what stands at its places.

use serde_json::Value;

use crate::{
    content::Content,
    form, json, keys,
    multipart::{self, Part},
    service::Place,
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
}

impl Document {
    /// Reads a body as its type says.
    pub(crate) fn read(content: &Content, body: &[u8]) -> Result<Self, &'static str> {
        match content {
            Content::Json => json::read(body).map(Self::Json),
            Content::Form => form::read(body).map(Self::Fields),
            Content::Multipart(boundary) => multipart::read(body, boundary).map(Self::Parts),
            _ => Err("a body of a kind that this version does not read"),
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
            _ => return Err("a place that this version does not read"),
        }
        Ok(found)
    }

    /// Gives every text with its place.
    pub(crate) fn texts(&self, each: &mut impl FnMut(&[&str], &str)) {
        match self {
            Self::Nothing => {}
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

/// Gives the text of a field, or those of the JSON that it is.
fn field(key: &str, text: &str, each: &mut impl FnMut(&[&str], &str)) {
    match json::read(text.as_bytes()) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => {
            json::texts(&value, &mut Vec::new(), &mut |_, text| each(&[key], text));
        }
        _ => each(&[key], text),
    }
}
