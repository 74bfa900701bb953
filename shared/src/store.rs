//! Access to the database: the pool, the migrations, and the watch over its health.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
    TimeoutType,
};
use futures::future::join_all;
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;
pub use tokio_postgres::types::Type;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::database_url::{DatabaseUrl, POSTGRES};
use crate::health::Dependency;
use crate::migration::{MigrationError, migrate};
use crate::reason::{reason, stranger};
use crate::shutdown::Shutdown;
pub use crate::store_error::StoreError;
use crate::trace::Traces;
use crate::trace::database::Statement;

crate::settings! {
    /// Settings of the access to the database.
    pub struct DatabaseSettings {
        /// Address and credentials of PostgreSQL: postgres://user:password@host:port/database.
        /// Several hosts, host:port,host:port, are tried in turn, with
        /// ?target_session_attrs=read-write until one can be written to. With ?sslmode=require, or
        /// verify-full, the connection is encrypted and the server's certificate checked for its
        /// host, with verify-ca for any host, by the system's authorities, or by those in the file
        /// sslrootcert. sslcert and sslkey name the files of a certificate to show.
        pub database_url: DatabaseUrl = "postgres://postgres:postgres@localhost:5432/postgres",
        /// How many connections to the database there may be.
        pub database_pool_size: NonZeroUsize = "4" in "1"..="1000",
        /// How long one statement, or getting a connection for it, may take before it is given up
        /// and tried again.
        pub database_timeout: Duration = "5s" in "100ms"..="1h",
    } with {}
}

/// Parameters of a statement, each with its type. The server then keeps no statement under a name, which
/// another connection of a pooler would not know, or know already.
pub type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// The database. Clones share one pool.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    url: DatabaseUrl,
    name: Arc<str>,
    timeout: Duration,
    dependency: Dependency,
}

impl Store {
    /// Makes the pool; connections are made when they are needed.
    ///
    /// # Errors
    /// The pool cannot be set up.
    pub fn new(
        process: &str,
        settings: &DatabaseSettings,
        dependency: Dependency,
    ) -> anyhow::Result<Self> {
        let timeout = settings.database_timeout;
        let url = settings.database_url.clone();
        if url.is_exposed() {
            tracing::warn!(
                "DATABASE_URL leads to another machine without TLS, so that others on the way can \
                 read passwords and rows; sslmode=verify-full encrypts"
            );
        }
        let mut config = url.config().clone();
        let name = config.get_dbname().unwrap_or_default().into();
        // A host that does not answer leaves time for the others.
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX);
        config
            .application_name(process)
            .connect_timeout(timeout / hosts.max(1));
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = match url.tls() {
            None => Manager::from_config(config, NoTls, recycling),
            Some(tls) => {
                Manager::from_config(config, MakeRustlsConnect::new(tls.clone()), recycling)
            }
        };
        let pool = Pool::builder(manager)
            .max_size(settings.database_pool_size.get())
            .runtime(Runtime::Tokio1)
            .timeouts(deadpool_postgres::Timeouts {
                wait: Some(timeout),
                create: Some(timeout),
                recycle: Some(timeout),
            })
            .post_create(limit_statements(timeout))
            .build()
            .context("building the database pool")?;
        Ok(Self {
            pool,
            url,
            name,
            timeout,
            dependency,
        })
    }

    /// Runs `work` on a connection of the pool, bounded in time, and notes whether the database
    /// is up. A connection that did not answer in time, or cannot write, is not used again.
    ///
    /// # Errors
    /// [`StoreError`]; after any but a conflict it is unknown whether the work was carried out.
    pub async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let result = self.run_unwatched(work).await;
        match &result {
            Ok(_) => self.dependency.up(),
            Err(error) if error.is_conflict() => {}
            Err(error) => self.dependency.down(error),
        }
        result
    }

    async fn run_unwatched<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let client = self.connection().await?;
        let result = match tokio::time::timeout(self.timeout, work(&client)).await {
            Ok(result) => result.map_err(StoreError::Statement),
            Err(_) => Err(StoreError::Timeout),
        };
        let is_of_no_use =
            |error: &StoreError| matches!(error, StoreError::Timeout) || error.is_read_only();
        if result.as_ref().is_err_and(is_of_no_use) {
            drop(Client::take(client));
        }
        result
    }

    async fn connection(&self) -> Result<Client, StoreError> {
        match self.pool.get().await {
            Ok(client) => Ok(client),
            Err(error) => Err(StoreError::NoConnection(self.explained(&error).await)),
        }
    }

    /// Where the connection was to lead and why there is none, or what answers there if that is no
    /// database.
    async fn explained(&self, error: &PoolError) -> String {
        let places = self.url.places();
        let names: Vec<String> = places
            .iter()
            .map(|(host, port)| format!("{host}:{port}"))
            .collect();
        let (why, is_answer) = match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                (reason(error), error.as_db_error().is_some())
            }
            PoolError::Timeout(TimeoutType::Wait) => {
                ("all connections are in use".to_owned(), true)
            }
            PoolError::Timeout(_) => (format!("no answer within {:?}", self.timeout), false),
            error => (reason(error), true),
        };
        let strangers = if is_answer {
            Vec::new()
        } else {
            let asked = places.iter();
            join_all(asked.map(|(host, port)| stranger(host, *port, POSTGRES))).await
        };
        let why = strangers.into_iter().flatten().next().unwrap_or(why);
        match names.join(",") {
            names if names.is_empty() => format!("its socket: {why}"),
            names => format!("{names}: {why}"),
        }
    }

    /// Tries until `attempt` has carried out `statement`, on `rows` rows, however long the database is
    /// away. Its span is in each of the `traces` that the rows belong to; an attempt that fails has one
    /// of its own, and all further ones have one together, so that an outage does not flood them.
    pub async fn until_done<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        traces: &Traces,
        statement: &Statement,
        rows: usize,
        mut attempt: impl FnMut() -> F,
    ) -> T {
        const PAUSE: Duration = Duration::from_millis(250);
        let start = || traces.start(|| statement.span(&self.name, rows));
        let mut span = start();
        let mut is_first = true;
        loop {
            let error = match attempt().await {
                Ok(value) => {
                    span.done();
                    return value;
                }
                Err(error) => error,
            };
            if std::mem::take(&mut is_first) {
                error.mark(&mut span);
                span = start();
            }
            span.fails_unless_done("given up", &error);
            if error.is_conflict() {
                metrics::counter!("database_conflicts_total").increment(1);
            } else {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Brings the schema up to date, waiting for the database where it is away, and ends early when
    /// the shut-down begins. Any number of processes may do so at once.
    ///
    /// # Errors
    /// A migration failed, was cut off, or differs from the one that was applied.
    pub async fn migrate(&self, shutdown: &Shutdown) -> anyhow::Result<()> {
        tokio::select! {
            result = self.migrate_when_connected() => result,
            () = shutdown.begun() => Ok(()),
        }
    }

    async fn migrate_when_connected(&self) -> anyhow::Result<()> {
        const PAUSE: Duration = Duration::from_millis(500);
        loop {
            let disconnected = match self.connection().await {
                Ok(client) => match migrate(client).await {
                    Ok(()) => {
                        self.dependency.up();
                        return Ok(());
                    }
                    Err(MigrationError::Lock(error)) if error.as_db_error().is_none() => {
                        error.into()
                    }
                    Err(error) => {
                        return Err(anyhow::Error::new(error).context("migrating the database"));
                    }
                },
                Err(error) => error,
            };
            self.dependency.down(&disconnected);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks the database every two seconds whether it is there, until the shut-down, so that
    /// `/readyz` is right also when nothing is stored.
    pub async fn watch(&self, shutdown: &Shutdown) {
        const INTERVAL: Duration = Duration::from_secs(2);
        while shutdown.sleep(INTERVAL).await {
            tokio::select! {
                answer = self.run(async |client| client.simple_query("select 1").await) => {
                    if let Err(error) = answer {
                        tracing::debug!(%error, "the database did not answer");
                    }
                }
                () = shutdown.begun() => {}
            }
        }
    }
}

/// The server, too, gives a statement up: one that was abandoned here must not go on there.
fn limit_statements(timeout: Duration) -> Hook {
    Hook::async_fn(move |client, _| {
        Box::pin(async move {
            let limit = format!("set statement_timeout = {}", timeout.as_millis());
            match tokio::time::timeout(timeout, client.batch_execute(&limit)).await {
                Ok(Ok(())) => {
                    metrics::counter!("database_connections_opened_total").increment(1);
                    Ok(())
                }
                Ok(Err(error)) => Err(HookError::Backend(error)),
                Err(_) => Err(HookError::message("the database took too long")),
            }
        })
    })
}
