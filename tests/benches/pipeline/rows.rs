//! When the rows of callbacks are committed, as a reader sees it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tests::wait::eventually;
use tests::world::World;
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::load::CALLBACK;

/// When rows of a callback were seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) first: Instant,
    pub(crate) last: Instant,
    count: u32,
}

/// The callbacks of which rows were seen, by their number.
#[derive(Clone, Default)]
pub(crate) struct Rows(Arc<Mutex<HashMap<i64, Seen>>>);

impl Rows {
    /// Sees the rows from now on for whose `id` a condition of SQL holds. `callback` is the number of its
    /// callback there.
    pub(crate) async fn watch(world: &World, condition: &str) -> Self {
        let trigger = format!(
            "create function tell_rows() returns trigger language plpgsql as $$
             begin
                 perform pg_notify('rows', callback || ' ' || count(*))
                 from (select id, id / {CALLBACK} as callback from stored) as rows
                 where {condition} group by callback;
                 return null;
             end $$;
             create trigger tell_rows after insert on objects referencing new table as stored
             for each statement execute function tell_rows();"
        );
        world.database.client.batch_execute(&trigger).await.unwrap();
        let rows = Self::default();
        rows.listen(&world.database.url).await;
        rows
    }

    async fn listen(&self, database_url: &str) {
        let config: tokio_postgres::Config = database_url.parse().unwrap();
        let (client, mut connection) = config.connect(NoTls).await.unwrap();
        let rows = self.clone();
        tokio::spawn(async move {
            let next = |context: &mut std::task::Context<'_>| connection.poll_message(context);
            let mut messages = futures::stream::poll_fn(next);
            while let Some(Ok(message)) = futures::StreamExt::next(&mut messages).await {
                if let AsyncMessage::Notification(notification) = message {
                    rows.see(notification.payload());
                }
            }
        });
        client.batch_execute("listen rows").await.unwrap();
        // The connection lasts as long as its client, and that as long as the run.
        tokio::spawn(async move {
            let _client = client;
            std::future::pending::<()>().await;
        });
    }

    fn see(&self, notification: &str) {
        let now = Instant::now();
        let (callback, count) = notification.split_once(' ').unwrap();
        let count: u32 = count.parse().unwrap();
        let mut callbacks = self.0.lock().unwrap();
        let seen = callbacks.entry(callback.parse().unwrap()).or_insert(Seen {
            first: now,
            last: now,
            count: 0,
        });
        seen.last = now;
        seen.count += count;
    }

    /// Waits until `callbacks` callbacks have `each` rows each, for as long as there are more and more of them.
    /// Returns them in the order of the callbacks.
    pub(crate) async fn until_seen(&self, callbacks: usize, each: u32) -> Vec<Seen> {
        let whole = || {
            let callbacks = self.0.lock().unwrap();
            callbacks.values().filter(|seen| seen.count == each).count()
        };
        loop {
            let have = whole();
            if have == callbacks {
                break;
            }
            eventually("more rows", async || (whole() > have).then_some(())).await;
        }
        let seen = self.0.lock().unwrap();
        let numbers = 0..i64::try_from(callbacks).unwrap();
        numbers.map(|number| seen[&number]).collect()
    }
}
