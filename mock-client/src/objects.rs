//! `GET /objects/:id`: an object is online if its id is even.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use http_server::{RequestBody, Service};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::config::Config;
use crate::metrics::{LOOK_UPS, LookUp};

/// What the paths of objects begin with.
const OBJECTS: &str = "/objects/";

/// Answers look-ups.
pub struct Objects {
    /// How slow and how faulty to be.
    pub config: Config,
    /// Decides on each look-up.
    pub chance: Chance,
}

impl Service for Objects {
    async fn respond(
        &self,
        request: Request<RequestBody>,
        remote: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let is_object = request.uri().path().starts_with(OBJECTS);
        let span = trace::http::serve(&request, is_object.then_some("/objects/{id}"), remote);
        let response = span.traces().scope(self.answer(request)).await;
        trace::http::answer(span, response.status());
        response
    }
}

impl Objects {
    async fn answer(&self, request: Request<RequestBody>) -> Response<Full<Bytes>> {
        let Some(id) = request.uri().path().strip_prefix(OBJECTS) else {
            return answer(
                StatusCode::NOT_FOUND,
                &json!({ "error": "there is only /objects/:id" }),
            );
        };
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut refused = answer(
                StatusCode::METHOD_NOT_ALLOWED,
                &json!({ "error": "only GET is answered" }),
            );
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match id.parse::<i64>() {
            Ok(id) => self.look_up(id).await,
            Err(_) => answer(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "the id is not a 64-bit integer" }),
            ),
        }
    }

    async fn look_up(&self, id: i64) -> Response<Full<Bytes>> {
        let fate = self.chance.fate(&self.config);
        tokio::time::sleep(fate.latency).await;
        let outcome = if fate.error {
            LookUp::Failed
        } else {
            LookUp::Answered
        };
        LOOK_UPS.of(&outcome).increment(1);
        if fate.error {
            return answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                &json!({ "error": "an error, as asked for" }),
            );
        }
        answer(StatusCode::OK, &json!({ "id": id, "online": id % 2 == 0 }))
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
