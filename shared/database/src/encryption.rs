//! How the connection to the database is encrypted, as `sslmode` and its kin ask for it.

use std::io;
use std::path::{Path, PathBuf};

use rustls::{ClientConfig, RootCertStore};
use tls::{Check, Identity, TrustSettings, certificates, client_config, verifier};

/// The TLS parameters of the database's address, as they were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsParameters {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl TlsParameters {
    /// Takes a parameter; false if it is about something else.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> bool {
        let place = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.roots,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *place = Some(value.to_owned());
        true
    }

    /// What they ask for: `None` if the connection is not encrypted.
    ///
    /// # Errors
    /// Names the parameter that cannot be carried out, and why.
    pub(crate) fn encryption(&self) -> Result<Option<Encryption>, String> {
        let check = match self.mode.as_deref() {
            None | Some("disable" | "prefer") => return self.none(),
            Some("verify-ca") => Check::Authority,
            Some("require" | "verify-full") => Check::Name,
            Some(mode) => {
                return Err(format!(
                    "sslmode={mode} is not disable, prefer, require, verify-ca or verify-full"
                ));
            }
        };
        let roots = self.roots.as_deref().filter(|roots| *roots != "system");
        let encryption = Encryption {
            check,
            roots: roots.map(PathBuf::from),
            identity: self.identity()?,
        };
        if let Some(file) = &encryption.roots {
            certificates(file).map_err(|error| format!("sslrootcert={error}"))?;
        }
        Ok(Some(encryption))
    }

    fn identity(&self) -> Result<Option<Identity>, String> {
        match (&self.certificate, &self.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let identity = Identity {
                    certificate: certificate.into(),
                    key: key.into(),
                };
                let loaded = identity.load().map(|_| Some(identity));
                loaded.map_err(|error| format!("sslcert and sslkey: {error}"))
            }
            (Some(_), None) => Err("sslcert needs sslkey".to_owned()),
            (None, Some(_)) => Err("sslkey needs sslcert".to_owned()),
        }
    }

    /// Without encryption, certificates have no use, and are refused.
    fn none(&self) -> Result<Option<Encryption>, String> {
        let given = [
            ("sslrootcert", &self.roots),
            ("sslcert", &self.certificate),
            ("sslkey", &self.key),
        ];
        match given.iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) => Err(format!(
                "{name} needs sslmode=require, verify-ca or verify-full"
            )),
            None => Ok(None),
        }
    }
}

/// How connections are encrypted. The files are read for each of them.
#[derive(Clone, Debug)]
pub(crate) struct Encryption {
    check: Check,
    /// In place of the authorities that connections trust otherwise.
    roots: Option<PathBuf>,
    identity: Option<Identity>,
}

impl Encryption {
    /// The configuration of a connection.
    ///
    /// # Errors
    /// A file cannot be used, or there is no authority.
    pub(crate) fn config(&self, trust: &TrustSettings) -> io::Result<ClientConfig> {
        let authorities = match &self.roots {
            None => trust.authorities()?,
            Some(file) => authorities(file)?,
        };
        let verifier = verifier(authorities, self.check)?;
        client_config(verifier, self.identity.as_ref())
    }
}

fn authorities(file: &Path) -> io::Result<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(certificates(file)?);
    Ok(authorities)
}
