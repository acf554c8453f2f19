//! Parts of documents that are measured and not written by hand.

use std::fs;

use anyhow::{Context as _, Result};

use crate::host;

/// What stands between two lines of a document.
pub(crate) struct Part {
    /// Relative to the workspace.
    pub(crate) document: &'static str,
    /// The line before.
    pub(crate) begin: &'static str,
    /// The line behind.
    pub(crate) end: &'static str,
}

impl Part {
    /// Replaces the part. Errors: the document has no such lines.
    pub(crate) fn write(&self, text: &str) -> Result<()> {
        let file = host::workspace().join(self.document);
        let name = || self.document.to_owned();
        let old = fs::read_to_string(&file).with_context(name)?;
        let (before, rest) = old.split_once(self.begin).with_context(name)?;
        let (_, after) = rest.split_once(self.end).with_context(name)?;
        let (begin, end) = (self.begin, self.end);
        fs::write(&file, format!("{before}{begin}\n{text}\n{end}{after}")).with_context(name)?;
        println!("written: {}", self.document);
        Ok(())
    }
}
