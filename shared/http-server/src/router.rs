//! Which request goes where: one table of routes a server.

use http::header::ALLOW;
use http::{HeaderValue, Method, Response, StatusCode};

/// A path, its methods, and what answers there.
#[derive(Clone, Copy, Debug)]
pub struct Route<E> {
    /// As metrics and spans name it. A parameter in braces may end it; it stands for the rest of a path.
    pub path: &'static str,
    /// As `Allow` lists them. HEAD is answered like GET; the server leaves the body out.
    pub methods: &'static str,
    /// What answers.
    pub endpoint: E,
}

impl<E> Route<E> {
    /// `endpoint` answers `methods` on `path`.
    pub const fn new(path: &'static str, methods: &'static str, endpoint: E) -> Self {
        Self {
            path,
            methods,
            endpoint,
        }
    }

    /// The first route that leads to `path`. Where there is none, the answer is 404.
    #[must_use]
    pub fn find(routes: &'static [Self], path: &str) -> Option<&'static Self> {
        routes.iter().find(|route| route.parameter(path).is_some())
    }

    /// The part of `path` that the parameter stands for, empty without one; `None` for another path.
    #[must_use]
    pub fn parameter<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.split_once('{') {
            Some((prefix, _)) => path.strip_prefix(prefix),
            None => (path == self.path).then_some(""),
        }
    }

    /// Whether the route has this method. If it does not, the answer is 405.
    #[must_use]
    pub fn takes(&self, method: &Method) -> bool {
        self.methods.split(", ").any(|allowed| method == allowed)
    }

    /// Makes `response` the answer 405.
    #[must_use]
    pub fn refuse_method<B>(&self, mut response: Response<B>) -> Response<B> {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        self.list_methods(response)
    }

    /// Adds `Allow`, for 405 and for the answers to OPTIONS.
    #[must_use]
    pub fn list_methods<B>(&self, mut response: Response<B>) -> Response<B> {
        let methods = HeaderValue::from_static(self.methods);
        response.headers_mut().insert(ALLOW, methods);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &[Route<u8>] = &[
        Route::new("/", "GET, HEAD", 1),
        Route::new("/things/{id}", "GET", 2),
        Route::new("/things", "OPTIONS, POST", 3),
    ];

    #[test]
    fn a_path_leads_to_its_route_with_the_parameter() {
        for (path, expected) in [
            ("/", Some((1, ""))),
            ("/things/7", Some((2, "7"))),
            ("/things/", Some((2, ""))),
            ("/things", Some((3, ""))),
            ("/thing", None),
            ("*", None),
        ] {
            let route = Route::find(ROUTES, path);
            let found = route.map(|route| (route.endpoint, route.parameter(path).unwrap()));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_method_that_a_route_does_not_have_is_answered_with_those_it_has() {
        let [read, _, write] = ROUTES else { panic!() };
        assert!(read.takes(&Method::HEAD) && !read.takes(&Method::POST));
        let response = write.refuse_method(Response::new(()));
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "OPTIONS, POST");
    }
}
