//! `GET /objects/:id`: an object is online if its id is even.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use http_server::{RequestBody, Route, Service};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::chance::Chance;
use crate::config::Config;
use crate::metrics::{LOOK_UPS, LookUpOutcome};

const OBJECT: Route<()> = Route::new("/objects/{id}", "GET, HEAD", ());

pub(crate) struct ObjectService {
    config: Config,
    chance: Chance,
    begun: Instant,
    /// Places for look-ups at work.
    places: Semaphore,
}

impl Service for ObjectService {
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

impl ObjectService {
    pub(crate) fn new(config: Config, chance: Chance) -> Self {
        Self {
            begun: Instant::now(),
            places: Semaphore::new(config.look_ups_limit.get()),
            config,
            chance,
        }
    }

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
        // The semaphore is never closed.
        let place = self.places.acquire().await.ok();
        sleep(fate.latency * self.times()).await;
        drop(place);
        let outcome = if fate.error {
            LookUpOutcome::Failed
        } else {
            LookUpOutcome::Answered
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

    /// How many times longer than usual a look-up takes now.
    fn times(&self) -> u32 {
        let period = self.config.slower_period.as_nanos();
        if self.begun.elapsed().as_nanos() / period % 2 == 1 {
            u32::from(self.config.slower_times.get())
        } else {
            1
        }
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
