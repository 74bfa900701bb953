//! Where the broker is, and the credentials, which are shown nowhere.

use std::fmt;

use lapin::uri::{AMQPScheme, AMQPUri};
use settings::{Value, mask_password, parse_url};
use tcp::{AMQP, Protocol, TLS, is_loopback};
use url::Host;

/// Seconds without a sign of life after which broker and client each give the connection up.
const HEARTBEAT_SECONDS: u16 = 10;

/// Longest frame, in bytes. The client library keeps 32 of them free in each direction of each
/// connection; the headers of a message have to fit into one.
const FRAME_BYTES: u32 = 32 << 10;

/// The parameters of the query. The library silently ignores all others.
const PARAMETERS: [&str; 5] = [
    "auth_mechanism",
    "channel_max",
    "connection_timeout",
    "frame_max",
    "heartbeat",
];

/// Address and credentials of the broker.
#[derive(Clone)]
pub struct AmqpUrl {
    uri: AMQPUri,
    masked: String,
}

impl AmqpUrl {
    /// The address as the library's type.
    #[must_use]
    pub fn uri(&self) -> &AMQPUri {
        &self.uri
    }

    /// The same with another user and another password, where they are given.
    pub(crate) fn with_login(mut self, username: Option<&str>, password: Option<&str>) -> Self {
        let login = &mut self.uri.authority.userinfo;
        if let Some(username) = username {
            username.clone_into(&mut login.username);
        }
        if let Some(password) = password {
            password.clone_into(&mut login.password);
        }
        self
    }

    /// Host and port.
    #[must_use]
    pub fn place(&self) -> (&str, u16) {
        (&self.uri.authority.host, self.uri.authority.port)
    }

    /// The protocol that has to answer there.
    pub(crate) fn protocol(&self) -> Protocol {
        match self.uri.scheme {
            AMQPScheme::AMQP => AMQP,
            AMQPScheme::AMQPS => TLS,
        }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.uri.scheme, AMQPScheme::AMQPS)
    }

    /// Whether others on the way can read along.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        !self.is_encrypted() && !is_loopback(&self.uri.authority.host)
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.masked)
    }
}

impl Value for AmqpUrl {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        let url = parse_url(raw)?;
        let unknown = url
            .query_pairs()
            .find(|(name, _)| !PARAMETERS.contains(&&**name));
        if let Some((name, _)) = unknown {
            return Err(format!("unknown parameter {name:?}"));
        }
        // The library takes an address that is no name for a missing one, which is this machine.
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err("no host: write amqp://user:password@host:port/vhost".to_owned()),
        };
        let mut uri: AMQPUri = url.as_str().parse()?;
        uri.authority.host = host;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        uri.query.frame_max.get_or_insert(FRAME_BYTES);
        let masked = mask_password(&url);
        Ok(Self { uri, masked })
    }

    fn show(&self) -> String {
        self.masked.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_shown_nowhere() {
        let url = <AmqpUrl as Value>::parse("amqp://user:secret@host:5672/%2f").unwrap();
        assert!(!url.show().contains("secret"));
        assert!(!format!("{url:?}").contains("secret"));
    }

    #[test]
    fn what_cannot_be_right_is_refused_and_not_shown() {
        for raw in [
            "http://user:secret@host",
            "amqp:user:secret@host",
            "amqp://user:2024/secret@host:5672/%2f",
            "amqp://user:2024?secret@host:5672/%2f",
            "amqp://user:20#secret@host:5672/%2f",
            "amqp://user:secret/word@host:5672/%2f",
            "amqp://user:secret@host:port/%2f",
            "amqp://user:secret@[::1/%2f",
            "amqp:///secret",
            "user:secret@host",
            "amqp://host/%2f?cacertfile=secret",
        ] {
            let error = <AmqpUrl as Value>::parse(raw).unwrap_err();
            assert!(!error.contains("secret"), "{raw}: {error}");
        }
        let error = <AmqpUrl as Value>::parse("amqp://user:2024/x@host/%2f").unwrap_err();
        assert!(error.contains("percent-encode"), "{error}");
        let error = <AmqpUrl as Value>::parse("amqp://host/%2f?cacertfile=x").unwrap_err();
        assert!(error.contains("cacertfile"), "{error}");
    }

    #[test]
    fn the_place_is_the_one_that_was_written() {
        for (raw, place) in [
            ("amqp://u:p@[2001:db8::5]:5672/%2f", ("2001:db8::5", 5672)),
            ("amqps://[::1]", ("::1", 5671)),
            ("amqp://10.1.2.3/%2f", ("10.1.2.3", 5672)),
            ("amqp://u:p@ss@rabbit.example:1/%2f", ("rabbit.example", 1)),
        ] {
            let url = <AmqpUrl as Value>::parse(raw).unwrap();
            assert_eq!(url.place(), place, "{raw}");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let url = <AmqpUrl as Value>::parse("amqp://us%2fer:p%40s%2Fs@host/a%2fb").unwrap();
        let login = &url.uri.authority.userinfo;
        assert_eq!((&*login.username, &*login.password), ("us/er", "p@s/s"));
        assert_eq!(url.uri.vhost, "a/b");
    }

    #[test]
    fn a_login_given_apart_from_the_address_is_taken_as_it_is() {
        let login = |username, password| {
            let url = <AmqpUrl as Value>::parse("amqp://user:secret@host/%2f").unwrap();
            let url = url.with_login(username, password);
            assert!(!format!("{url:?}").contains("hidden"));
            let login = url.uri.authority.userinfo;
            (login.username, login.password)
        };
        let both = login(Some("a%40"), Some("hidden%40 @/"));
        assert_eq!(both, ("a%40".to_owned(), "hidden%40 @/".to_owned()));
        let one = login(None, Some("hidden"));
        assert_eq!(one, ("user".to_owned(), "hidden".to_owned()));
        let none = login(None, None);
        assert_eq!(none, ("user".to_owned(), "secret".to_owned()));
    }

    #[test]
    fn only_plain_text_to_another_machine_is_exposed() {
        for (raw, is_exposed) in [
            ("amqp://rabbit/%2f", true),
            ("amqps://rabbit/%2f", false),
            ("amqp://localhost/%2f", false),
            ("amqp://[::1]/%2f", false),
        ] {
            let url = <AmqpUrl as Value>::parse(raw).unwrap();
            assert_eq!(url.is_exposed(), is_exposed, "{raw}");
        }
    }
}
