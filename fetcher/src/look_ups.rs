//! Look-ups under way: one for all who ask for the same id before it is sent, and one more for all who
//! come meanwhile. Each is asked again for as long as a failure is not the id's own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use messages::ObjectId;
use metric_definitions::InFlight;
use metrics::{Counter, Gauge, Histogram};
use opentelemetry::trace::SpanBuilder;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use trace::{Spans, Traces};

use crate::answer::{Answer, Reason};
use crate::breaker::{Breaker, Moment, Verdict, Withheld};
use crate::client::ClientService;
use crate::metrics::{
    FETCH_DURATION, FETCHES, FETCHES_IN_FLIGHT, FETCHES_JOINED, FETCHES_WITHHELD,
};

/// How many times in a row an id may be asked for anew because the client service asked for rest,
/// before its failure is judged as any other.
const MOST_RESTS: usize = 10;

/// How many outages may meet the look-up of an id before it counts as failed: were they the work of
/// this very id, they would never end.
const MOST_OUTAGES: usize = 10;

/// What a look-up ends in.
type Looked = Result<Answer, Withheld>;

/// A look-up under way.
struct Flight {
    /// Where it is to be seen.
    traces: Traces,
    /// Those who came before the request that is under way was sent: its answer is theirs too.
    asked: Vec<Follower>,
    /// Those who came later. What the client service knew when it was asked may be what their callback
    /// says has changed.
    waiting: Vec<Follower>,
}

/// A caller that waits for the look-up of another one.
struct Follower {
    turn: oneshot::Sender<Turn>,
    traces: Traces,
}

/// What a follower has waited for.
enum Turn {
    /// The answer.
    Answered(Looked),
    /// To make the next look-up.
    Leads(Leader),
}

/// What is to be done for an id that was asked for.
enum Part {
    /// To look it up, and to tell the followers.
    Leader(Leader),
    /// To wait for the leader; the second is the span of waiting.
    Follower(oneshot::Receiver<Turn>, Spans),
}

/// Look-ups under way. Each id has one leader, whose request is under way or is the next to be sent.
#[derive(Clone, Default)]
struct Flights(Arc<Mutex<HashMap<ObjectId, Flight>>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectId, Flight>> {
        self.0.lock()
    }

    fn join(&self, id: ObjectId, traces: &Traces) -> Part {
        let mut flights = self.lock();
        if let Some(flight) = flights.get_mut(&id) {
            let (turn, answer) = oneshot::channel();
            let traces = traces.clone();
            let span = traces.start(|| waiting_span(&flight.traces));
            flight.waiting.push(Follower { turn, traces });
            return Part::Follower(answer, span);
        }
        let flight = Flight {
            traces: traces.clone(),
            asked: Vec::new(),
            waiting: Vec::new(),
        };
        flights.insert(id, flight);
        Part::Leader(self.leader(id))
    }

    fn leader(&self, id: ObjectId) -> Leader {
        Leader {
            flights: self.clone(),
            id,
            looked: None,
        }
    }

    /// Ends the look-up of a leader. Returns the followers that its answer is for; without an answer
    /// they wait for the next one. One of those who wait is to lead it.
    fn end(&self, id: ObjectId, is_answered: bool) -> (Vec<Follower>, Option<Follower>) {
        let mut flights = self.lock();
        let Entry::Occupied(mut entry) = flights.entry(id) else {
            return (Vec::new(), None);
        };
        let flight = entry.get_mut();
        let mut answered = std::mem::take(&mut flight.asked);
        if !is_answered {
            flight.waiting.append(&mut answered);
        }
        flight.waiting.retain(|follower| !follower.turn.is_closed());
        let next = flight.waiting.pop();
        match &next {
            Some(next) => flight.traces = next.traces.clone(),
            None => drop(entry.remove()),
        }
        (answered, next)
    }
}

/// Joined look-ups.
#[derive(Clone)]
pub struct LookUps {
    client: ClientService,
    breaker: Arc<Breaker>,
    flights: Flights,
    counts: Counts,
    /// Whether it is asked for the ids of huge callbacks.
    is_bulk: bool,
}

/// What is counted of each look-up: to find it anew each time takes time.
#[derive(Clone)]
struct Counts {
    in_flight: Gauge,
    duration: Histogram,
    online: Counter,
    offline: Counter,
}

impl Counts {
    fn new() -> Self {
        Self {
            in_flight: FETCHES_IN_FLIGHT.handle(),
            duration: FETCH_DURATION.handle(),
            online: FETCHES.of(&Answer::Online),
            offline: FETCHES.of(&Answer::Offline),
        }
    }

    fn ended(&self, answer: &Answer) {
        match answer {
            Answer::Online => self.online.increment(1),
            Answer::Offline => self.offline.increment(1),
            other => FETCHES.of(other).increment(1),
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
            flights: Flights::default(),
            counts: Counts::new(),
            is_bulk: false,
        }
    }

    /// The same look-ups for the ids of huge callbacks, which let others go first.
    #[must_use]
    pub fn for_bulk(&self) -> Self {
        Self {
            is_bulk: true,
            ..self.clone()
        }
    }

    /// Looks an object up, or waits for a look-up of it that was not sent yet. Returns a failure only
    /// when it is the object's own, or nobody can tell.
    ///
    /// # Errors
    /// [`Withheld`] when the client service is down and will not be asked soon.
    pub async fn look_up(&self, id: ObjectId, traces: &Traces) -> Looked {
        loop {
            let turn = match self.flights.join(id, traces) {
                Part::Leader(leader) => Ok(Turn::Leads(leader)),
                Part::Follower(turn, _span) => turn.await,
            };
            match turn {
                Ok(Turn::Answered(looked)) => {
                    FETCHES_JOINED.increment(1);
                    return looked;
                }
                Ok(Turn::Leads(mut leader)) => {
                    let looked = self.run(&leader, traces).await;
                    leader.looked = Some(looked.clone());
                    return looked;
                }
                Err(_) => tracing::debug!(%id, "a look-up was forgotten"),
            }
        }
    }

    async fn run(&self, leader: &Leader, traces: &Traces) -> Looked {
        let looked = AssertUnwindSafe(self.settle(leader, traces))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Ok(Answer::Failed(Reason::Panicked.into())));
        if looked.is_err() {
            FETCHES_WITHHELD.increment(1);
        }
        looked
    }

    /// Asks until there is an answer, or a failure that is not the client service's.
    async fn settle(&self, leader: &Leader, traces: &Traces) -> Looked {
        let (mut rests, mut outages, mut has_met_gap) = (0, 0, false);
        loop {
            let (answer, started) = self.ask(leader, traces).await?;
            let Answer::Failed(failure) = &answer else {
                return Ok(answer);
            };
            if failure.asks_for_rest() && rests < MOST_RESTS {
                rests += 1;
                continue;
            }
            rests = 0;
            let is_the_ids = !matches!(failure.reason, Reason::Unreachable(_));
            match self.breaker.verdict(started, failure).await? {
                Verdict::Works if is_the_ids => return Ok(answer.believed()),
                Verdict::WorksAgain if is_the_ids && has_met_gap => return Ok(answer.believed()),
                Verdict::Unclear => return Ok(answer.doubted()),
                _ if outages == MOST_OUTAGES => return Ok(answer.doubted()),
                verdict => has_met_gap = verdict == Verdict::WorksAgain,
            }
            outages += 1;
        }
    }

    async fn ask(&self, leader: &Leader, traces: &Traces) -> Result<(Answer, Moment), Withheld> {
        let id = leader.id;
        let admission = self.breaker.admit(id, self.is_bulk).await?;
        leader.is_sending();
        let _counted = InFlight::in_gauge(self.counts.in_flight.clone());
        let started = Instant::now();
        // In a place of its own: far more ids wait for admission than are looked up, and need not
        // have room for a request.
        let answer = Box::pin(self.client.look_up(id, traces)).await;
        self.counts.duration.record(started.elapsed());
        self.counts.ended(&answer);
        self.breaker.record(id, &admission, &answer);
        Ok((answer, admission.started))
    }
}

/// The look-up itself is in the trace of who asked first, which it is linked to.
fn waiting_span(first: &Traces) -> SpanBuilder {
    SpanBuilder::from_name("join GET /objects/{id}").with_links(first.links())
}

/// The caller that makes the look-up of an id. When it ends, the followers whose answer it has are told,
/// and one of the others leads the next look-up. So they do when it is given up without an answer.
struct Leader {
    flights: Flights,
    id: ObjectId,
    looked: Option<Looked>,
}

impl Leader {
    /// All followers that are here by now will have the answer to this request.
    fn is_sending(&self) {
        if let Some(flight) = self.flights.lock().get_mut(&self.id) {
            flight.asked.append(&mut flight.waiting);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let looked = self.looked.take();
        let (answered, next) = self.flights.end(self.id, looked.is_some());
        for (follower, looked) in answered.into_iter().zip(looked.iter().cycle()) {
            if follower.turn.send(Turn::Answered(looked.clone())).is_err() {
                tracing::trace!(id = %self.id, "looked up for one who no longer waits");
            }
        }
        if let Some(next) = next {
            // A follower that has just left drops it, and so hands it on.
            drop(next.turn.send(Turn::Leads(self.flights.leader(self.id))));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use lifecycle::Health;
    use process::Ask;
    use settings::load;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::Config;

    const ID: ObjectId = ObjectId(7);

    async fn look_ups(concurrency: usize) -> (LookUps, TcpListener) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("--client-url=http://{}", listener.local_addr().unwrap());
        let arguments = ["fetcher", &url].map(OsString::from);
        let config = load::<Config, Ask>("fetcher", "", arguments, []).unwrap();
        let client = ClientService::new(&config.settings).unwrap();
        let breaker = Breaker::new(concurrency, Health::default().awaited("client service"));
        (LookUps::new(client, Arc::new(breaker)), listener)
    }

    /// Waits for a look-up to arrive on a new connection.
    async fn asked(listener: &TcpListener) -> TcpStream {
        let (mut stream, _) = listener.accept().await.unwrap();
        until_asked(&mut stream).await;
        stream
    }

    async fn until_asked(stream: &mut TcpStream) {
        assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
    }

    async fn answer(stream: &mut TcpStream, id: ObjectId) {
        let body = format!(r#"{{"id":{id},"online":true}}"#);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn who_asks_before_the_look_up_is_sent_has_its_answer() {
        let (look_ups, listener) = look_ups(1).await;
        let traces = Traces::default();
        let before = look_ups.look_up(ObjectId(1), &traces);
        let (one, other) = (look_ups.look_up(ID, &traces), look_ups.look_up(ID, &traces));
        let service = async {
            let mut stream = asked(&listener).await;
            answer(&mut stream, ObjectId(1)).await;
            until_asked(&mut stream).await;
            answer(&mut stream, ID).await;
            assert!(listener.accept().now_or_never().is_none());
            stream
        };
        let (before, one, other, _) = tokio::join!(before, one, other, service);
        assert_eq!([before, one, other], [const { Ok(Answer::Online) }; 3]);
        assert!(look_ups.flights.lock().is_empty());
    }

    #[tokio::test]
    async fn those_who_come_during_a_look_up_share_one_more() {
        let (look_ups, listener) = look_ups(8).await;
        let traces = Traces::default();
        let mut first = Box::pin(look_ups.look_up(ID, &traces));
        let mut stream = tokio::select! {
            _ = &mut first => panic!("nothing was answered"),
            stream = asked(&listener) => stream,
        };
        let late = [(); 3].map(|()| look_ups.look_up(ID, &traces));
        let service = async {
            answer(&mut stream, ID).await;
            until_asked(&mut stream).await;
            answer(&mut stream, ID).await;
            assert!(listener.accept().now_or_never().is_none());
            assert_eq!(stream.read(&mut [0; 1]).now_or_never().map(drop), None);
            stream
        };
        let (late, first, _) = tokio::join!(futures::future::join_all(late), first, service);
        assert_eq!(late, [const { Ok(Answer::Online) }; 3]);
        assert_eq!(first, Ok(Answer::Online));
        assert!(look_ups.flights.lock().is_empty());
    }

    #[tokio::test]
    async fn a_follower_leads_when_the_look_up_is_given_up() {
        let (look_ups, listener) = look_ups(8).await;
        let traces = Traces::default();
        let mut first = Box::pin(look_ups.look_up(ID, &traces));
        let mut given_up = tokio::select! {
            _ = &mut first => panic!("nothing was answered"),
            stream = asked(&listener) => stream,
        };
        let others = [(); 2].map(|()| look_ups.look_up(ID, &traces));
        let service = async {
            drop(first);
            assert_eq!(given_up.read(&mut [0; 1]).await.unwrap(), 0);
            answer(&mut asked(&listener).await, ID).await;
        };
        let (others, ()) = tokio::join!(futures::future::join_all(others), service);
        assert_eq!(others, [const { Ok(Answer::Online) }; 2]);
        assert!(look_ups.flights.lock().is_empty());
    }

    #[tokio::test]
    async fn a_follower_that_leaves_hands_on() {
        let flights = Flights::default();
        let traces = Traces::default();
        let Part::Leader(leader) = flights.join(ID, &traces) else {
            panic!("there is no other");
        };
        let [leaving, staying] = [(); 2].map(|()| match flights.join(ID, &traces) {
            Part::Follower(turn, _) => turn,
            Part::Leader(_) => panic!("there is a leader"),
        });
        drop(leader);
        // The one who came last leads, without having looked yet.
        drop(staying);
        assert!(matches!(leaving.await, Ok(Turn::Leads(_))));
        assert!(flights.lock().is_empty());
    }
}
