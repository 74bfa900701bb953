//! Single flight: of all callers that ask for the same id, the leader makes the look-up, and the others,
//! its followers, get the result.
//!
//! A follower gets the result of a request that was sent after the follower came: what the client
//! service knew before may be what the follower's callback says has changed. Followers that come while
//! a request is in flight therefore wait for the next request, which one of them leads.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use messages::ObjectId;
use opentelemetry::trace::SpanBuilder;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use trace::{SpanSet, TraceSet};

use crate::answer::Answer;
use crate::breaker::Rejection;

/// What a look-up ends in.
pub(crate) type LookUpResult = Result<Answer, Rejection>;

/// The look-ups of all ids. Each id has at most one leader.
#[derive(Clone, Default)]
pub(crate) struct SingleFlight(Arc<Mutex<HashMap<ObjectId, Flight>>>);

/// The look-up of one id, from its wait for a slot to its result.
struct Flight {
    /// Where the leader's request is traced.
    traces: TraceSet,
    /// They came before the request was sent, and get its result.
    followers: Vec<Follower>,
    /// They came after the request was sent, and wait for the next one.
    next_followers: Vec<Follower>,
}

struct Follower {
    turn: oneshot::Sender<Turn>,
    traces: TraceSet,
}

/// What a caller is for an id.
pub(crate) enum Role {
    Leader(Leader),
    /// Waits for its turn; the spans show the wait.
    Follower(oneshot::Receiver<Turn>, SpanSet),
}

/// What a follower waits for.
pub(crate) enum Turn {
    /// The leader has a result.
    Result(LookUpResult),
    /// The follower leads the next look-up.
    Lead(Leader),
}

impl SingleFlight {
    /// The first caller leads, and those that come until it is done follow.
    pub(crate) fn join(&self, id: ObjectId, traces: &TraceSet) -> Role {
        match self.0.lock().entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(Flight {
                    traces: traces.clone(),
                    followers: Vec::new(),
                    next_followers: Vec::new(),
                });
                Role::Leader(self.leader(id))
            }
            Entry::Occupied(mut entry) => {
                let (turn, receiver) = oneshot::channel();
                let flight = entry.get_mut();
                let spans = traces.start(|| {
                    SpanBuilder::from_name("join GET /objects/{id}")
                        .with_links(flight.traces.links())
                });
                flight.next_followers.push(Follower {
                    turn,
                    traces: traces.clone(),
                });
                Role::Follower(receiver, spans)
            }
        }
    }

    /// Whether nothing is looked up.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    fn leader(&self, id: ObjectId) -> Leader {
        Leader {
            flights: self.clone(),
            id,
            result: None,
        }
    }
}

/// The caller that makes the look-up of an id. When the leader is dropped, its followers get the result,
/// and one that came later leads the next look-up. A leader that is cancelled has no result, and one
/// of the followers that waited for it leads.
pub(crate) struct Leader {
    flights: SingleFlight,
    pub(crate) id: ObjectId,
    result: Option<LookUpResult>,
}

impl Leader {
    /// To be called before each request: all followers that are here by now get its result.
    pub(crate) fn is_sending(&self) {
        if let Some(flight) = self.flights.0.lock().get_mut(&self.id) {
            flight.followers.append(&mut flight.next_followers);
        }
    }

    /// Hands the result to the followers, and returns it.
    pub(crate) fn finish(mut self, result: LookUpResult) -> LookUpResult {
        self.result.insert(result).clone()
    }

    /// Ends the flight, unless a follower leads the next look-up. Returns the followers that get the result,
    /// and that next leader.
    fn end(&self) -> (Vec<Follower>, Option<Follower>) {
        let mut flights = self.flights.0.lock();
        let Entry::Occupied(mut entry) = flights.entry(self.id) else {
            return (Vec::new(), None);
        };
        let flight = entry.get_mut();
        let mut followers = std::mem::take(&mut flight.followers);
        if self.result.is_none() {
            flight.next_followers.append(&mut followers);
        }
        flight
            .next_followers
            .retain(|follower| !follower.turn.is_closed());
        let next = flight.next_followers.pop();
        if let Some(next) = &next {
            flight.traces = next.traces.clone();
        } else {
            entry.remove();
        }
        (followers, next)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let (followers, next) = self.end();
        for (follower, result) in followers.into_iter().zip(self.result.iter().cycle()) {
            if follower.turn.send(Turn::Result(result.clone())).is_err() {
                tracing::trace!(id = %self.id, "a follower no longer waits for the result");
            }
        }
        if let Some(next) = next {
            // A follower that has just left drops the new leader, which passes the lead on.
            next.turn
                .send(Turn::Lead(self.flights.leader(self.id)))
                .ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ObjectId = ObjectId(7);

    #[tokio::test]
    async fn a_follower_that_leaves_hands_on() {
        let flights = SingleFlight::default();
        let traces = TraceSet::default();
        let Role::Leader(leader) = flights.join(ID, &traces) else {
            panic!("there is no other");
        };
        let [leaving, staying] = [(); 2].map(|()| match flights.join(ID, &traces) {
            Role::Follower(turn, _) => turn,
            Role::Leader(_) => panic!("there is a leader"),
        });
        drop(leader);
        // The follower that came last was told to lead, and leaves without a look.
        drop(staying);
        assert!(matches!(leaving.await, Ok(Turn::Lead(_))));
        assert!(flights.is_empty());
    }
}
