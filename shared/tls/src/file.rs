//! Files with certificates and keys.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use settings::Value;
use thiserror::Error;

/// Why a file cannot be used.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub struct FileError {
    path: PathBuf,
    reason: String,
}

impl FileError {
    pub(crate) fn new(path: &Path, reason: &dyn Display) -> Self {
        Self {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    fn of_pem(path: &Path, what: &str, error: &pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => Self::new(path, error),
            pem::Error::NoItemsFound => Self::new(path, &format_args!("no {what} in this file")),
            // In a file with a key, the error may quote a part of it.
            _ => Self::new(path, &"not valid PEM"),
        }
    }
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// The certificates in the PEM file at `path`, in their order.
///
/// # Errors
/// The file cannot be read, or has no certificate, or something that looks like one and is not.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let wrong = |error| FileError::of_pem(path, "certificate", &error);
    let found = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() {
        return Err(wrong(pem::Error::NoItemsFound));
    }
    for (place, certificate) in found.iter().enumerate() {
        let added = RootCertStore::empty().add(certificate.clone());
        added.map_err(|_| {
            FileError::new(path, &format_args!("certificate {} is none", place + 1))
        })?;
    }
    Ok(found)
}

pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| FileError::of_pem(path, "private key", &error))
}

/// A setting: a file with certificates, or none.
#[derive(Clone, Debug, Default)]
pub struct CertificateFile(Option<PathBuf>);

impl CertificateFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

/// A setting: a file with a private key, or none.
#[derive(Clone, Debug, Default)]
pub struct KeyFile(Option<PathBuf>);

impl KeyFile {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

fn parse<T>(
    raw: &str,
    read: impl FnOnce(&Path) -> Result<T, FileError>,
) -> Result<Option<PathBuf>, String> {
    if raw.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(raw);
    // The setting's name and value are said already.
    read(&path).map_err(|error| error.reason)?;
    Ok(Some(path))
}

fn show(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

impl Value for CertificateFile {
    fn parse(raw: &str) -> Result<Self, String> {
        parse(raw, certificates).map(Self)
    }

    fn show(&self) -> String {
        show(self.path())
    }
}

impl Value for KeyFile {
    fn parse(raw: &str) -> Result<Self, String> {
        parse(raw, key).map(Self)
    }

    fn show(&self) -> String {
        show(self.path())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    pub(crate) fn written(folder: &Path, name: &str, text: &str) -> String {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["host".to_owned()]).unwrap();
        let (certificate, key) = (cert.pem(), signing_key.serialize_pem());
        let cut = &certificate[..certificate.len() / 2];
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, reason) in [
            ("", "no certificate in this file"),
            ("nonsense", "no certificate in this file"),
            (&key, "no certificate in this file"),
            (cut, "not valid PEM"),
            (garbled, "certificate 1 is none"),
        ] {
            let file = written(folder.path(), "file", text);
            let error = <CertificateFile as Value>::parse(&file).unwrap_err();
            assert_eq!(error, reason, "{text}");
        }
        let file = written(folder.path(), "file", &certificate);
        let error = <KeyFile as Value>::parse(&file).unwrap_err();
        assert_eq!(error, "no private key in this file");
        for error in [
            <CertificateFile as Value>::parse("/none/such").unwrap_err(),
            <KeyFile as Value>::parse("/none/such").unwrap_err(),
        ] {
            assert!(error.starts_with("No such file"), "{error}");
        }
    }
}
