//! Look-ups under way: one for all who ask for the same id, asked again for as long as a failure is
//! not the id's own.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use metrics::{Counter, Gauge, Histogram};
use opentelemetry::trace::SpanBuilder;
use shared::messages::ObjectId;
use shared::metrics::InFlight;
use shared::trace::{Spans, Traces};
use tokio::sync::oneshot;

use crate::answer::{Answer, Reason};
use crate::breaker::{Breaker, Verdict, Withheld};
use crate::client::ClientService;

/// How many times in a row an id may be asked for anew because the client service asked for rest,
/// before its failure is judged as any other.
const MOST_RESTS: usize = 10;

/// How many outages may meet the look-up of an id before it counts as failed: were they the work of
/// this very id, they would never end.
const MOST_OUTAGES: usize = 10;

/// What a look-up ends in.
type Looked = Result<Answer, Withheld>;

/// A look-up under way.
struct UnderWay {
    /// Where it is to be seen.
    traces: Traces,
    /// Those who wait for its answer beside the one who makes it.
    others: Vec<oneshot::Sender<Looked>>,
}

/// What is to be done for an id that was asked for.
enum Part<'a> {
    /// To look it up, and to tell the others.
    First(Listed<'a>),
    /// To wait for the one who looks it up; the second is the span of waiting.
    Other(oneshot::Receiver<Looked>, Spans),
}

/// Joined look-ups.
pub struct LookUps {
    client: ClientService,
    breaker: Arc<Breaker>,
    under_way: Mutex<HashMap<ObjectId, UnderWay>>,
    counts: Counts,
}

/// What is counted of each look-up: to find it anew each time takes time.
struct Counts {
    in_flight: Gauge,
    duration: Histogram,
    online: Counter,
    offline: Counter,
}

impl Counts {
    fn new() -> Self {
        let ended =
            |answer: &Answer| metrics::counter!("fetches_total", "outcome" => answer.kind());
        Self {
            in_flight: metrics::gauge!("fetches_in_flight"),
            duration: metrics::histogram!("fetch_duration_seconds"),
            online: ended(&Answer::Online),
            offline: ended(&Answer::Offline),
        }
    }

    fn ended(&self, answer: &Answer) {
        match answer {
            Answer::Online => self.online.increment(1),
            Answer::Offline => self.offline.increment(1),
            other => metrics::counter!("fetches_total", "outcome" => other.kind()).increment(1),
        }
    }
}

impl LookUps {
    /// Looks up when `breaker` allows it.
    #[must_use]
    pub fn new(client: ClientService, breaker: Arc<Breaker>) -> Self {
        Self {
            client,
            breaker,
            under_way: Mutex::default(),
            counts: Counts::new(),
        }
    }

    /// Looks an object up, or waits for the look-up of it that is under way already. Returns a
    /// failure only when it is the object's own.
    ///
    /// # Errors
    /// [`Withheld`] when the client service is down and will not be asked soon.
    pub async fn look_up(&self, id: ObjectId, traces: &Traces) -> Looked {
        loop {
            match self.join(id, traces) {
                Part::First(mut listed) => {
                    let looked = self.run(id, traces).await;
                    listed.looked = Some(looked.clone());
                    return looked;
                }
                Part::Other(answer, _span) => {
                    if let Ok(looked) = answer.await {
                        metrics::counter!("fetches_joined_total").increment(1);
                        return looked;
                    }
                    // The work of the one who made it was given up.
                }
            }
        }
    }

    fn join(&self, id: ObjectId, traces: &Traces) -> Part<'_> {
        let mut under_way = self.under_way();
        if let Some(first) = under_way.get_mut(&id) {
            let (teller, answer) = oneshot::channel();
            first.others.push(teller);
            return Part::Other(answer, traces.start(|| waiting_span(&first.traces)));
        }
        let first = UnderWay {
            traces: traces.clone(),
            others: Vec::new(),
        };
        under_way.insert(id, first);
        Part::First(Listed {
            look_ups: self,
            id,
            looked: None,
        })
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<ObjectId, UnderWay>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, id: ObjectId, traces: &Traces) -> Looked {
        let looked = AssertUnwindSafe(self.settle(id, traces))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Ok(Answer::Failed(Reason::Panicked.into())));
        if looked.is_err() {
            metrics::counter!("fetches_withheld_total").increment(1);
        }
        looked
    }

    async fn settle(&self, id: ObjectId, traces: &Traces) -> Looked {
        let (mut rests, mut outages) = (0, 0);
        loop {
            let answer = self.ask(id, traces).await?;
            let rest_is_asked_for = match &answer {
                Answer::Failed(failure) if failure.reason.may_pass() => failure.asks_for_rest(),
                _ => return Ok(answer),
            };
            if rest_is_asked_for && rests < MOST_RESTS {
                rests += 1;
                continue;
            }
            rests = 0;
            if self.breaker.verdict().await? == Verdict::Works || outages == MOST_OUTAGES {
                return Ok(answer);
            }
            outages += 1;
        }
    }

    async fn ask(&self, id: ObjectId, traces: &Traces) -> Looked {
        let admission = self.breaker.admit(id).await?;
        let _counted = InFlight::in_gauge(self.counts.in_flight.clone());
        let started = Instant::now();
        // In a place of its own: far more ids wait for admission than are looked up, and need not
        // have room for a request.
        let answer = Box::pin(self.client.look_up(id, traces)).await;
        self.counts.duration.record(started.elapsed());
        self.counts.ended(&answer);
        self.breaker.record(id, &admission, &answer);
        Ok(answer)
    }
}

/// The look-up itself is in the trace of who asked first, which it is linked to.
fn waiting_span(first: &Traces) -> SpanBuilder {
    SpanBuilder::from_name("join GET /objects/{id}").with_links(first.links())
}

/// Takes the look-up off the list when it ends, and tells the others how. If that is not known, since
/// the one who made it was given up, they ask anew.
struct Listed<'a> {
    look_ups: &'a LookUps,
    id: ObjectId,
    looked: Option<Looked>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let ended = self.look_ups.under_way().remove(&self.id);
        let Some(looked) = self.looked.take() else {
            return;
        };
        for other in ended.into_iter().flat_map(|ended| ended.others) {
            if other.send(looked.clone()).is_err() {
                tracing::trace!(id = %self.id, "looked up for one who no longer waits");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use shared::config::{Ask, load};
    use shared::health::Health;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::Config;

    const ID: ObjectId = ObjectId(7);

    async fn look_ups() -> (LookUps, TcpListener) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("--client-url=http://{}", listener.local_addr().unwrap());
        let arguments = ["fetcher", &url].map(OsString::from);
        let config = load::<Config, Ask>("fetcher", "", arguments, []).unwrap();
        let client = ClientService::new(&config.settings).unwrap();
        let breaker = Breaker::new(8, Health::default().awaited("client service"));
        (LookUps::new(client, Arc::new(breaker)), listener)
    }

    /// Waits for a look-up to arrive.
    async fn asked(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
        stream
    }

    async fn answer(stream: &mut TcpStream) {
        let body = format!(r#"{{"id":{ID},"online":true}}"#);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn an_id_under_way_is_asked_for_once_and_answered_to_all() {
        let (look_ups, listener) = look_ups().await;
        let traces = Traces::default();
        let one = look_ups.look_up(ID, &traces);
        let other = look_ups.look_up(ID, &traces);
        let service = async {
            answer(&mut asked(&listener).await).await;
            assert!(listener.accept().now_or_never().is_none());
        };
        let (one, other, ()) = tokio::join!(one, other, service);
        assert_eq!([one, other], [Ok(Answer::Online), Ok(Answer::Online)]);
        assert!(look_ups.under_way().is_empty());
    }

    #[tokio::test]
    async fn who_waits_asks_anew_when_the_look_up_is_given_up() {
        let (look_ups, listener) = look_ups().await;
        let traces = Traces::default();
        let mut first = Box::pin(look_ups.look_up(ID, &traces));
        let mut given_up = tokio::select! {
            _ = &mut first => panic!("nothing was answered"),
            stream = asked(&listener) => stream,
        };
        let other = look_ups.look_up(ID, &traces);
        let service = async {
            drop(first);
            assert_eq!(given_up.read(&mut [0; 1]).await.unwrap(), 0);
            answer(&mut asked(&listener).await).await;
        };
        let (other, ()) = tokio::join!(other, service);
        assert_eq!(other, Ok(Answer::Online));
        assert!(look_ups.under_way().is_empty());
    }
}
