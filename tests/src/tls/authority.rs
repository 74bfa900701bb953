//! An authority, and what it certifies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tls::certificates;
use tokio_rustls::TlsConnector;

/// An authority whose certificate no system knows.
pub struct Authority {
    /// Its certificate (PEM).
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certified {
    /// Flags that name the files: `--<name>-certificate-file`, and the key likewise.
    #[must_use]
    pub fn flags(&self, name: &str) -> Vec<String> {
        vec![
            format!("--{name}-certificate-file={}", self.certificate.display()),
            format!("--{name}-key-file={}", self.key.display()),
        ]
    }

    /// Puts another certificate and its key in the place of these, each at once.
    pub fn replace_by(&self, other: &Self) {
        for (new, old) in [
            (&other.key, &self.key),
            (&other.certificate, &self.certificate),
        ] {
            replace(old, &std::fs::read(new).unwrap());
        }
    }
}

/// Replaces a file at once: nobody sees a part of it.
pub fn replace(file: &Path, content: &[u8]) {
    let new = file.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, file).unwrap();
}

impl Authority {
    /// An authority of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = parameters(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let authority = Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
            folder: TempDir::new().unwrap(),
        };
        std::fs::write(authority.file(), &authority.pem).unwrap();
        authority
    }

    /// The file with its certificate.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// The flag that has a process trust it.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--ca-file={}", self.file().display())
    }

    /// Shakes hands as a client that trusts this authority alone.
    #[must_use]
    pub fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(&self.file()).unwrap());
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// Has what trusts this authority by its file trust `other` in its place.
    pub fn give_way_to(&self, other: &Self) {
        replace(&self.file(), other.pem.as_bytes());
    }

    /// A certificate for these names, and addresses, in files that begin with `file`.
    #[must_use]
    pub fn certify(&self, file: &str, names: &[&str]) -> Certified {
        self.issue(file, &parameters(names))
    }

    /// The same, but it is long past.
    #[must_use]
    pub fn certify_until_2020(&self, file: &str, names: &[&str]) -> Certified {
        let mut params = parameters(names);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.issue(file, &params)
    }

    fn issue(&self, file: &str, params: &CertificateParams) -> Certified {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let certified = Certified {
            certificate: self.folder.path().join(format!("{file}.pem")),
            key: self.folder.path().join(format!("{file}.key")),
        };
        std::fs::write(&certified.certificate, certificate.pem()).unwrap();
        std::fs::write(&certified.key, key.serialize_pem()).unwrap();
        certified
    }
}

fn parameters(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}
