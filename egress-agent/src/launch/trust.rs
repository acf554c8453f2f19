//! Whom the connector trusts, where its requests are judged: the envelope proxy's authority beside
//! everybody whom the host and the caller trust.
//!
//! A copy of the host's `/etc/ssl/certs` with one more authority is mounted over it in the
//! connector's mount namespace, as are bundles elsewhere. Runtimes with stores of their own are
//! told by their variable; a variable of the caller's is led to its own file and ours together, and
//! no second one is set beside it, because clients prefer one over the other. On the host nothing
//! changes, and nothing is left behind.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{OpenOptionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use egress_common::abi::OWN_FOLDER;
use nix::{
    libc,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use serde::{Deserialize, Serialize};

use super::mounts::{MountError, change, failed};

/// The folder that OpenSSL, GnuTLS, Go and rustls look into.
const CERTS: &str = "/etc/ssl/certs";
/// Bundles of distributions, in the order in which Go looks for them (`crypto/x509/root_linux.go`).
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Our authority, in that folder.
const OURS: &str = "egress-agent.pem";
/// The name under which OpenSSL finds it there (`openssl x509 -hash`): the beginning of the SHA-1 of
/// the name "egress-agent root" in its canonical form (`X509_NAME_hash_ex`, `crypto/x509/x509_cmp.c`).
const HASHED: &str = "a7fe97e2.0";
/// A folder with it alone, for variables that name folders.
const ALONE: &str = "egress-agent.d";
/// Variables that name a file of authorities in PEM.
const FILES: [&str; 11] = [
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "HTTPLIB2_CA_CERTS",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CARGO_HTTP_CAINFO",
];
/// Variables that name folders of them, with `:` in between.
const FOLDERS: [&str; 2] = ["SSL_CERT_DIR", "GIT_SSL_CAPATH"];
/// Node and its kin have their own store, and take this besides.
const NODE: &str = "NODE_EXTRA_CA_CERTS";
/// Where Python's own bundle lies, below a `lib` folder.
const CERTIFI: &str = "certifi/cacert.pem";
/// Longest file of authorities. Bytes.
const MAX_FILE: u64 = 8 << 20;

/// What the launcher shows the connector.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trust {
    /// The authority, PEM.
    ca: String,
    /// Files that variables named, and the name in [`CERTS`] under which each is there together
    /// with ours.
    merged: Vec<(PathBuf, String)>,
    /// Bundles that are covered by themselves and ours.
    bundles: Vec<PathBuf>,
}

/// Everybody whom the host trusts, and whom the caller's variables name; PEM.
pub fn of_host(caller: &[(OsString, OsString)]) -> String {
    let mut all = String::new();
    let bundle = BUNDLES.iter().map(Path::new).find(|path| path.is_file());
    if let Some(bundle) = bundle {
        all += &certificates(bundle).unwrap_or_default();
    }
    let named = caller
        .iter()
        .filter(|(name, _)| FILES.iter().any(|file| name == file));
    for (_, file) in named {
        all += &certificates(Path::new(file)).unwrap_or_default();
    }
    all
}

/// Plans the trust in an authority (PEM), and leads the variables there.
pub fn plan(ca: String, env: &mut Vec<(OsString, OsString)>, program: Option<&OsStr>) -> Trust {
    let mut merged = Vec::new();
    for (name, value) in env.iter_mut() {
        let Some(name) = name.to_str() else { continue };
        if FILES.contains(&name) && !value.is_empty() {
            let file = format!("egress-agent-{}.pem", name.to_ascii_lowercase());
            let path = Path::new(CERTS).join(&file).into_os_string();
            merged.push((PathBuf::from(std::mem::replace(value, path)), file));
        } else if FOLDERS.contains(&name) && !value.is_empty() {
            value.push(":");
            value.push(Path::new(CERTS).join(ALONE));
        }
    }
    if !env.iter().any(|(name, _)| name == NODE) {
        let ours = Path::new(CERTS).join(OURS).into_os_string();
        env.push((NODE.into(), ours));
    }
    let value = |wanted: &str| {
        let found = env.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_os_str())
    };
    let certifis = certifis(value("HOME"), value("VIRTUAL_ENV"), program);
    let bundles = BUNDLES
        .iter()
        .map(PathBuf::from)
        .filter(|path| path.is_file());
    let bundles = bundles.filter(|path| !path.starts_with(CERTS));
    Trust {
        ca,
        merged,
        bundles: bundles.chain(certifis).collect(),
    }
}

/// Bundles of Python's certifi: the system's, the user's, and those of the virtual environment that
/// the program is in.
fn certifis(home: Option<&OsStr>, own: Option<&OsStr>, program: Option<&OsStr>) -> Vec<PathBuf> {
    let mut libs: Vec<PathBuf> = vec!["/usr/lib".into(), "/usr/local/lib".into()];
    libs.extend(home.map(|home| Path::new(home).join(".local/lib")));
    libs.extend(own.map(|own| Path::new(own).join("lib")));
    let program = program.map(Path::new);
    let beside = program.and_then(|program| program.parent()?.parent());
    libs.extend(beside.map(|own| own.join("lib")));
    let mut found = Vec::new();
    for lib in libs {
        let entries = fs::read_dir(&lib).into_iter().flatten().flatten();
        let pythons = entries.filter(|entry| entry.file_name().as_bytes().starts_with(b"python3"));
        for python in pythons.map(|entry| entry.path()) {
            for packages in ["site-packages", "dist-packages"] {
                let bundle = python.join(packages).join(CERTIFI);
                if bundle.is_file() && !found.contains(&bundle) {
                    found.push(bundle);
                }
            }
        }
    }
    found
}

/// Mounts it, in this process's own mount namespace. Needs CAP_SYS_ADMIN.
pub fn show(trust: &Trust) -> Result<(), MountError> {
    let what = "show the connector whom to trust";
    let certs = Path::new(CERTS);
    if !certs.is_dir() {
        return Err(failed(what, format!("there is no folder {CERTS}")));
    }
    // A folder in which nobody has files: what is mounted over it would hide them. It goes again.
    let at = Path::new(OWN_FOLDER.trim_end_matches('/'));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = Some("mode=0755");
    mount(Some("egress-agent"), at, Some("tmpfs"), flags, options)
        .map_err(|error| failed(what, error))?;
    stage(trust, certs, at).map_err(|error| failed(what, error))?;
    change(Some(&at.join("certs")), certs, MsFlags::MS_BIND)
        .map_err(|error| failed(what, error))?;
    for (number, bundle) in trust.bundles.iter().enumerate() {
        let copy = at.join(number.to_string());
        match change(Some(&copy), bundle, MsFlags::MS_BIND) {
            // Somebody has taken it away in between: nobody trusts it then.
            Ok(()) | Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => {}
            Err(error) => return Err(failed(what, error)),
        }
    }
    umount2(at, MntFlags::MNT_DETACH).map_err(|error| failed(what, error))
}

/// Writes what is mounted later.
fn stage(trust: &Trust, certs: &Path, at: &Path) -> io::Result<()> {
    let folder = at.join("certs");
    copy(certs, &folder)?;
    for bundle in BUNDLES
        .iter()
        .filter_map(|bundle| Path::new(bundle).strip_prefix(certs).ok())
    {
        let original = certs.join(bundle);
        if original.is_file() {
            write(
                &folder.join(bundle),
                &[&certificates(&original)?, &trust.ca],
            )?;
        }
    }
    write(&folder.join(OURS), &[&trust.ca])?;
    symlink(OURS, folder.join(HASHED))?;
    fs::create_dir(folder.join(ALONE))?;
    symlink(Path::new("..").join(OURS), folder.join(ALONE).join(HASHED))?;
    for (from, to) in &trust.merged {
        // What the caller named and nobody can read leaves ours.
        let own = certificates(from).unwrap_or_default();
        write(&folder.join(to), &[&own, &trust.ca])?;
    }
    for (number, bundle) in trust.bundles.iter().enumerate() {
        let own = certificates(bundle).unwrap_or_default();
        write(&at.join(number.to_string()), &[&own, &trust.ca])?;
    }
    Ok(())
}

/// Copies a folder: files, links as they are, and folders below.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, to)?;
        } else if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Anew, in the place of what is there.
fn write(path: &Path, texts: &[&str]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(path)?;
    texts
        .iter()
        .try_for_each(|text| file.write_all(text.as_bytes()))
}

/// The certificates of a file, and nothing else of it: its path may be the connector's choice, and
/// this process can read everything.
fn certificates(path: &Path) -> io::Result<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut options = OpenOptions::new();
    // A pipe or device is not waited for.
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found = String::new();
    for block in text.split(BEGIN).skip(1) {
        let Some((inside, _)) = block.split_once(END) else {
            continue;
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "+/=\r\n \t".contains(c);
        if inside.chars().all(plain) {
            found.extend([BEGIN, inside, END, "\n"]);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        let pairs = list.iter();
        pairs
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn a_variable_of_the_callers_is_led_to_both_and_no_second_one_is_set() {
        let mut env = pairs(&[
            ("SSL_CERT_FILE", "/own.pem"),
            ("SSL_CERT_DIR", "/a:/b"),
            ("CURL_CA_BUNDLE", ""),
            ("HOME", "/nowhere"),
        ]);
        let trust = plan("ca".to_owned(), &mut env, None);
        let merged = "egress-agent-ssl_cert_file.pem".to_owned();
        assert_eq!(trust.merged, [("/own.pem".into(), merged)]);
        let expected = pairs(&[
            (
                "SSL_CERT_FILE",
                "/etc/ssl/certs/egress-agent-ssl_cert_file.pem",
            ),
            ("SSL_CERT_DIR", "/a:/b:/etc/ssl/certs/egress-agent.d"),
            ("CURL_CA_BUNDLE", ""),
            ("HOME", "/nowhere"),
            ("NODE_EXTRA_CA_CERTS", "/etc/ssl/certs/egress-agent.pem"),
        ]);
        assert_eq!(env, expected);
    }

    #[test]
    fn nodes_own_variable_is_not_lost() {
        let mut env = pairs(&[(NODE, "/own.pem")]);
        let trust = plan(String::new(), &mut env, None);
        assert_eq!(trust.merged.len(), 1);
        assert_eq!(env.len(), 1);
    }

    #[test]
    fn nothing_but_certificates_is_taken_out_of_a_file() {
        let folder = std::env::temp_dir().join(format!("trust-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("all.pem");
        let good = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let text = format!(
            "root:secret\n{good}-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n\
             -----BEGIN CERTIFICATE-----\nno: base64\n-----END CERTIFICATE-----\n{good}\
             -----BEGIN CERTIFICATE-----\nshadow"
        );
        fs::write(&file, text).unwrap();
        assert_eq!(certificates(&file).unwrap(), format!("{good}{good}"));
        assert!(certificates(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
