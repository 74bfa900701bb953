//! `GET /objects/:id`: an object is online if its id is even.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use http_server::{RequestBody, Route, Service};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::config::Config;
use crate::metrics::{LOOK_UPS, LookUp};

const OBJECT: Route<()> = Route::new("/objects/{id}", "GET, HEAD", ());

pub(crate) struct Objects {
    pub(crate) config: Config,
    pub(crate) chance: Chance,
}

impl Service for Objects {
    async fn respond(
        &self,
        request: Request<RequestBody>,
        remote: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let id = OBJECT.parameter(request.uri().path());
        let span = trace::http::serve(&request, id.map(|_| OBJECT.path), remote);
        let answering = self.answer(request.method(), id);
        let response = span.traces().scope(answering).await;
        trace::http::answer(span, response.status());
        response
    }
}

impl Objects {
    async fn answer(&self, method: &Method, id: Option<&str>) -> Response<Full<Bytes>> {
        let Some(id) = id else {
            return answer(
                StatusCode::NOT_FOUND,
                &json!({ "error": "there is only /objects/:id" }),
            );
        };
        if !OBJECT.takes(method) {
            let body = json!({ "error": "only GET is answered" });
            return OBJECT.refuse_method(answer(StatusCode::OK, &body));
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
