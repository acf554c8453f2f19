//! The head of a request, after it was read in the only way it can be read.

/// Which HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// Where the body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the stream (HTTP/2).
    Stream,
}

/// Whom a request is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authority {
    /// The name, in lower case.
    pub host: String,
    /// The port, where one is said.
    pub port: Option<u16>,
}

/// The head of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Which HTTP.
    pub version: Version,
    /// The method, in capitals.
    pub method: String,
    /// Whom it is for.
    pub authority: Authority,
    /// The path, as it is written.
    pub path: String,
    /// The query, as it is written.
    pub query: Option<String>,
    /// The fields in their order, names in lower case. Without `host`.
    pub fields: Vec<(String, String)>,
    /// Where the body ends.
    pub framing: Framing,
    /// The program waits to be told to send the body.
    pub expect_continue: bool,
    /// To what it wants to change the connection.
    pub upgrade: Option<String>,
}

/// A field's name as servers read it that hand fields on as variables (RFC 3875 section 4.1.18): an
/// underline, and for some all but letters and digits, is a dash.
pub(crate) fn dashed(name: &str) -> String {
    let dash = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.chars().map(dash).collect()
}

impl Head {
    /// The values of a field, however servers may read its name.
    pub fn read_as(&self, name: &str) -> impl Iterator<Item = &str> {
        let name = dashed(name);
        let same = move |(own, _): &&(String, String)| dashed(own) == name;
        self.fields.iter().filter(same).map(|(_, it)| it.as_str())
    }

    /// The values of a field.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = move |(own, _): &&(String, String)| own == name;
        self.fields.iter().filter(same).map(|(_, it)| it.as_str())
    }
}
