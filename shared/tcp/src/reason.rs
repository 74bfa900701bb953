//! Why something failed, in full, and what can be tried: the text of many errors leaves the cause to their sources.

use std::error::Error;
use std::net::SocketAddr;

/// The text of `error` and of each of its sources that says something more.
#[must_use]
pub fn reason(error: &(dyn Error + 'static)) -> String {
    reason_with(error, |_| None)
}

/// The same. Where `describe` knows an error, its text replaces that of the error around it.
#[must_use]
pub fn reason_with(
    error: &(dyn Error + 'static),
    describe: impl Fn(&(dyn Error + 'static)) -> Option<String>,
) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(described) = describe(error) {
            parts.pop();
            parts.push(described);
        } else {
            let text = error.to_string();
            if parts.iter().all(|part| !part.contains(&text)) {
                parts.push(text);
            }
        }
        next = error.source();
    }
    parts.join(": ")
}

/// What can be tried about failures that are the same whatever is asked, by what their reason contains.
const COMMON: [(&str, &str); 7] = [
    (
        "Connection refused",
        "nothing listens there: is the server up, and the port right?",
    ),
    ("failed to lookup", "no such name: is the host right?"),
    ("unreachable", "is there a way to that network?"),
    (
        "no answer within",
        "does the server hang, or a firewall drop what is sent?",
    ),
    (
        "invalid peer certificate",
        "the host has to be a name in the certificate, and CA_FILE adds authorities",
    ),
    (
        "does not speak TLS",
        "is this the port with TLS, and is TLS on at the server?",
    ),
    ("does not speak", "are host and port right?"),
];

/// `reason`, and what can be tried about it: the first entry of `advice`, then of those that are common to all, whose
/// first part is contained in it.
#[must_use]
pub fn advised(reason: String, advice: &[(&str, &str)]) -> String {
    let mut known = advice.iter().chain(&COMMON);
    match known.find(|(sign, _)| reason.contains(sign)) {
        Some((_, advice)) => format!("{reason}; {advice}"),
        None => reason,
    }
}

/// Whether `host` is this machine, as far as its name tells.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || format!("{host}:0")
            .parse::<SocketAddr>()
            .or_else(|_| format!("[{host}]:0").parse())
            .is_ok_and(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("outer{0}")]
    struct Outer(&'static str, #[source] Inner);

    #[derive(Debug, Error)]
    #[error("inner")]
    struct Inner;

    #[test]
    fn the_reason_has_each_source_once() {
        assert_eq!(reason(&Outer("", Inner)), "outer: inner");
        assert_eq!(reason(&Outer(": inner", Inner)), "outer: inner");
    }

    #[test]
    fn a_loopback_host_is_recognized() {
        for host in [
            "localhost",
            "LOCALHOST",
            "127.0.0.1",
            "127.8.0.1",
            "::1",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["db", "10.0.0.1", "localhost.example.com", "2001:db8::5", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn the_advice_is_the_first_that_fits() {
        let own = [("Connection refused", "start it")];
        let advised = |reason: &str, own| advised(reason.to_owned(), own);
        let refused = "Connection refused (os error 111)";
        assert_eq!(advised(refused, &own), format!("{refused}; start it"));
        assert!(advised(refused, &[]).contains("nothing listens there"));
        assert_eq!(advised("it is full", &own), "it is full");
    }
}
