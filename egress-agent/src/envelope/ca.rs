//! The envelope proxy's own authority: made in memory at its start, and gone with it.
//!
//! A root that clients are given, and an intermediate below it that may speak for the inspected
//! names alone. The root's key is dropped at once, so that nothing else can ever come from it.
//! Java ignores name constraints on an anchor, which is why they stand in the intermediate.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
    date_time_ymd,
};
use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::ServerSessionMemoryCache,
};

use super::upstream::Speaks;

/// How far certificates reach back, for clocks that differ.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// How long a leaf holds.
const LEAF: Duration = Duration::from_secs(24 * 3_600);
/// When a leaf is made anew.
const RENEWED: Duration = Duration::from_secs(12 * 3_600);
/// How long root and intermediate hold: clients read the root once, at their start, so it has to
/// hold for as long as a connector may run.
const AUTHORITY: Duration = Duration::from_secs(5 * 365 * 24 * 3_600);
/// Names whose leaf is kept.
const MAX_LEAVES: usize = 256;
/// TLS sessions of one name that can be resumed.
const SESSIONS: usize = 16;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaError {
    /// Without a name the authority would be bounded by nothing.
    #[error("an authority for no name is not made")]
    NoNames,
    /// The name is outside of what the authority may speak for.
    #[error("the authority was made without {0}: restart the connector")]
    Foreign(String),
    /// The certificate.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Its use.
    #[error("cannot use a certificate: {0}")]
    Tls(#[from] rustls::Error),
}

/// The authority.
pub(super) struct Ca {
    root_pem: String,
    intermediate: CertifiedIssuer<'static, KeyPair>,
    /// One key for all leaves: they live in the same memory.
    key: KeyPair,
    bounds: Vec<String>,
    leaves: Mutex<HashMap<String, Leaf>>,
}

struct Leaf {
    made: SystemTime,
    config: Served,
}

/// What connections to one name are answered with, by which HTTP is spoken on them.
#[derive(Clone)]
pub(super) struct Served {
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

impl Served {
    /// That for one.
    pub(super) fn by(&self, speaks: Speaks) -> Arc<ServerConfig> {
        Arc::clone(match speaks {
            Speaks::Http1 => &self.http1,
            Speaks::Http2 => &self.http2,
        })
    }
}

impl Ca {
    /// An authority for `names`, and for names below one that begins with `*.`.
    pub(super) fn new(names: &[String]) -> Result<Self, CaError> {
        let bounds: Vec<String> = names
            .iter()
            .map(|name| name.strip_prefix("*.").unwrap_or(name).to_owned())
            .collect();
        if bounds.is_empty() || bounds.iter().any(String::is_empty) {
            return Err(CaError::NoNames);
        }
        let now = SystemTime::now();
        let mut params = dated(now, AUTHORITY, "egress-agent root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let mut params = dated(now, AUTHORITY, "egress-agent envelope");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: bounds
                .iter()
                .cloned()
                .map(GeneralSubtree::DnsName)
                .collect(),
            // Constraints on names say nothing of addresses (RFC 5280 section 4.2.1.10).
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
                GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
            ],
        });
        let intermediate = CertifiedIssuer::signed_by(params, KeyPair::generate()?, &root)?;
        Ok(Self {
            root_pem: root.pem(),
            intermediate,
            key: KeyPair::generate()?,
            bounds,
            leaves: Mutex::default(),
        })
    }

    /// The root, for the connector's trust store. PEM.
    pub(super) fn pem(&self) -> &str {
        &self.root_pem
    }

    /// Whether a name is one that the authority may speak for.
    fn covers(&self, name: &str) -> bool {
        self.bounds.iter().any(|bound| {
            name.strip_suffix(bound.as_str())
                .is_some_and(|above| above.is_empty() || above.ends_with('.'))
        })
    }

    /// What a connection to `name` is answered with. Kept for a while; the oldest makes room.
    pub(super) fn config(&self, name: &str) -> Result<Served, CaError> {
        let now = SystemTime::now();
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(name)
            && now.duration_since(leaf.made).is_ok_and(|age| age < RENEWED)
        {
            return Ok(leaf.config.clone());
        }
        let config = self.made(name, now)?;
        if leaves.len() >= MAX_LEAVES
            && let Some(oldest) = leaves
                .iter()
                .min_by_key(|(_, leaf)| leaf.made)
                .map(|(name, _)| name.clone())
        {
            leaves.remove(&oldest);
        }
        let leaf = Leaf {
            made: now,
            config: config.clone(),
        };
        leaves.insert(name.to_owned(), leaf);
        Ok(config)
    }

    fn made(&self, name: &str, now: SystemTime) -> Result<Served, CaError> {
        if !self.covers(name) {
            return Err(CaError::Foreign(name.to_owned()));
        }
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(self.chain(name, now)?, key)?;
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        // What comes before the handshake is over could be sent twice (RFC 8446 section 8).
        config.max_early_data_size = 0;
        let speaking = |speaks: Speaks| {
            let mut config = config.clone();
            config.alpn_protocols = vec![speaks.alpn().to_vec()];
            Arc::new(config)
        };
        Ok(Served {
            http1: speaking(Speaks::Http1),
            http2: speaking(Speaks::Http2),
        })
    }

    /// A new leaf, and the intermediate.
    fn chain(
        &self,
        name: &str,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, rcgen::Error> {
        // A common name has at most 64 characters (RFC 5280 appendix A.1); names are longer.
        let mut params = dated(now, LEAF, "egress-agent leaf");
        params.subject_alt_names = CertificateParams::new([name.to_owned()])?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&self.key, &self.intermediate)?;
        Ok(vec![leaf.der().clone(), self.intermediate.der().clone()])
    }
}

/// What all certificates have. Python 3.13 wants the authority key identifier.
fn dated(now: SystemTime, lifetime: Duration, common_name: &str) -> CertificateParams {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + since.saturating_sub(BACKDATED);
    params.not_after = epoch + since + lifetime;
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at its first fault")]

    use tokio_rustls::rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        pki_types::{ServerName, UnixTime, pem::PemObject as _},
    };

    use super::*;

    fn ca() -> Ca {
        let names = ["api.mail.example".to_owned(), "*.wide.example".to_owned()];
        Ca::new(&names).unwrap()
    }

    #[test]
    fn an_authority_speaks_for_its_names_alone() {
        let ca = ca();
        for good in ["api.mail.example", "a.wide.example", "b.a.wide.example"] {
            assert!(ca.config(good).is_ok(), "{good}");
        }
        for bad in ["mail.example", "xapi.mail.example", "awide.example", ""] {
            assert!(matches!(ca.config(bad), Err(CaError::Foreign(_))), "{bad}");
        }
    }

    #[test]
    fn an_authority_for_nothing_is_not_made() {
        for names in [vec![], vec![String::new()], vec!["*.".to_owned()]] {
            assert!(matches!(Ca::new(&names), Err(CaError::NoNames)));
        }
    }

    #[test]
    fn leaves_are_kept_and_bounded() {
        let ca = ca();
        let first = ca.config("api.mail.example").unwrap();
        let again = ca.config("api.mail.example").unwrap();
        assert!(Arc::ptr_eq(&first.http1, &again.http1));
        for number in 0..MAX_LEAVES + 10 {
            ca.config(&format!("n{number}.wide.example")).unwrap();
        }
        assert_eq!(ca.leaves.lock().unwrap().len(), MAX_LEAVES);
    }

    #[test]
    fn old_leaves_are_made_anew() {
        let ca = ca();
        let first = ca.config("api.mail.example").unwrap();
        let mut leaves = ca.leaves.lock().unwrap();
        leaves.get_mut("api.mail.example").unwrap().made -= RENEWED;
        drop(leaves);
        let again = ca.config("api.mail.example").unwrap();
        assert!(!Arc::ptr_eq(&first.http1, &again.http1));
    }

    /// Whether a client that knows the root takes what the authority says of a name.
    fn is_believed(ca: &Ca, name: &str, now: SystemTime) -> bool {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let chain = ca.chain(name, now).unwrap();
        let (leaf, rest) = chain.split_first().unwrap();
        let server = ServerName::try_from(name).unwrap();
        let verified =
            verifier
                .unwrap()
                .verify_server_cert(leaf, rest, &server, &[], UnixTime::now());
        verified.is_ok()
    }

    #[test]
    fn clients_believe_it_for_its_names_and_times_alone() {
        let (ca, now) = (ca(), SystemTime::now());
        assert!(is_believed(&ca, "api.mail.example", now));
        assert!(is_believed(&ca, "a.wide.example", now));
        // A clock that is half an hour slow.
        assert!(is_believed(&ca, "api.mail.example", now + BACKDATED / 2));
        for name in ["bank.example", "127.0.0.1", "::1"] {
            assert!(!is_believed(&ca, name, now), "{name}");
        }
        assert!(!is_believed(&ca, "api.mail.example", now - 2 * LEAF));
    }
}
