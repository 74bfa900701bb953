//! Access to the database: the pool, the migrations, and the watch over its health.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime,
};
use opentelemetry::KeyValue;
use thiserror::Error;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::database_url::DatabaseUrl;
use crate::health::Dependency;
use crate::migration::{MigrationError, migrate};
use crate::shutdown::Shutdown;
use crate::trace::attribute::DB_RESPONSE_STATUS_CODE;
use crate::trace::database::Statement;
use crate::trace::{Spans, Traces};

crate::settings! {
    /// Settings of the access to the database.
    pub struct DatabaseSettings {
        /// Address and credentials of PostgreSQL: postgres://user:password@host:port/database.
        /// Several hosts, host:port,host:port, are tried in turn, with
        /// ?target_session_attrs=read-write until one can be written to. With ?sslmode=require the
        /// connection is encrypted and the server's certificate checked against the system's
        /// authorities.
        pub database_url: DatabaseUrl = "postgres://postgres:postgres@localhost:5432/postgres",
        /// How many connections to the database there may be.
        pub database_pool_size: NonZeroUsize = "4",
        /// How long one statement, or getting a connection for it, may take before it is given up
        /// and tried again.
        pub database_timeout: Duration = "5s",
    } with {}
}

/// Why a statement was not carried out, or is not known to have been.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No connection.
    #[error("no connection to the database: {0}")]
    Pool(#[from] PoolError),
    /// The statement failed. The library's own text says only "db error".
    #[error("{}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
    /// The statement took longer than `database_timeout`.
    #[error("the database took too long")]
    Timeout,
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!(
            "{}: {} ({})",
            error.severity(),
            error.message(),
            error.code().code()
        ),
        None => error.to_string(),
    }
}

impl StoreError {
    /// The SQL state, if it is the database that failed.
    fn state(&self) -> Option<&str> {
        match self {
            Self::Statement(error) => error.code().map(SqlState::code),
            Self::Pool(_) | Self::Timeout => None,
        }
    }

    /// The kind of failure, as traces name it.
    fn kind(&self) -> &str {
        self.state().unwrap_or(match self {
            Self::Pool(_) => "no connection",
            Self::Statement(_) => "connection lost",
            Self::Timeout => "timeout",
        })
    }

    /// Marks the span of what failed so.
    fn mark(&self, span: &mut Spans) {
        let state = self.state();
        span.set(|| {
            let state = state.map(|state| KeyValue::new(DB_RESPONSE_STATUS_CODE, state.to_owned()));
            state.into_iter().collect()
        });
        span.fail(self.kind(), self);
    }

    /// Whether the database can only be read: the primary that the connection led to is none any
    /// more.
    fn is_read_only(&self) -> bool {
        matches!(self, Self::Statement(error)
            if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION))
    }

    /// Whether the statement lost against a concurrent one, and is worth trying again at once.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Statement(error) = self else {
            return false;
        };
        matches!(
            error.code(),
            Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE)
        )
    }
}

/// The database. Clones share one pool.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
    name: Arc<str>,
    timeout: Duration,
    dependency: Dependency,
}

impl Store {
    /// Makes the pool; connections are made when they are needed.
    ///
    /// # Errors
    /// The system's certificate authorities cannot be used.
    pub fn new(
        process: &str,
        settings: &DatabaseSettings,
        dependency: Dependency,
    ) -> anyhow::Result<Self> {
        let timeout = settings.database_timeout;
        let mut config = settings.database_url.config().clone();
        let name = config.get_dbname().unwrap_or_default().into();
        // A host that does not answer leaves time for the others.
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(u32::MAX);
        config
            .application_name(process)
            .connect_timeout(timeout / hosts.max(1));
        let pool = Pool::builder(manager(config)?)
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
        let client = self.pool.get().await?;
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
            let disconnected = match self.pool.get().await {
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
                Err(error) => StoreError::Pool(error),
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

fn manager(config: Config) -> anyhow::Result<Manager> {
    let recycling = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    if config.get_ssl_mode() != SslMode::Require {
        return Ok(Manager::from_config(config, NoTls, recycling));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_root_certificates(system_authorities()?)
        .with_no_client_auth();
    Ok(Manager::from_config(
        config,
        MakeRustlsConnect::new(tls),
        recycling,
    ))
}

fn system_authorities() -> anyhow::Result<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    anyhow::ensure!(
        added > 0,
        "the system has no certificate authorities to check the database with"
    );
    Ok(roots)
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
