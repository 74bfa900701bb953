//! A certificate and its key.

use std::path::{Path, PathBuf};

use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys};

use crate::file::{CertificateFile, FileError, KeyFile, certificates, key};
use crate::provider::provider;

/// The files of a certificate, with those of its issuers, and of its private key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, and then those of its issuers.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Identity {
    /// What two settings name; `None` if they name nothing.
    #[must_use]
    pub fn of(certificate: &CertificateFile, key: &KeyFile) -> Option<Self> {
        Some(Self {
            certificate: certificate.path()?.to_owned(),
            key: key.path()?.to_owned(),
        })
    }

    /// Certificate and key as they are now.
    ///
    /// # Errors
    /// A file cannot be used, or the key is not that of the certificate.
    pub fn load(&self) -> Result<CertifiedKey, FileError> {
        let chain = certificates(&self.certificate)?;
        let loaded = CertifiedKey::from_der(chain, key(&self.key)?, &provider());
        loaded.map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                let certificate = self.certificate.display();
                FileError::new(
                    &self.key,
                    &format_args!("it is not the key of the certificate in {certificate}"),
                )
            }
            Error::InvalidCertificate(CertificateError::BadEncoding) => {
                FileError::new(&self.certificate, &"not a valid certificate")
            }
            error => FileError::new(&self.key, &error),
        })
    }

    /// Both files.
    #[must_use]
    pub fn files(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }
}

/// Whether two settings, each with its name, are a certificate and its key, or nothing.
///
/// # Errors
/// Names the settings, and says why they do not go together.
pub fn check_pair(
    (certificate_name, certificate): (&str, &CertificateFile),
    (key_name, key): (&str, &KeyFile),
) -> Result<(), String> {
    match Identity::of(certificate, key) {
        Some(identity) => match identity.load() {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{key_name}={error}")),
        },
        None if certificate.path().is_some() => Err(format!("{certificate_name} needs {key_name}")),
        None if key.path().is_some() => Err(format!("{key_name} needs {certificate_name}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;
    use settings::Value;

    use super::*;
    use crate::file::tests::written;

    #[test]
    fn a_certificate_goes_with_its_key_and_with_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = [(); 2].map(|()| generate_simple_self_signed(["host".to_owned()]));
        let (one, other) = (one.unwrap(), other.unwrap());
        let certificate = written(folder.path(), "certificate", &one.cert.pem());
        let key = written(folder.path(), "key", &one.signing_key.serialize_pem());
        let foreign = written(folder.path(), "foreign", &other.signing_key.serialize_pem());
        let check = |certificate: &str, key: &str| {
            let certificate = <CertificateFile as Value>::parse(certificate).unwrap();
            let key = <KeyFile as Value>::parse(key).unwrap();
            check_pair(("A_CERTIFICATE_FILE", &certificate), ("A_KEY_FILE", &key))
        };
        assert_eq!(check("", ""), Ok(()));
        assert_eq!(check(&certificate, &key), Ok(()));
        let missing = check(&certificate, "").unwrap_err();
        assert_eq!(missing, "A_CERTIFICATE_FILE needs A_KEY_FILE");
        let missing = check("", &key).unwrap_err();
        assert_eq!(missing, "A_KEY_FILE needs A_CERTIFICATE_FILE");
        let wrong = check(&certificate, &foreign).unwrap_err();
        let reason =
            format!("A_KEY_FILE={foreign}: it is not the key of the certificate in {certificate}");
        assert_eq!(wrong, reason);
    }
}
