//! Where the database is: one host or several, and the credentials, which are shown nowhere.

use std::fmt;

use tokio_postgres::Config;

use crate::config::Value;

/// Address and credentials of the database.
#[derive(Clone)]
pub struct DatabaseUrl {
    config: Config,
    masked: String,
}

impl DatabaseUrl {
    /// What it says, as the library takes it.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
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
        let raw = raw.trim();
        let masked = masked(raw).ok_or("it does not begin with postgres://")?;
        let config = raw.parse::<Config>().map_err(|error| error.to_string())?;
        Ok(Self { config, masked })
    }

    fn show(&self) -> String {
        self.masked.clone()
    }
}

/// The URL with `***` in place of its password, which may stand before the hosts or in the query.
/// Several hosts make it something that a URL parser refuses.
fn masked(raw: &str) -> Option<String> {
    let (scheme, rest) = raw.split_once("://")?;
    if !matches!(scheme, "postgres" | "postgresql") {
        return None;
    }
    // The last @, for the parser of the library lets passwords have any character.
    let (user, place) = match rest.rsplit_once('@') {
        Some((login, place)) => match login.split_once(':') {
            Some((user, _)) => (format!("{user}:***@"), place),
            None => (format!("{login}@"), place),
        },
        None => (String::new(), rest),
    };
    let place = match place.split_once('?') {
        Some((hosts, query)) if query.to_lowercase().contains("password") => {
            format!("{hosts}?***")
        }
        _ => place.to_owned(),
    };
    Some(format!("{scheme}://{user}{place}"))
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
    fn several_hosts_may_be_named() {
        let raw = "postgres://user@one:1,two:2/db?target_session_attrs=read-write";
        let url = <DatabaseUrl as Value>::parse(raw).unwrap();
        assert_eq!(url.config.get_hosts().len(), 2);
        assert_eq!(url.config.get_ports(), [1, 2]);
    }

    #[test]
    fn what_is_no_database_address_is_refused() {
        for raw in [
            "http://host/db",
            "postgres://host:port",
            "host=host password=secret",
            "nonsense",
        ] {
            assert!(
                <DatabaseUrl as Value>::parse(raw).is_err(),
                "{raw} was accepted"
            );
        }
    }
}
