//! What `/etc/hosts` says of a name, as hosts(5) and glibc's `nss/nss_files/files-hosts.c`
//! read it. Pure.
//!
//! The file is kept as it is and read line by line for each name, as every C library does: a
//! list of a hundred thousand blocked names costs a millisecond, and no memory twice.

use std::net::IpAddr;

use super::verdict::Family;
use crate::policy::name::Name;

/// Bytes of the file that are read; what is behind them counts for nothing.
pub const MAX_BYTES: usize = 8 << 20;
/// Addresses of one name that are taken.
const MAX_ADDRESSES: usize = 64;

/// The file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hosts {
    text: Vec<u8>,
}

impl Hosts {
    /// Takes the file. The line that [`MAX_BYTES`] cuts is left out.
    pub fn read(mut text: Vec<u8>) -> Self {
        if text.len() > MAX_BYTES {
            text.truncate(MAX_BYTES);
            let whole = text.iter().rposition(|&byte| byte == b'\n');
            text.truncate(whole.unwrap_or(0));
        }
        Self { text }
    }

    /// The addresses of a name, of one kind. `None`: the file does not have the name at all.
    /// Where it has it with addresses of the other kind alone, there are none of this kind,
    /// and nobody else is asked.
    pub fn find(&self, name: &Name, family: Family) -> Option<Vec<IpAddr>> {
        let mut known = false;
        let mut addresses = Vec::new();
        for (address, mut names) in self.lines() {
            if !names.any(|own| is(own, name)) {
                continue;
            }
            known = true;
            let own = match address {
                IpAddr::V4(_) => Family::V4,
                IpAddr::V6(_) => Family::V6,
            };
            if own == family && addresses.len() < MAX_ADDRESSES && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        known.then_some(addresses)
    }

    /// Every name of the file, some of them more than once.
    pub fn names(&self) -> impl Iterator<Item = Name> {
        self.lines()
            .flat_map(|(_, names)| names)
            .filter_map(|name| Name::from_ascii(name).ok())
    }

    fn lines(&self) -> impl Iterator<Item = (IpAddr, impl Iterator<Item = &[u8]>)> {
        self.text.split(|&byte| byte == b'\n').filter_map(|line| {
            let line = line.split(|&byte| byte == b'#').next()?;
            let mut words = line
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            // An address with an interface behind it (`fe80::1%lo`) is none here: it is
            // link-local, and never taken from an answer.
            let address = std::str::from_utf8(words.next()?).ok()?;
            Some((address.parse().ok()?, words))
        })
    }
}

fn is(own: &[u8], name: &Name) -> bool {
    own.strip_suffix(b".")
        .unwrap_or(own)
        .eq_ignore_ascii_case(name.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "127.0.0.1\tlocalhost\n::1 localhost ip6-localhost\n\
        # 192.0.2.1 commented.example\n\
        198.51.100.30  Git.Corp.example git   # the company's\n\
        198.51.100.31 git.corp.example\n198.51.100.31 git.corp.example\r\n\
        2001:db8::30 six.corp.example.\n\
        0.0.0.0 blocked.example\nfe80::1%lo0 scoped.example\nno-address odd.example\n";

    fn find(name: &str, family: Family) -> Option<Vec<String>> {
        let hosts = Hosts::read(FILE.into());
        let found = hosts.find(&Name::parse(name).unwrap(), family)?;
        Some(found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn names_aliases_and_several_lines() {
        let both = ["198.51.100.30".to_owned(), "198.51.100.31".to_owned()];
        assert_eq!(find("git.corp.example", Family::V4).unwrap(), both);
        assert_eq!(find("git", Family::V4).unwrap(), both[..1]);
        assert_eq!(
            find("six.corp.example", Family::V6).unwrap(),
            ["2001:db8::30"]
        );
        assert_eq!(find("localhost", Family::V6).unwrap(), ["::1"]);
        assert_eq!(find("blocked.example", Family::V4).unwrap(), ["0.0.0.0"]);
    }

    #[test]
    fn one_kind_alone_ends_the_search_for_the_other() {
        assert_eq!(
            find("git.corp.example", Family::V6).unwrap(),
            Vec::<String>::new()
        );
        assert_eq!(
            find("six.corp.example", Family::V4).unwrap(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_it_does_not_say() {
        for name in [
            "commented.example",
            "scoped.example",
            "odd.example",
            "corp.example",
            "it.corp.example",
        ] {
            assert_eq!(find(name, Family::V4), None, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_cut_at_a_line() {
        let line = b"192.0.2.1 long.example\n";
        let text = line.repeat(MAX_BYTES / line.len() + 1);
        let hosts = Hosts::read(text);
        assert!(hosts.text.len() <= MAX_BYTES);
        assert!(hosts.names().all(|name| name.as_str() == "long.example"));
    }

    proptest! {
        #[test]
        fn no_file_does_harm(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let hosts = Hosts::read(text);
            for name in hosts.names() {
                let found = Family::ALL.map(|family| hosts.find(&name, family).unwrap());
                prop_assert!(found.iter().any(|addresses| !addresses.is_empty()));
            }
        }
    }
}
