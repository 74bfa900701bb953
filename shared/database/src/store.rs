//! Access to the database: the pool, and statements that are bounded in time.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolError, Timeouts};
use lifecycle::Dependency;
use parking_lot::Mutex;
use settings::{Name, Password, Secret, SecretError};
use time::OffsetDateTime;
use time::macros::datetime;
use tls::TrustSettings;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
pub use tokio_postgres::types::Type;

use crate::connection::Connection;
use crate::connector::Connector;
use crate::database_url::DatabaseUrl;
use crate::error::StoreError;
use crate::schema::Look;

settings::settings! {
    /// Settings of the access to the database.
    pub struct DatabaseSettings {
        /// Address and credentials of PostgreSQL:
        /// postgres://user:password@host:port/database. Several hosts (host:port,host:port)
        /// are tried in turn until one accepts writes. ?sslmode=require or verify-full
        /// encrypts the connection and checks the server's certificate and host name;
        /// verify-ca checks the certificate only. The authorities are those of the system
        /// and of CA_FILE, or those in the file sslrootcert. sslcert and sslkey name the
        /// files of a client certificate. Files are read again at each connection.
        pub database_url: Secret<DatabaseUrl> =
            "postgres://postgres:postgres@localhost:5432/postgres",
        /// User of PostgreSQL, in place of the one in DATABASE_URL, as it is: nothing is
        /// percent-encoded.
        pub database_username: Secret<Name> = "",
        /// Password of the user, in place of the one in DATABASE_URL, as it is.
        pub database_password: Secret<Password> = "",
        /// Maximum number of connections to the database.
        pub database_pool_size: NonZeroUsize = "4" in "1"..="1000",
        /// How long one statement, or the wait for a free connection, may take before it is
        /// given up and tried again. With several servers, each is given up when it is
        /// silent for its share of this time.
        pub database_timeout: Duration = "5s" in "100ms"..="1h",
    } with {
        /// Settings of whom connections trust.
        pub trust: TrustSettings,
    }
}

impl DatabaseSettings {
    /// Address and credentials, as they are now.
    pub(crate) fn address(&self) -> Result<DatabaseUrl, SecretError> {
        let username = self.database_username.get()?;
        let password = self.database_password.get()?;
        let url = self.database_url.get()?;
        Ok(url.with_login(username.given(), password.given()))
    }
}

/// A parameter of a statement, with its type. With types the server needs no named statement, which
/// another connection of a pooler would not know, or would know already.
pub type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The parameters of a statement.
pub type Parameters<'a> = &'a [Parameter<'a>];

/// A time by the database's clock, and when its answer came.
#[derive(Clone, Copy)]
struct Reading {
    shown: OffsetDateTime,
    answered: Instant,
}

/// The database. Clones share one pool.
#[derive(Clone)]
pub struct Store {
    pool: Pool<Connector>,
    pub(crate) name: Arc<str>,
    timeout: Duration,
    pub(crate) dependency: Dependency,
    reading: Arc<Mutex<Option<Reading>>>,
    /// How many statements have failed and are tried again.
    pub(crate) retries: watch::Sender<usize>,
}

impl Store {
    /// Makes the pool. Connections are made when they are needed.
    ///
    /// # Errors
    /// The address cannot be read, or the pool not be set up.
    pub fn new(
        process: &str,
        settings: &DatabaseSettings,
        dependency: Dependency,
    ) -> anyhow::Result<Self> {
        let timeout = settings.database_timeout;
        let url = settings.address()?;
        if url.is_exposed() {
            tracing::warn!(
                "DATABASE_URL leads to another machine without TLS, so that others on the way can \
                 read passwords and rows; sslmode=verify-full encrypts, and CA_FILE adds authorities"
            );
        }
        // The bounds on making a connection are the connector's.
        let pool = Pool::builder(Connector::new(settings, process))
            .max_size(settings.database_pool_size.get())
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts::wait_millis(
                u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            ))
            .build()
            .context("building the database pool")?;
        Ok(Self {
            pool,
            name: url.config().get_dbname().unwrap_or_default().into(),
            timeout,
            dependency: dependency.at(&url.places()),
            reading: Arc::default(),
            retries: watch::Sender::default(),
        })
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Runs `work` on a connection of the pool, bounded in time. If the time is over, or if this future is
    /// dropped, the work is cancelled at the server too, and the connection is not used again. A connection
    /// to a server that can only be read is not used again either.
    ///
    /// # Errors
    /// [`StoreError`]. After all errors but a conflict it is unknown whether the work was carried out.
    pub async fn run<T>(
        &self,
        work: impl AsyncFnOnce(&Connection) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, StoreError> {
        let lease = Lease(Some(self.connection().await?));
        let Some(connection) = &lease.0 else {
            return Err(StoreError::Timeout);
        };
        let result = self.bounded(work(connection)).await;
        match &result {
            Ok(_) if connection.was_unreplicated() => {
                lease.give_back();
                return Err(StoreError::Unreplicated);
            }
            Err(StoreError::Timeout) => return result,
            Err(error) if error.is_read_only() => connection.retire(),
            _ => {}
        }
        lease.give_back();
        result
    }

    /// Waits for `work` for as long as a statement may take.
    pub(crate) async fn bounded<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        let done = timeout(self.timeout, work).await;
        done.map_err(|_| StoreError::Timeout)?
            .map_err(StoreError::Statement)
    }

    async fn connection(&self) -> Result<Object<Connector>, StoreError> {
        match self.pool.get().await {
            Ok(connection) => Ok(connection),
            Err(PoolError::Backend(error)) => {
                Err(StoreError::NoConnection(error.explained().await))
            }
            Err(_) => Err(StoreError::NoConnection(
                "all connections are in use".to_owned(),
            )),
        }
    }

    /// A connection outside the pool.
    pub(crate) async fn connect(&self) -> Result<Connection, StoreError> {
        match self.pool.manager().connect().await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(StoreError::NoConnection(error.explained().await)),
        }
    }

    /// The time by the database's clock at which a statement that begins now is given up. A network or a
    /// proxy may deliver the statement later. Then it must do nothing, because another attempt may have
    /// been made.
    #[must_use]
    pub fn deadline(&self) -> OffsetDateTime {
        const NEVER: OffsetDateTime = datetime!(9999-12-31 0:00 UTC);
        let reading = *self.reading.lock();
        let deadline = reading.and_then(|Reading { shown, answered }| {
            let left = answered.elapsed() + self.timeout;
            shown.checked_add(time::Duration::try_from(left).ok()?)
        });
        deadline.unwrap_or(NEVER)
    }

    pub(crate) async fn look(&self) -> Result<Look, StoreError> {
        let look = self
            .run(async |connection| {
                let look = Look::at(connection).await?;
                if look.is_read_only {
                    connection.retire();
                }
                Ok(look)
            })
            .await?;
        let reading = Reading {
            shown: look.time,
            answered: Instant::now(),
        };
        *self.reading.lock() = Some(reading);
        Ok(look)
    }
}

/// A connection of the pool with a statement under way. The statement is cancelled when this is dropped.
struct Lease(Option<Object<Connector>>);

impl Lease {
    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            Object::take(connection).abandon();
        }
    }
}
