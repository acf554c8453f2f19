//! Host names in their one normal form. Every name of a policy, a DNS query and a TLS hello
//! goes through here.

use std::fmt;

/// A host name: lower case, A-labels, no trailing dot, 1 to 253 bytes (RFC 1035 section
/// 2.3.4), letters, digits, hyphen and underscore only (underscore because service labels
/// such as `_dmarc` are common in practice).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Name(String);

/// Why a text is no host name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// No text at all, or only the root.
    #[error("is empty")]
    Empty,
    /// Over 253 bytes.
    #[error("is longer than 253 bytes")]
    TooLong,
    /// A label of no bytes or over 63.
    #[error("has a label of no bytes or of more than 63")]
    Label,
    /// A byte that host names do not have.
    #[error("has a character that host names do not have")]
    Character,
    /// IDNA processing failed.
    #[error("is not a valid internationalised name")]
    Idna,
}

impl Name {
    /// Normalises a name as a person writes it: IDNA to A-labels, lower case, one trailing
    /// dot removed.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_ascii() {
            return Self::from_ascii(text.as_bytes());
        }
        let ascii = idna::domain_to_ascii_strict(text).map_err(|_| NameError::Idna)?;
        Self::from_ascii(ascii.as_bytes())
    }

    /// Normalises a name as it stands on the wire (DNS labels joined by dots, SNI): ASCII
    /// only, no conversion but case and one trailing dot.
    pub fn from_ascii(bytes: &[u8]) -> Result<Self, NameError> {
        let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > 253 {
            return Err(NameError::TooLong);
        }
        let mut name = String::with_capacity(bytes.len());
        for label in bytes.split(|&byte| byte == b'.') {
            if label.is_empty() || label.len() > 63 {
                return Err(NameError::Label);
            }
            if !name.is_empty() {
                name.push('.');
            }
            for &byte in label {
                if !byte.is_ascii_alphanumeric() && byte != b'-' && byte != b'_' {
                    return Err(NameError::Character);
                }
                name.push(char::from(byte.to_ascii_lowercase()));
            }
        }
        Ok(Self(name))
    }

    /// The normal form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host name or a wildcard over one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum HostPattern {
    /// This name alone.
    Exact(Name),
    /// One or more labels below this name; never the name itself.
    Below(Name),
    /// Every name of the public Internet: those that are told apart by their last label as
    /// belonging to somebody's own network, or to none, are not among them.
    Public,
}

/// Last labels of names that no public server answers for: the special-use domain names
/// (RFC 6761, the IANA registry), those that are collided with (RFC 6762 appendix G, ICANN), and
/// those below which addresses are named.
const NOT_PUBLIC: [&str; 14] = [
    "alt",
    "arpa",
    "corp",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "test",
];

impl HostPattern {
    /// Whether the pattern covers a name.
    pub fn covers(&self, name: &Name) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Public => name
                .as_str()
                .rsplit_once('.')
                .is_some_and(|(_, last)| !NOT_PUBLIC.contains(&last)),
            Self::Below(parent) => name
                .as_str()
                .strip_suffix(parent.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Public => f.write_str("internet"),
        }
    }
}
