//! Checks of a request's head that hyper does not make.

use std::error::Error;

use http::header::{CONNECTION, HOST};
use http::uri::Authority;
use http::{Request, Version};

use crate::metrics::REQUESTS_MALFORMED;

/// Checks that a request names its host as RFC 9112, section 3.2, asks for: HTTP/1.1 once, HTTP/1.0
/// at most once. HTTP/2 has `:authority` for it.
pub(crate) fn check_host<B>(request: &Request<B>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let Some(host) = first else {
        let needs_host = match request.version() {
            Version::HTTP_11 => true,
            Version::HTTP_2 => request.uri().authority().is_none(),
            _ => false,
        };
        return if needs_host {
            Err("the request has no Host header")
        } else {
            Ok(())
        };
    };
    if second.is_some() {
        return Err("the request has more than one Host header");
    }
    let host = host.as_bytes();
    // Empty where the target of a request has no host.
    let valid = host.is_empty() || Authority::try_from(host).is_ok() && !host.contains(&b'@');
    valid.then_some(()).ok_or("the Host header names no host")
}

/// Whether the client intends to keep the connection open.
pub(crate) fn is_persistent<B>(request: &Request<B>) -> bool {
    let asks_for = |option: &str| {
        let values = request.headers().get_all(CONNECTION).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(option))
    };
    match request.version() {
        Version::HTTP_11 => !asks_for("close"),
        Version::HTTP_10 => asks_for("keep-alive") && !asks_for("close"),
        _ => false,
    }
}

/// Counts a connection that ended because hyper could not read a head. Hyper has answered it.
pub(crate) fn count_malformed(error: &(dyn Error + 'static)) {
    let error = error.downcast_ref::<hyper::Error>();
    if error.is_some_and(hyper::Error::is_parse) {
        REQUESTS_MALFORMED.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().version(version).uri(uri);
        let with_headers = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        with_headers.body(()).unwrap()
    }

    #[test]
    fn a_request_names_its_host_once() {
        use Version as V;
        let one = ("host", "a");
        let cases = [
            (V::HTTP_11, "/", &[one][..], true),
            (V::HTTP_11, "/", &[], false),
            (V::HTTP_11, "http://a/", &[], false),
            (V::HTTP_11, "/", &[one, one], false),
            (V::HTTP_10, "/", &[], true),
            (V::HTTP_10, "/", &[one, one], false),
            (V::HTTP_2, "http://a/", &[], true),
            (V::HTTP_2, "/", &[], false),
        ];
        for (version, uri, headers, valid) in cases {
            let checked = check_host(&request(version, uri, headers));
            assert_eq!(checked.is_ok(), valid, "{version:?} {uri} {headers:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_perhaps_with_a_port() {
        for (host, valid) in [
            ("", true),
            ("ingest.example:9090", true),
            ("[::1]:9090", true),
            ("127.0.0.1", true),
            ("a b", false),
            ("a, b", false),
            ("a/b", false),
            ("user@a", false),
            ("[::1", false),
        ] {
            let checked = check_host(&request(Version::HTTP_11, "/", &[("host", host)]));
            assert_eq!(checked.is_ok(), valid, "{host}");
        }
    }

    #[test]
    fn a_connection_persists_unless_the_client_closes_it() {
        for (version, connection, persistent) in [
            (Version::HTTP_11, "", true),
            (Version::HTTP_11, "TE, Close", false),
            (Version::HTTP_10, "", false),
            (Version::HTTP_10, "Keep-Alive", true),
            (Version::HTTP_2, "", false),
        ] {
            let request = request(version, "/", &[("connection", connection)]);
            assert_eq!(
                is_persistent(&request),
                persistent,
                "{version:?} {connection}"
            );
        }
    }
}
