//! The HTTP interface, described for programs.

/// The `OpenAPI` document that `GET /openapi.json` answers.
pub const DESCRIPTION: &str = include_str!("openapi.json");

#[cfg(test)]
mod linting;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use http::header::{ACCEPT_ENCODING, ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
    use serde_json::{Value, json};
    use settings::Settings;
    use webhook::Refusal;

    use super::*;
    use crate::config::Config;
    use crate::error::ApiError;
    use crate::request::Callback;
    use crate::server::ROUTES;

    /// One error for each code that an operation has; no operation has `not_found`. A new variant has to be put in here, or this does not compile.
    fn errors() -> Vec<ApiError> {
        let parse = |body: &[u8]| ApiError::from(Callback::parse(body, 100).unwrap_err());
        let errors = vec![
            parse(b"{"),
            parse(br#"{"object_ids":[1,"2"]}"#),
            ApiError::Unauthorized(Refusal::Missing("webhook-signature")),
            ApiError::UnsupportedCoding,
            ApiError::UnsupportedTransferCoding,
            ApiError::MethodNotAllowed("GET, HEAD, OPTIONS"),
            ApiError::PayloadTooLarge(1 << 20),
            ApiError::RequestTimeout,
            ApiError::TooManyRequests(1),
            ApiError::Overloaded,
            ApiError::Unavailable("the broker is unavailable, and the spool is full".to_owned()),
            ApiError::Internal,
        ];
        for error in &errors {
            match error {
                ApiError::Callback(_)
                | ApiError::BrokenBody(_)
                | ApiError::Undecodable(_)
                | ApiError::UnsupportedCoding
                | ApiError::UnsupportedTransferCoding
                | ApiError::Unauthorized(_)
                | ApiError::NotFound
                | ApiError::MethodNotAllowed(_)
                | ApiError::PayloadTooLarge(_)
                | ApiError::RequestTimeout
                | ApiError::TooManyRequests(_)
                | ApiError::Overloaded
                | ApiError::Unavailable(_)
                | ApiError::Internal => {}
            }
        }
        errors
    }

    pub(super) fn description() -> Value {
        serde_json::from_str(DESCRIPTION).unwrap()
    }

    pub(super) fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
        value.as_object().unwrap().iter()
    }

    /// The examples of the description's errors, by their code.
    fn examples(description: &Value) -> BTreeMap<String, Value> {
        let responses = members(&description["components"]["responses"]);
        responses
            .filter_map(|(_, response)| response.pointer("/content/application~1json/examples"))
            .flat_map(members)
            .map(|(code, example)| (code.clone(), example["value"].clone()))
            .collect()
    }

    #[test]
    fn the_description_has_every_path_with_its_methods_and_no_other() {
        // A description has no path for the whole server.
        let routes = ROUTES.iter().filter(|route| route.path != "*");
        let answered: BTreeMap<&str, BTreeSet<String>> = routes
            .map(|route| {
                let methods = route.methods.split(", ");
                (route.path, methods.map(str::to_lowercase).collect())
            })
            .collect();
        let description = description();
        let described: BTreeMap<&str, BTreeSet<String>> = members(&description["paths"])
            .map(|(path, operations)| {
                let methods = members(operations);
                (
                    path.as_str(),
                    methods.map(|(method, _)| method.clone()).collect(),
                )
            })
            .collect();
        assert_eq!(described, answered);
    }

    #[test]
    fn the_description_has_every_error_as_it_is_answered_and_no_other() {
        let answered: BTreeMap<String, Value> = errors()
            .iter()
            .map(|error| {
                let (_, code) = error.status_and_code();
                let body = json!({ "error": code, "message": error.to_string() });
                (code.to_owned(), body)
            })
            .collect();
        assert_eq!(examples(&description()), answered);
    }

    #[test]
    fn the_description_has_every_error_with_its_status_and_headers() {
        let description = description();
        let operations = members(&description["paths"]).flat_map(|(_, path)| members(path));
        let mut found = 0;
        for (status, response) in operations.flat_map(|(_, method)| members(&method["responses"])) {
            let Some(name) = response["$ref"].as_str() else {
                continue;
            };
            let response = description.pointer(name.trim_start_matches('#')).unwrap();
            let examples = response.pointer("/content/application~1json/examples");
            for (code, _) in examples.into_iter().flat_map(members) {
                let answered = errors()
                    .into_iter()
                    .find(|error| error.status_and_code().1 == code)
                    .unwrap()
                    .response();
                assert_eq!(answered.status().as_str(), status, "{code}");
                for header in [RETRY_AFTER, ALLOW, ACCEPT_ENCODING, WWW_AUTHENTICATE] {
                    let described = response["headers"].as_object().is_some_and(|headers| {
                        headers
                            .keys()
                            .any(|name| name.eq_ignore_ascii_case(header.as_str()))
                    });
                    assert_eq!(
                        described,
                        answered.headers().contains_key(&header),
                        "{code}"
                    );
                }
                found += 1;
            }
        }
        assert!(found > errors().len(), "only {found} errors are described");
    }

    #[test]
    fn the_description_names_limits_by_their_settings() {
        let limits = Config::specs()
            .into_iter()
            .map(|spec| spec.variable())
            .filter(|name| {
                name.ends_with("_LIMIT") || name.starts_with("BODY_") || name == "HEADER_TIMEOUT"
            });
        for limit in limits {
            assert!(DESCRIPTION.contains(&limit), "{limit}");
        }
        assert_eq!(description()["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
