//! The tests' own view of the database.

use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use crate::wait::eventually;

/// Connects.
///
/// # Errors
/// The server does not answer, or it does not let the user in.
pub async fn connect(database_url: &str) -> anyhow::Result<Client> {
    let config: tokio_postgres::Config = database_url.parse()?;
    let (client, connection) =
        tokio::time::timeout(Duration::from_secs(5), config.connect(NoTls)).await??;
    tokio::spawn(connection);
    Ok(client)
}

async fn connected(database_url: &str) -> Client {
    let connected = async || connect(database_url).await.ok();
    eventually("the database to answer", connected).await
}

/// Puts a clock that can be set before that of the database: what is called `now` and `clock_timestamp`
/// in a statement. The table of the objects is there, and connections that are there are closed.
pub async fn replace_clock(client: &Client) {
    client
        .batch_execute(
            "create table clock_ahead (by interval);
             insert into clock_ahead values ('0 s');
             create function now() returns timestamptz stable
                 language sql as 'select pg_catalog.now() + by from clock_ahead';
             create function clock_timestamp() returns timestamptz volatile
                 language sql as 'select pg_catalog.clock_timestamp() + by from clock_ahead';
             do $$ begin
                 execute format('alter database %I set search_path = public, pg_catalog',
                     current_database());
             end $$;
             select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and pid <> pg_backend_pid();",
        )
        .await
        .unwrap();
}

/// Sets a clock that was put before that of the database.
pub async fn set_clock_ahead(client: &Client, by: &str) {
    let set = "update clock_ahead set by = $1::text::interval";
    client.execute(set, &[&by]).await.unwrap();
}

/// A database of one test's own.
pub struct Database {
    /// Address for the pipeline's processes.
    pub url: String,
    /// A connection of the tests' own.
    pub client: Client,
}

impl Database {
    /// Creates the database `name` on the server at `server_url`.
    pub async fn create(server_url: &str, name: &str) -> Self {
        let admin = connected(server_url).await;
        admin
            .batch_execute(&format!("create database {name}"))
            .await
            .unwrap();
        let (server, _) = server_url.rsplit_once('/').unwrap();
        let url = format!("{server}/{name}");
        let client = connected(&url).await;
        Self { url, client }
    }

    /// Drops the database `name`, also while clients are connected to it, and the role of that name.
    pub async fn drop(server_url: &str, name: &str) {
        let admin = connected(server_url).await;
        for what in ["database", "role"] {
            let options = if what == "database" {
                "with (force)"
            } else {
                ""
            };
            let drop = format!("drop {what} if exists {name} {options}");
            admin.batch_execute(&drop).await.unwrap();
        }
    }

    /// Drops the database and creates it again, empty, as when an operator restores one.
    pub async fn recreate(&mut self) {
        let (server, name) = self.url.rsplit_once('/').unwrap();
        let server_url = format!("{server}/postgres");
        let admin = connected(&server_url).await;
        admin
            .batch_execute(&format!("drop database {name} with (force)"))
            .await
            .unwrap();
        *self = Self::create(&server_url, name).await;
    }

    /// Makes a role, named as the database is, that may connect and nothing else. It is dropped with the
    /// database. Returns its URL.
    pub async fn create_role(&self) -> String {
        let (_, name) = self.url.rsplit_once('/').unwrap();
        let (_, place) = self.url.rsplit_once('@').unwrap();
        let create = format!(
            "revoke create on schema public from public;
             create role {name} login password 'password'"
        );
        self.client.batch_execute(&create).await.unwrap();
        format!("postgres://{name}:password@{place}")
    }

    /// Lets the role do what the processes do with the rows, and nothing else.
    pub async fn grant_rows(&self) {
        let (_, name) = self.url.rsplit_once('/').unwrap();
        let grant = format!("grant select, insert, update, delete on objects to {name}");
        self.client.batch_execute(&grant).await.unwrap();
    }

    /// The stored ids, in ascending order. None as long as there is no table.
    pub async fn ids(&self) -> Vec<i64> {
        match self
            .client
            .query("select id from objects order by id", &[])
            .await
        {
            Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
            Err(error)
                if error.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_TABLE) =>
            {
                Vec::new()
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Waits until exactly these ids are stored.
    pub async fn until_ids(&self, ids: &[i64]) {
        eventually(&format!("the rows {ids:?}"), async || {
            (self.ids().await == ids).then_some(())
        })
        .await;
    }

    /// The one number that a query returns.
    pub async fn number(&self, query: &str) -> i64 {
        self.client.query_one(query, &[]).await.unwrap().get(0)
    }

    /// Records each deletion with its lateness, at its commit, by the database's clock.
    pub async fn record_deletions(&self) {
        self.client
            .batch_execute(
                "create table deletions (id bigint, late double precision);
                 create function record_deletion() returns trigger language plpgsql security definer as $$
                 begin
                     insert into deletions
                     values (old.id, extract(epoch from clock_timestamp() - old.expires_at));
                     return null;
                 end $$;
                 create constraint trigger record_deletion after delete on objects
                 deferrable initially deferred for each row execute function record_deletion();",
            )
            .await
            .unwrap();
    }
}
