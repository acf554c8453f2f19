//! Hellos put together piece by piece, so that any piece can be wrong.

/// Record type of handshake messages.
pub const HANDSHAKE: u8 = 22;
/// Record type of `change_cipher_spec`.
pub const CHANGE_CIPHER_SPEC: u8 = 20;
/// Record type of alerts.
pub const ALERT: u8 = 21;
/// Record type of application data.
pub const APPLICATION_DATA: u8 = 23;

/// Extension `server_name` (RFC 6066 section 3).
pub const SERVER_NAME: u16 = 0;
/// Extension `padding` (RFC 7685).
pub const PADDING: u16 = 21;
/// Extension `early_data` (RFC 8446 section 4.2.10).
pub const EARLY_DATA: u16 = 42;
/// Extension `cookie` (RFC 8446 section 4.2.2).
pub const COOKIE: u16 = 44;
/// Extension `key_share` (RFC 8446 section 4.2.8).
pub const KEY_SHARE: u16 = 51;
/// Extension `encrypted_client_hello` (RFC 9849).
pub const ECH: u16 = 0xfe0d;
/// Extension `encrypted_server_name`, of a draft before ECH.
pub const ESNI: u16 = 0xffce;

/// One client hello, as its fields.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Of the record.
    pub record_version: u16,
    /// Of the hello itself.
    pub version: u16,
    /// Session id, at most 32 octets where it is right.
    pub session: Vec<u8>,
    /// Cipher suites.
    pub ciphers: Vec<u16>,
    /// Type and content, in order.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// A hello for TLS 1.2 and 1.3 that servers answer, with no name in it.
    pub fn nameless() -> Self {
        Self {
            record_version: 0x0301,
            version: 0x0303,
            session: vec![0x5e; 32],
            ciphers: vec![0x1301, 0x1302, 0x1303, 0xc02b, 0xc02c],
            extensions: vec![
                (10, vec![0, 4, 0, 0x1d, 0, 0x17]),
                (11, vec![1, 0]),
                (13, vec![0, 6, 4, 3, 8, 4, 4, 1]),
                (43, vec![4, 3, 4, 3, 3]),
                (KEY_SHARE, key_share()),
            ],
        }
    }

    /// The same, with a name.
    pub fn named(name: impl AsRef<[u8]>) -> Self {
        Self::nameless().first(SERVER_NAME, server_name(&[(0, name.as_ref())]))
    }

    /// Puts a text where any text is right: into the session id.
    pub fn carrying(mut self, text: &str) -> Self {
        self.session = text
            .bytes()
            .chain(std::iter::repeat(b'.'))
            .take(32)
            .collect();
        self
    }

    /// With an extension more, in front.
    pub fn first(mut self, kind: u16, data: Vec<u8>) -> Self {
        self.extensions.insert(0, (kind, data));
        self
    }

    /// With an extension more, behind the others.
    pub fn with(mut self, kind: u16, data: Vec<u8>) -> Self {
        self.extensions.push((kind, data));
        self
    }

    /// With other content of an extension that is there.
    pub fn instead(mut self, kind: u16, data: &[u8]) -> Self {
        for extension in &mut self.extensions {
            if extension.0 == kind {
                extension.1 = data.to_vec();
            }
        }
        self
    }

    /// Padded so that [`Self::record`] has this length. Errors: none; what is longer stays.
    pub fn padded(self, length: usize) -> Self {
        let missing = length.saturating_sub(self.record().len() + 4);
        self.with(PADDING, vec![0; missing])
    }

    /// The handshake message.
    pub fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([0x7a; 32]);
        body.push(octet(self.session.len()));
        body.extend(&self.session);
        let ciphers: Vec<u8> = self
            .ciphers
            .iter()
            .flat_map(|one| one.to_be_bytes())
            .collect();
        body.extend(sized(&ciphers));
        body.extend([1, 0]);
        let mut all = Vec::new();
        for (kind, data) in &self.extensions {
            all.extend(kind.to_be_bytes());
            all.extend(sized(data));
        }
        body.extend(sized(&all));
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        [&[1, length[1], length[2], length[3]], body.as_slice()].concat()
    }

    /// The message in one record.
    pub fn record(&self) -> Vec<u8> {
        record_of(HANDSHAKE, self.record_version, &self.message())
    }

    /// The message in several records, cut at these places.
    pub fn records(&self, cuts: &[usize]) -> Vec<u8> {
        let message = self.message();
        let mut all = Vec::new();
        let mut start = 0;
        for end in cuts.iter().copied().chain([message.len()]) {
            let end = end.clamp(start, message.len());
            all.extend(record_of(
                HANDSHAKE,
                self.record_version,
                &message[start..end],
            ));
            start = end;
        }
        all
    }
}

/// A record.
pub fn record(kind: u8, data: &[u8]) -> Vec<u8> {
    record_of(kind, 0x0303, data)
}

fn record_of(kind: u8, version: u16, data: &[u8]) -> Vec<u8> {
    let version = version.to_be_bytes();
    [&[kind, version[0], version[1]], sized(data).as_slice()].concat()
}

/// Content of `server_name`: each name with its type, 0 for a host name.
pub fn server_name(names: &[(u8, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, name) in names {
        list.push(*kind);
        list.extend(sized(name));
    }
    sized(&list)
}

/// Content of `key_share`: one for X25519. Any 32 octets are a key there.
pub fn key_share() -> Vec<u8> {
    let key: Vec<u8> = (1..=32).collect();
    sized(&[&[0, 0x1d], sized(&key).as_slice()].concat())
}

/// Content of `encrypted_client_hello`, outer, with any text as the payload.
pub fn ech(text: &str) -> Vec<u8> {
    let mut data = vec![0, 0, 1, 0, 1, 7];
    data.extend(sized(&[9; 32]));
    let payload: Vec<u8> = text.bytes().chain([0x3c; 128]).take(144).collect();
    data.extend(sized(&payload));
    data
}

/// Data behind its length, two octets.
pub fn sized(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), data].concat()
}

fn octet(length: usize) -> u8 {
    u8::try_from(length).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_right() {
        let hello = Hello::named("allowed.example")
            .carrying("egt-x")
            .padded(1024);
        let record = hello.record();
        assert_eq!(record.len(), 1024);
        assert_eq!(&record[..3], &[22, 3, 1]);
        assert_eq!(u16::from_be_bytes([record[3], record[4]]), 1024 - 5);
        assert_eq!(&hello.message(), &record[5..]);
        let cut = hello.records(&[1, 100]);
        assert_eq!(cut.len(), record.len() + 10);
        assert_eq!(&cut[..6], &[22, 3, 1, 0, 1, 1]);
    }
}
