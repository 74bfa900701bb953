//! The statement that deletes the rows of messages at their expiry.
//!
//! A message names rows, and the `last_seen` up to which they are to be deleted: rows that were seen again
//! since stay, so that a duplicate, late or reordered message does no harm. The database's clock decides
//! whether a row has expired.

use std::collections::BTreeMap;
use std::time::Duration;

use database::{Parameters, Statement, Store, StoreError, Type};
use messages::DeleteBatch;
use metric_definitions::Exemplar;
use time::OffsetDateTime;
use tokio_postgres::Row;

use crate::metrics::{DeletedBy, LAST_LATENESS, LATENESS, OBJECTS_DELETED};

/// Rows are locked in the order of their ids, as the fetchers do, so that the two never deadlock.
/// `now()` is when the statement began: what has expired by then is deleted after it expired.
pub(crate) const DELETE: Statement = Statement {
    operation: "DELETE",
    table: "objects",
    text: "
    with message as (
        select * from unnest($1::bigint[], $2::timestamptz[]) as m(id, last_seen)
    ),
    due as (
        select o.id
        from objects o join message m using (id)
        where o.last_seen <= m.last_seen and o.expires_at <= now()
        order by o.id
        for update of o
    ),
    deleted as (
        delete from objects o using due
        where o.id = due.id and o.expires_at <= now()
        returning o.expires_at
    ),
    early as (
        select min(o.expires_at) - now() as wait
        from objects o join message m using (id)
        where o.last_seen <= m.last_seen and o.expires_at > now()
    ),
    late as (
        select extract(epoch from now() - expires_at)::float8 as seconds, count(*) as rows
        from deleted
        group by expires_at
    )
    select
        (select coalesce(array_agg(seconds order by seconds), '{}') from late),
        (select coalesce(array_agg(rows order by seconds), '{}') from late),
        (select extract(epoch from wait)::float8 from early)",
};

/// Rows that were deleted, and had expired together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedRows {
    /// How long the rows had been expired when the statement began.
    pub lateness: Duration,
    /// How many rows.
    pub count: u64,
}

/// What one statement did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The most overdue rows are the last.
    pub deleted: Vec<DeletedRows>,
    /// How long until the first of the rows that have not expired yet does.
    pub early: Option<Duration>,
}

/// The rows that messages name: ids in ascending order, and the `last_seen` up to which each is to be
/// deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueRows {
    ids: Vec<i64>,
    last_seen: Vec<OffsetDateTime>,
}

impl DueRows {
    /// Takes each id once, with its latest `last_seen`.
    pub fn of<'a>(batches: impl IntoIterator<Item = &'a DeleteBatch>) -> Self {
        let mut latest: BTreeMap<i64, OffsetDateTime> = BTreeMap::new();
        for batch in batches {
            for id in &batch.object_ids {
                let last_seen = latest.entry(id.0).or_insert(batch.last_seen);
                *last_seen = batch.last_seen.max(*last_seen);
            }
        }
        let (ids, last_seen) = latest.into_iter().unzip();
        Self { ids, last_seen }
    }

    pub(crate) fn count(&self) -> usize {
        self.ids.len()
    }
}

/// Deletes the rows that have expired and were not seen again, in one statement.
///
/// # Errors
/// The statement was not carried out, or nobody knows whether it was. To repeat it does no harm.
pub async fn delete(store: &Store, rows: &DueRows) -> Result<Deletion, StoreError> {
    store
        .run(async |client| {
            let parameters: Parameters = &[
                (&rows.ids, Type::INT8_ARRAY),
                (&rows.last_seen, Type::TIMESTAMPTZ_ARRAY),
            ];
            let row = client.query_typed_one(DELETE.text, parameters).await?;
            let early: Option<f64> = row.try_get(2)?;
            Ok(Deletion {
                deleted: deleted_rows(&row)?,
                early: early.and_then(duration),
            })
        })
        .await
}

/// Reads what a statement deleted from its first two columns: lateness in seconds, and number of rows.
pub(crate) fn deleted_rows(row: &Row) -> Result<Vec<DeletedRows>, tokio_postgres::Error> {
    let (seconds, counts): (Vec<f64>, Vec<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let rows = |(seconds, count): (f64, i64)| DeletedRows {
        lateness: duration(seconds).unwrap_or_default(),
        count: count.unsigned_abs(),
    };
    Ok(seconds.into_iter().zip(counts).map(rows).collect())
}

/// Counts deleted rows. Their commit was known `elapsed` after the statement began.
pub(crate) fn count_deleted(
    leg: DeletedBy,
    deleted: &[DeletedRows],
    elapsed: Duration,
    exemplar: Option<Exemplar>,
) {
    for deleted in deleted {
        let (by, rows) = (deleted.lateness + elapsed, deleted.count);
        OBJECTS_DELETED.of(&leg).increment(rows);
        LATENESS.of(&leg).record_many(by, rows, exemplar);
        LAST_LATENESS.set(by);
    }
}

fn duration(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use messages::ObjectId;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_id_in_several_messages_is_deleted_up_to_the_latest() {
        let (early, late) = (
            datetime!(2026-01-01 00:00 UTC),
            datetime!(2026-01-01 00:01 UTC),
        );
        let batch = |last_seen, ids: &[i64]| DeleteBatch {
            last_seen,
            expires_at: None,
            object_ids: ids.iter().copied().map(ObjectId).collect(),
        };
        let rows = DueRows::of(&[batch(late, &[3, 1]), batch(early, &[2, 3])]);
        assert_eq!(
            rows,
            DueRows {
                ids: vec![1, 2, 3],
                last_seen: vec![late, early, late]
            }
        );
    }
}
