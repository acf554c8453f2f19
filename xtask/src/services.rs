//! Keeps packages that are installed meanwhile from starting their services.

use std::path::Path;

use anyhow::Result;

use crate::{host, step};

/// Asked by every Debian package before it starts something (invoke-rc.d(8)); 101 forbids it.
const FILE: &str = "/usr/sbin/policy-rc.d";

/// For as long as it lives. A host that has a policy of its own keeps it.
pub(crate) struct Asleep {
    made: bool,
}

impl Asleep {
    /// Forbids starts.
    pub(crate) fn begin() -> Result<Self> {
        let made = !Path::new(FILE).exists() && host::program("apt-get").is_some();
        if made {
            let script = format!("printf '#!/bin/sh\\nexit 101\\n' > {FILE} && chmod 755 {FILE}");
            let mut command = host::as_root("sh")?;
            let why = "no service of what is installed now is started";
            step::quiet("services", why, command.args(["-c", &script]))?;
        }
        Ok(Self { made })
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        let remove = || -> Result<()> {
            let mut command = host::as_root("rm")?;
            step::quiet("services", "starts as before", command.args(["-f", FILE])).map(drop)
        };
        if self.made
            && let Err(error) = remove()
        {
            eprintln!("remove {FILE} yourself: {error:#}");
        }
    }
}
