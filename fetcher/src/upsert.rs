//! The statement that stores the objects of a batch.

use std::time::{Duration, Instant};

use broker::Delay;
use database::{Parameter, Statement, Store, StoreError, Type};
use time::OffsetDateTime;

use crate::object::Object;

/// After a wait for the database that was longer than this, objects are stored as of when they were seen.
/// A shorter wait is the time that storing takes.
const DELAY: Duration = Duration::from_secs(1);

/// Ids are sorted: two statements that lock the same rows in different orders deadlock. A row
/// that was stored by a later statement already is left as it is, so `last_seen` never goes
/// backwards; the message of that statement covers it. A row that was seen in the future was stored
/// while the database's clock was ahead. `$3` is how many milliseconds ago the objects were seen. After
/// its deadline, `$4`, the statement does nothing.
///
/// The commit is on disk when it is reported, also where the server says otherwise by default: the
/// message is acked then. Stricter settings stand.
pub const UPSERT: Statement = Statement {
    operation: "INSERT",
    table: "objects",
    text: "
    with moment as (
        select now() - $3::bigint * interval '1 millisecond' as seen
    ),
    stored as (
        insert into objects as o (id, last_seen, expires_at)
        select id, seen, seen + $2::bigint * interval '1 millisecond'
        from unnest($1::bigint[]) as id, moment
        where now() < $4
        on conflict (id) do update
            set last_seen = excluded.last_seen, expires_at = excluded.expires_at
            where o.last_seen < excluded.last_seen
                or o.last_seen > clock_timestamp() + interval '1 second'
        returning 1
    )
    select
        seen,
        seen + $2::bigint * interval '1 millisecond',
        now() < $4,
        (select count(*) from stored),
        (
            select set_config('synchronous_commit', 'on', true)
            where current_setting('synchronous_commit') = 'off'
        )
    from moment",
};

/// The parameters of [`UPSERT`].
pub struct UpsertParameters {
    ids: Vec<i64>,
    ttl: i64,
    age: i64,
    deadline: OffsetDateTime,
}

impl UpsertParameters {
    /// For `objects` that live for `ttl` ms and were seen `age` ms ago.
    #[must_use]
    pub fn new(objects: &[Object], ttl: i64, age: i64, deadline: OffsetDateTime) -> Self {
        Self {
            ids: objects.iter().map(|object| object.id.0).collect(),
            ttl,
            age,
            deadline,
        }
    }

    /// The parameters in the order of their numbers.
    #[must_use]
    pub fn typed(&self) -> [Parameter<'_>; 4] {
        [
            (&self.ids, Type::INT8_ARRAY),
            (&self.ttl, Type::INT8),
            (&self.age, Type::INT8),
            (&self.deadline, Type::TIMESTAMPTZ),
        ]
    }
}

/// The times of the rows of one statement, by the database's clock.
#[derive(Clone, Copy)]
pub(crate) struct RowTimes {
    pub(crate) last_seen: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
}

/// Stores the rows of objects that were seen at `seen`. Returns none if they have expired since.
pub(crate) async fn upsert(
    store: &Store,
    objects: &[Object],
    seen: Instant,
    object_ttl: Delay,
) -> Result<Option<RowTimes>, StoreError> {
    let ttl = i64::from(object_ttl.as_millis());
    let waited = seen.elapsed();
    let age = if waited < DELAY {
        0
    } else {
        i64::try_from(waited.as_millis()).unwrap_or(i64::MAX)
    };
    if age >= ttl {
        return Ok(None);
    }
    let run = store.run(async |client| {
        let parameters = UpsertParameters::new(objects, ttl, age, store.deadline());
        let row = client
            .query_typed_one(UPSERT.text, &parameters.typed())
            .await?;
        let times = RowTimes {
            last_seen: row.try_get(0)?,
            expires_at: row.try_get(1)?,
        };
        Ok((times, row.try_get(2)?))
    });
    match run.await? {
        (times, true) => Ok(Some(times)),
        (_, false) => Err(StoreError::Late),
    }
}
