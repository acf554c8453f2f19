//! The texts and whole numbers of a JSON value, each with its place.

use std::fmt;

use serde::{
    Deserialize, Serialize,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};

/// Bytes of a text that can be a value. Longer ones are prose, unless they list addresses.
const MAX_TEXT: usize = 2 << 10;
/// Bytes of a text that lists addresses, or is JSON itself.
const MAX_LIST: usize = 64 << 10;
/// Bytes of all texts of one value.
const MAX_BYTES: usize = 256 << 10;
/// Number of texts of one value.
const MAX_LEAVES: usize = 4096;
/// JSON within a text within a text …
const MAX_NESTED: u8 = 3;

/// A text or a whole number inside a JSON value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Leaf {
    /// Where: a JSON pointer (RFC 6901). What stands in a text that is JSON itself is below that
    /// text's own place; a key that has an `@` in it is at the place of its value.
    pub place: String,
    /// What it says; a number in decimal.
    pub text: String,
}

/// All of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Leaves {
    /// Those that can be values.
    pub kept: Vec<Leaf>,
    /// How many more there were that can be, without room for them.
    pub left_out: usize,
}

/// The leaves of a JSON document. A key that stands twice gives both its values.
pub fn of(json: &str) -> serde_json::Result<Leaves> {
    let mut leaves = Leaves::default();
    read(json, &mut Keep::new(&mut leaves))?;
    Ok(leaves)
}

/// All texts and keys of a JSON document, one behind the other. Fails where they have more than
/// `most` bytes.
pub fn texts(json: &str, most: usize) -> serde_json::Result<String> {
    let mut all = All {
        texts: String::new(),
        most,
        over: false,
    };
    read(json, &mut all)?;
    if all.over {
        return Err(de::Error::custom("the texts are too long"));
    }
    Ok(all.texts)
}

fn read(json: &str, sink: &mut impl Sink) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_str(json);
    Walk(sink).deserialize(&mut reader)?;
    reader.end()
}

/// What becomes of what is found.
trait Sink {
    fn text(&mut self, text: &str);
    fn number(&mut self, number: impl fmt::Display) {
        self.text(&number.to_string());
    }
    fn enter_key(&mut self, key: &str) -> usize;
    fn enter_index(&mut self, index: usize) -> usize;
    fn leave(&mut self, mark: usize);
}

struct Keep<'a> {
    place: String,
    bytes: usize,
    nested: u8,
    leaves: &'a mut Leaves,
}

impl<'a> Keep<'a> {
    fn new(leaves: &'a mut Leaves) -> Self {
        Self {
            place: String::new(),
            bytes: 0,
            nested: 0,
            leaves,
        }
    }
}

impl Sink for Keep<'_> {
    fn text(&mut self, text: &str) {
        let text = text.trim();
        if text.starts_with(['{', '[']) && text.len() <= MAX_LIST && self.nested < MAX_NESTED {
            // Models write objects as texts, and servers take them.
            self.nested = self.nested.saturating_add(1);
            let (place, count) = (self.place.len(), self.leaves.kept.len());
            let is_json = read(text, self).is_ok();
            self.nested = self.nested.saturating_sub(1);
            if is_json {
                return;
            }
            self.place.truncate(place);
            self.leaves.kept.truncate(count);
        }
        let most = if text.contains('@') {
            MAX_LIST
        } else {
            MAX_TEXT
        };
        if text.is_empty() || text.len() > most {
            return;
        }
        let bytes = self
            .bytes
            .saturating_add(text.len())
            .saturating_add(self.place.len());
        if bytes > MAX_BYTES || self.leaves.kept.len() >= MAX_LEAVES {
            self.leaves.left_out = self.leaves.left_out.saturating_add(1);
            return;
        }
        self.bytes = bytes;
        self.leaves.kept.push(Leaf {
            place: self.place.clone(),
            text: text.to_owned(),
        });
    }

    fn enter_key(&mut self, key: &str) -> usize {
        let mark = self.place.len();
        self.place.push('/');
        for c in key.chars() {
            match c {
                '~' => self.place.push_str("~0"),
                '/' => self.place.push_str("~1"),
                c => self.place.push(c),
            }
        }
        if key.contains('@') {
            self.text(key);
        }
        mark
    }

    fn enter_index(&mut self, index: usize) -> usize {
        let mark = self.place.len();
        self.place.push('/');
        self.place.push_str(&index.to_string());
        mark
    }

    fn leave(&mut self, mark: usize) {
        self.place.truncate(mark);
    }
}

struct All {
    texts: String,
    most: usize,
    over: bool,
}

impl Sink for All {
    fn text(&mut self, text: &str) {
        if self.texts.len().saturating_add(text.len()) >= self.most {
            self.over = true;
            return;
        }
        self.texts.push_str(text);
    }

    fn enter_key(&mut self, key: &str) -> usize {
        self.text(key);
        0
    }

    fn enter_index(&mut self, _: usize) -> usize {
        0
    }

    fn leave(&mut self, _: usize) {}
}

/// Gives every leaf to the sink.
struct Walk<'s, S>(&'s mut S);

impl<'de, S: Sink> DeserializeSeed<'de> for Walk<'_, S> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de, S: Sink> Visitor<'de> for Walk<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.0.number(number);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.0.number(number);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.text(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let mark = self.0.enter_index(index);
            let more = list.next_element_seed(Walk(&mut *self.0));
            self.0.leave(mark);
            if more?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(mark)) = map.next_key_seed(KeyOf(&mut *self.0))? {
            let value = map.next_value_seed(Walk(&mut *self.0));
            self.0.leave(mark);
            value?;
        }
        Ok(())
    }
}

struct KeyOf<'s, S>(&'s mut S);
struct Key(usize);

impl<'de, S: Sink> DeserializeSeed<'de> for KeyOf<'_, S> {
    type Value = Key;

    fn deserialize<D: de::Deserializer<'de>>(self, key: D) -> Result<Key, D::Error> {
        key.deserialize_str(self)
    }
}

impl<S: Sink> Visitor<'_> for KeyOf<'_, S> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(Key(self.0.enter_key(key)))
    }
}
