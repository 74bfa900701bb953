//! Where the database is: one host or several, and the credentials, which are shown nowhere.

use std::fmt;

use settings::{ENCODE, Value};
use tcp::is_loopback;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use url::form_urlencoded;

use crate::encryption::{Encryption, TlsParameters};
use crate::error::reason;

/// Address and credentials of the database.
#[derive(Clone)]
pub struct DatabaseUrl {
    config: Config,
    encryption: Option<Encryption>,
    masked: String,
}

impl DatabaseUrl {
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The same with another user and another password, where they are given.
    pub(crate) fn with_login(mut self, username: Option<&str>, password: Option<&str>) -> Self {
        if let Some(username) = username {
            self.config.user(username);
        }
        if let Some(password) = password {
            self.config.password(password);
        }
        self
    }

    pub(crate) fn encryption(&self) -> Option<&Encryption> {
        self.encryption.as_ref()
    }

    /// Every host, with its port.
    pub(crate) fn places(&self) -> String {
        let (hosts, ports) = (self.config.get_hosts(), self.config.get_ports());
        let places = hosts.iter().enumerate().map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied();
            let host = match host {
                Host::Tcp(name) => name.clone(),
                Host::Unix(folder) => folder.display().to_string(),
            };
            format!("{host}:{}", port.unwrap_or(5432))
        });
        places.collect::<Vec<_>>().join(",")
    }

    /// Whether others on the way can read along.
    pub(crate) fn is_exposed(&self) -> bool {
        let is_far = |host: &Host| matches!(host, Host::Tcp(name) if !is_loopback(name));
        self.encryption.is_none() && self.config.get_hosts().iter().any(is_far)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked)
    }
}

impl Value for DatabaseUrl {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        let (head, query) = split(raw.trim())?;
        let mut tls = TlsParameters::default();
        let mut others = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            // A plus is not a blank here.
            let pair_with_plus = pair.replace('+', "%2B");
            let decoded = form_urlencoded::parse(pair_with_plus.as_bytes()).next();
            if !decoded.is_some_and(|(name, value)| tls.take(&name, &value)) {
                others.push(pair);
            }
        }
        let encryption = tls.encryption()?;
        others.push(if encryption.is_some() {
            "sslmode=require"
        } else {
            "sslmode=disable"
        });
        let config = format!("{head}?{}", others.join("&")).parse::<Config>();
        let config = config.map_err(|error| format!("{}; {ENCODE}", reason(&error)))?;
        if config.get_hosts().is_empty() {
            return Err("no host: write postgres://user:password@host:port/database".to_owned());
        }
        Ok(Self {
            config,
            encryption,
            masked: masked(head, query),
        })
    }

    fn show(&self) -> String {
        self.masked.clone()
    }
}

/// The address, and its query. The library ends the password at the first @ and allows any other
/// character in it, which other parsers do not.
fn split(raw: &str) -> Result<(&str, &str), String> {
    let place = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| raw.strip_prefix(scheme))
        .ok_or("it does not begin with postgres://")?;
    let place = match place.split_once('@') {
        None => place,
        Some((login, place)) => {
            let user = login.split(':').next().unwrap_or_default();
            if user.contains(['/', '?', '#']) || place.contains('@') {
                return Err(format!("an @ stands after the host; {ENCODE}"));
            }
            place
        }
    };
    let query = place.split_once('?').map_or("", |(_, query)| query);
    let head = raw.strip_suffix(query).unwrap_or(raw);
    Ok((head.trim_end_matches('?'), query))
}

/// The URL with `***` in place of its password, which may stand before the hosts or in the query.
/// Several hosts make it something that a URL parser refuses.
fn masked(head: &str, query: &str) -> String {
    let head = match head.rsplit_once('@') {
        Some((login, hosts)) => {
            let user = login.splitn(3, ':').take(2).collect::<Vec<_>>().join(":");
            let password = if login.matches(':').count() > 1 {
                ":***"
            } else {
                ""
            };
            format!("{user}{password}@{hosts}")
        }
        None => head.to_owned(),
    };
    match query {
        "" => head,
        query if query.to_lowercase().contains("password") => format!("{head}?***"),
        query => format!("{head}?{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_shown_nowhere() {
        for (raw, shown) in [
            (
                "postgres://user:secret@host/objects",
                "postgres://user:***@host/objects",
            ),
            (
                "postgres://user:se:cret@one:1,two:2/db?target_session_attrs=read-write",
                "postgres://user:***@one:1,two:2/db?target_session_attrs=read-write",
            ),
            (
                "postgres://user:sec?r/et@host/db",
                "postgres://user:***@host/db",
            ),
            (
                "postgresql://user@host/db?password=secret",
                "postgresql://user@host/db?***",
            ),
        ] {
            let url = <DatabaseUrl as Value>::parse(raw).unwrap();
            assert_eq!(url.show(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn a_login_given_apart_from_the_address_is_taken_as_it_is() {
        let login = |username, password| {
            let url = <DatabaseUrl as Value>::parse("postgres://user:secret@host/db").unwrap();
            let url = url.with_login(username, password);
            assert!(!format!("{url:?} {:?}", url.config).contains("hidden"));
            let password = url.config.get_password().map(<[u8]>::to_vec);
            let password = String::from_utf8(password.unwrap()).unwrap();
            (url.config.get_user().unwrap().to_owned(), password)
        };
        let both = login(Some("a%40"), Some("hidden%40 @/"));
        assert_eq!(both, ("a%40".to_owned(), "hidden%40 @/".to_owned()));
        let one = login(None, Some("hidden"));
        assert_eq!(one, ("user".to_owned(), "hidden".to_owned()));
        let none = login(None, None);
        assert_eq!(none, ("user".to_owned(), "secret".to_owned()));
    }

    #[test]
    fn several_hosts_may_be_named() {
        let raw = "postgres://user@one:1,two:2/db?target_session_attrs=read-write";
        let url = <DatabaseUrl as Value>::parse(raw).unwrap();
        assert_eq!(url.config.get_hosts().len(), 2);
        assert_eq!(url.config.get_ports(), [1, 2]);
    }

    #[test]
    fn what_cannot_be_right_is_refused_and_not_shown() {
        for raw in [
            "http://user:secret@host/db",
            "postgres://host:secret",
            "postgres://user:secret@host:port/db",
            "postgres://user:p@secret@host/db",
            "postgres://host/secret?options=a@b",
            "postgres://user:secret@/db",
            "postgres://user:secret@host/db?sslmode=verify-none",
            "postgres://user:secret@host/db?sslmode=require&sslcert=/dev/null",
            "postgres://user:secret@host/db?sslrootcert=/dev/null",
            "postgres://user:secret@host/db?sslmode=verify-full&sslrootcert=/dev/null",
            "postgres://user:secret@host/db?sslcrl=/dev/null",
            "host=host password='secret'",
            "user=postgres password='sec ret@secret' host=db",
            "nonsense",
        ] {
            let error = <DatabaseUrl as Value>::parse(raw).unwrap_err();
            assert!(!error.contains("secret"), "{raw}: {error}");
            // Of each parameter that is wrong its name.
            let mut words = raw.split(['?', '&', '=']);
            let parameter = words.rfind(|word| word.starts_with("ssl"));
            assert!(
                error.contains(parameter.unwrap_or_default()),
                "{raw}: {error}"
            );
        }
    }

    #[test]
    fn modes_of_tls_are_those_of_the_database_s_own_tools() {
        for (parameters, is_encrypted) in [
            ("", false),
            ("?sslmode=disable", false),
            ("?sslmode=prefer", false),
            ("?sslmode=require", true),
            ("?sslmode=verify-ca", true),
            (
                "?application_name=x&sslmode=verify-full&sslrootcert=system",
                true,
            ),
        ] {
            let raw = format!("postgres://user@host/db{parameters}");
            let url = <DatabaseUrl as Value>::parse(&raw).unwrap();
            assert_eq!(url.encryption().is_some(), is_encrypted, "{raw}");
            assert_eq!(url.is_exposed(), !is_encrypted, "{raw}");
            assert_eq!(url.show(), raw);
        }
    }

    #[test]
    fn only_plain_text_to_another_machine_is_exposed() {
        for (hosts, is_exposed) in [
            ("localhost", false),
            ("127.0.0.1:1,[::1]:2", false),
            ("%2Fvar%2Frun%2Fpostgresql", false),
            ("localhost,db", true),
        ] {
            let url =
                <DatabaseUrl as Value>::parse(&format!("postgres://user@{hosts}/db")).unwrap();
            assert_eq!(url.is_exposed(), is_exposed, "{hosts}");
        }
    }
}
