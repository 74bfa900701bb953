//! The ledger of a fault case: what became of every id that was answered 2xx, and of every row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::Queue;
use messages::{FetchChunk, decode};
use tokio_postgres::Client;

use super::client_service::Fate;
use crate::servers::broker::{Broker, headers};

/// Each storing and each deletion of a row, written at its commit, by the database's clock.
const RECORD: &str = "
    create table stores (id bigint, expires_at timestamptz, at timestamptz);
    create table deletions (id bigint, expires_at timestamptz, at timestamptz);
    create function record_store() returns trigger language plpgsql as $$
    begin
        insert into stores values (new.id, new.expires_at, clock_timestamp());
        return null;
    end $$;
    create function record_deletion() returns trigger language plpgsql as $$
    begin
        insert into deletions values (old.id, old.expires_at, clock_timestamp());
        return null;
    end $$;
    create constraint trigger record_store after insert or update on objects
    deferrable initially deferred for each row execute function record_store();
    create constraint trigger record_deletion after delete on objects
    deferrable initially deferred for each row execute function record_deletion();";

/// Has the database record what happens to rows. The table of the objects is there.
pub(crate) async fn record(client: &Client) {
    client.batch_execute(RECORD).await.unwrap();
}

/// What became of the probes of one wait.
pub(crate) struct Probes {
    /// Whether one has a row.
    pub(crate) stored: bool,
    /// How long after the first of their rows expired the first was deleted.
    pub(crate) deleted_late: Option<Duration>,
}

/// What became of the probes from `first` on.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn probes(client: &Client, first: i64) -> Result<Probes, tokio_postgres::Error> {
    let query = "
        select expiry is not null, extract(epoch from deletion - expiry)::float8
        from (select min(expires_at) expiry from stores where id <= $1) stored,
             (select min(at) deletion from deletions where id <= $1) deleted";
    let row = client.query_one(query, &[&first]).await?;
    let late: Option<f64> = row.get(1);
    Ok(Probes {
        stored: row.get(0),
        deleted_late: late.map(|late| Duration::from_secs_f64(late.max(0.0))),
    })
}

/// What the client service said about ids that are not online. Clones share one record.
#[derive(Clone, Default)]
pub(crate) struct AnswerRecord(Arc<Mutex<BTreeMap<i64, Fate>>>);

impl AnswerRecord {
    /// Notes a true answer.
    pub(crate) fn note(&self, id: i64, fate: Fate) {
        if matches!(fate, Fate::Offline | Fate::Gone) {
            self.0.lock().unwrap().insert(id, fate);
        }
    }
}

/// What was found in the broker and the database.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Ids in `objects.dead`, with the reason.
    dead: BTreeMap<i64, String>,
    /// Ids in `objects.unroutable`: their queue was deleted, and an operator has to move them.
    parked: BTreeSet<i64>,
    /// Messages in `objects.unroutable`, those that delete rows among them.
    parked_messages: usize,
    /// Ids that have had a row.
    stored: BTreeSet<i64>,
    /// Rows that are there still.
    rows: i64,
    /// Deletions whose commit was before the row expired.
    early: i64,
    /// Messages in the queues that empty themselves.
    waiting: u32,
}

impl Ledger {
    /// Looks again. Messages for operators are taken off their queues.
    pub(crate) async fn look(&mut self, broker: &Broker, client: &Client) {
        while let Some(message) = broker.try_take(Queue::Dead).await {
            let reason = headers(&message).reason.unwrap_or_default();
            let ids = ids(&message.data).into_iter();
            self.dead.extend(ids.map(|id| (id, reason.clone())));
        }
        while let Some(message) = broker.try_take(Queue::Unroutable).await {
            self.parked.extend(ids(&message.data));
            self.parked_messages += 1;
        }
        self.waiting = 0;
        for queue in broker.topology.queue_names() {
            self.waiting += broker.messages(&queue).await.unwrap_or(1);
        }
        self.rows = number(client, "select count(*) from objects").await;
        self.early = number(
            client,
            "select count(*) from deletions where at < expires_at",
        )
        .await;
        let stored = client.query("select distinct id from stores", &[]).await;
        self.stored = stored.unwrap().iter().map(|row| row.get(0)).collect();
    }

    /// What became of the ids that were accepted.
    #[must_use]
    pub(crate) fn verdict(&self, accepted: &BTreeSet<i64>, answers: &AnswerRecord) -> Verdict {
        let answers = answers.0.lock().unwrap();
        let mut verdict = Verdict {
            accepted: accepted.len(),
            early: self.early,
            never_deleted: self.rows,
            waiting: self.waiting,
            parked_messages: self.parked_messages,
            ..Verdict::default()
        };
        for id in accepted {
            match (self.stored.contains(id), answers.get(id)) {
                (true, _) => verdict.stored += 1,
                (_, Some(Fate::Offline)) => verdict.offline += 1,
                (_, Some(_)) => verdict.gone += 1,
                _ if self.dead.contains_key(id) => verdict.dead += 1,
                _ if self.parked.contains(id) => verdict.parked += 1,
                _ => verdict.lost.push(*id),
            }
        }
        let wrongly_dead = self
            .dead
            .iter()
            .filter(|(id, _)| Fate::of(**id) != Fate::Failing);
        verdict.wrongly_dead = wrongly_dead.map(|(id, why)| (*id, why.clone())).collect();
        let wrongly_stored = self.stored.iter().filter(|id| !Fate::of(**id).is_online());
        verdict.wrongly_stored = wrongly_stored.copied().collect();
        verdict
    }
}

fn ids(body: &[u8]) -> Vec<i64> {
    // A delete message, which is parked too, names rows and not ids that were accepted.
    let chunk = decode::<FetchChunk>(body).map(|chunk| chunk.object_ids);
    chunk.unwrap_or_default().iter().map(|id| id.0).collect()
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// How many of the accepted ids became what.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Ids that were answered 2xx.
    pub accepted: usize,
    /// Those that had a row.
    pub stored: usize,
    /// Those that the client service called offline.
    pub offline: usize,
    /// Those that the client service does not know.
    pub gone: usize,
    /// Those in `objects.dead`.
    pub dead: usize,
    /// Those in `objects.unroutable`.
    pub parked: usize,
    /// Messages in `objects.unroutable`, those that delete rows among them.
    pub parked_messages: usize,
    /// Those that are nowhere.
    pub lost: Vec<i64>,
    /// Deletions before the row expired.
    pub early: i64,
    /// Rows that are still there.
    pub never_deleted: i64,
    waiting: u32,
    wrongly_dead: BTreeMap<i64, String>,
    wrongly_stored: BTreeSet<i64>,
}

impl Verdict {
    /// Whether nothing is under way any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.lost.is_empty() && self.never_deleted == 0 && self.waiting == 0
    }

    /// What must not have happened, and has.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut expect_none = |what: &str, count: usize, which: String| {
            if count > 0 {
                failures.push(format!("{count} {what}: {which:.400}"));
            }
        };
        let lost = &self.lost;
        expect_none("ids lost", lost.len(), format!("{lost:?}"));
        let early = usize::try_from(self.early).unwrap_or(usize::MAX);
        expect_none("rows deleted early", early, String::new());
        let rows = usize::try_from(self.never_deleted).unwrap_or(usize::MAX);
        expect_none("rows never deleted", rows, String::new());
        let dead = &self.wrongly_dead;
        expect_none(
            "ids dead that were to live",
            dead.len(),
            format!("{dead:?}"),
        );
        let stored = &self.wrongly_stored;
        expect_none(
            "ids stored that are not online",
            stored.len(),
            format!("{stored:?}"),
        );
        expect_none(
            "messages left in queues",
            self.waiting as usize,
            String::new(),
        );
        failures
    }
}
