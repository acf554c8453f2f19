//! The sums in a `Cargo.lock`, as far as a bill of materials needs them.

use std::collections::BTreeMap;

/// Name and version of a package.
pub(super) type Package = (String, String);

/// SHA-256 of each package's archive, by name and version. Packages of this workspace have
/// none.
pub(super) fn sums(text: &str) -> BTreeMap<Package, String> {
    let mut sums = BTreeMap::new();
    for block in text.split("[[package]]").skip(1) {
        let field = |key: &str| {
            let mut lines = block.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(value.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) =
            (field("name"), field("version"), field("checksum"))
        {
            sums.insert((name, version), sum);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read() {
        let text = "version = 4\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n\
                    dependencies = [\n \"a\",\n]\n\n[[package]]\nname = \"a\"\nversion = \"1.2.3\"\n\
                    source = \"registry+x\"\nchecksum = \"ab12\"\n";
        let expected = (("a".to_owned(), "1.2.3".to_owned()), "ab12".to_owned());
        assert_eq!(sums(text).into_iter().collect::<Vec<_>>(), [expected]);
    }
}
