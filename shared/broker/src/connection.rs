//! The way to the broker: its address, its topology, and steps with it that are bounded in time.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use parking_lot::Mutex;
use settings::{Name, Password, Secret, SecretError};
use tcp::{Lifeline, advised, dial, reason, stranger};
use thiserror::Error;
use tls::{CertificateFile, Client, Identity, KeyFile, TrustSettings, check_pair};

use crate::amqp_url::AmqpUrl;
use crate::open::open;
use crate::queue::QueuePrefix;
use crate::topology::Topology;

settings::settings! {
    /// Settings of the connection to the broker.
    pub struct BrokerSettings {
        /// Address and credentials of RabbitMQ: amqp://user:password@host:port/vhost, or amqps://.
        pub amqp_url: Secret<AmqpUrl> = "amqp://guest:guest@localhost:5672/%2f",
        /// User of RabbitMQ, in place of the one in AMQP_URL, as it is: nothing is
        /// percent-encoded.
        pub amqp_username: Secret<Name> = "",
        /// Password of the user, in place of the one in AMQP_URL, as it is.
        pub amqp_password: Secret<Password> = "",
        /// File with a client certificate, then those of its issuers (PEM), for a broker that
        /// asks for one. Read again at each connection.
        pub amqp_certificate_file: CertificateFile = "",
        /// File with the private key of AMQP_CERTIFICATE_FILE (PEM).
        pub amqp_key_file: KeyFile = "",
        /// Prefix of the names of queues and exchanges, so that several pipelines can share
        /// a broker.
        pub queue_prefix: QueuePrefix = "",
        /// How long one step with the broker (connect, declare, ack) may take, and how long
        /// the broker may confirm nothing, before the connection is replaced.
        pub broker_timeout: Duration = "5s" in "100ms"..="10m",
    } with {
        /// Settings of whom connections trust.
        pub trust: TrustSettings,
    } check certificate
}

fn certificate(settings: &BrokerSettings) -> Result<(), String> {
    let (certificate, key) = (&settings.amqp_certificate_file, &settings.amqp_key_file);
    check_pair(
        ("AMQP_CERTIFICATE_FILE", certificate),
        ("AMQP_KEY_FILE", key),
    )?;
    let url = settings.amqp_url.get();
    let url = url.map_err(|error| error.to_string())?;
    if certificate.path().is_some() && !url.is_encrypted() {
        return Err("AMQP_CERTIFICATE_FILE needs an AMQP_URL with amqps://".to_owned());
    }
    Ok(())
}

impl BrokerSettings {
    /// Address and credentials, as they are now.
    ///
    /// # Errors
    /// A file that has them cannot be read.
    pub fn address(&self) -> Result<AmqpUrl, SecretError> {
        let (username, password) = (self.amqp_username.get()?, self.amqp_password.get()?);
        let url = self.amqp_url.get()?;
        Ok(url.with_login(username.given(), password.given()))
    }
}

/// What can be tried about what the broker says, which it says in words only.
pub(crate) const ADVICE: [(&str, &str); 9] = [
    (
        "Login was refused",
        "are AMQP_USERNAME and AMQP_PASSWORD, or those in AMQP_URL, right?",
    ),
    (
        "connection limit (",
        "the broker lets no further connection in: end some, or raise the limit of its user or virtual host",
    ),
    (
        "ACCESS_REFUSED",
        "give the user the rights that definitions.json gives it",
    ),
    (
        "NOT_ALLOWED",
        "make the virtual host that AMQP_URL ends in, and give the user its rights there (definitions.json)",
    ),
    (
        "PRECONDITION_FAILED",
        "something else made it: delete it while it is empty, or set QUEUE_PREFIX",
    ),
    (
        "blocked by the broker",
        "make room on the broker's disk or in its memory",
    ),
    (
        "AMQP 0-9-1 but TLS",
        "write amqps:// in AMQP_URL, or name the port without TLS (5672)",
    ),
    (
        "AMQP 0-9-1 but HTTP:",
        "name the port for AMQP in AMQP_URL (5672), not that of the management UI (15672)",
    ),
    (
        "TLS but AMQP",
        "write amqp:// in AMQP_URL, or name the port with TLS (5671)",
    ),
];

/// Why a session with the broker ended.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The broker, or the way to it, failed.
    #[error("{}", advised(reason(.0), &ADVICE))]
    Lapin(#[from] lapin::Error),
    /// There is no connection. Says where to, and why.
    #[error("connecting to {0}")]
    Connecting(String),
    /// There are no credentials. Says which file they were to be in.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A step took longer than `broker_timeout`.
    #[error("{0} took too long")]
    Timeout(&'static str),
    /// A part of the topology is missing, and the user may not declare it.
    #[error(
        "{0} is missing, and the user may not declare it; it is declared by setup with a user that may"
    )]
    Missing(String),
    /// The broker ended a consumer: its queue was deleted, or moved.
    #[error("the broker ended the consumer")]
    ConsumerEnded,
}

impl BrokerError {
    /// Whether the broker will refuse it again: the user may not do it, or something exists with other
    /// arguments.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.is_soft(&AMQPSoftError::ACCESSREFUSED)
            || self.is_soft(&AMQPSoftError::PRECONDITIONFAILED)
    }

    /// Whether the broker closed the channel for this reason.
    pub(crate) fn is_soft(&self, kind: &AMQPSoftError) -> bool {
        matches!(self, Self::Lapin(error) if matches!(error.kind(),
            ErrorKind::ProtocolError(error)
                if matches!(error.kind(), AMQPErrorKind::Soft(soft) if soft == kind)))
    }
}

impl From<io::Error> for BrokerError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::TimedOut {
            return Self::Timeout("connecting");
        }
        Self::Lapin(error.into())
    }
}

/// A connection to the broker. Dropped without an orderly end, it is cut, and the client library's
/// thread ends with it.
pub struct BrokerConnection {
    connection: Connection,
    lifeline: Lifeline,
}

impl Deref for BrokerConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// The way to a broker: where it is, and what is declared there.
#[derive(Clone, Debug)]
pub struct Broker {
    settings: BrokerSettings,
    tls: Client,
    topology: Topology,
    process: &'static str,
    /// Whether the user has been refused to declare anything.
    pub(crate) only_looks: Arc<AtomicBool>,
    /// The parts of the topology that the user may not look at.
    pub(crate) hidden: Arc<Mutex<BTreeSet<String>>>,
}

impl Broker {
    /// The broker that `settings` name, where `topology` is declared on each connection. `process`
    /// names the connections in the management UI.
    #[must_use]
    pub fn new(process: &'static str, settings: &BrokerSettings, topology: Topology) -> Self {
        if settings.amqp_url.get().is_ok_and(|url| url.is_exposed()) {
            tracing::warn!(
                "AMQP_URL leads to another machine without TLS, so that others on the way can read \
                 passwords and ids; amqps:// encrypts, and CA_FILE adds authorities"
            );
        }
        let identity = Identity::of(&settings.amqp_certificate_file, &settings.amqp_key_file);
        Self {
            settings: settings.clone(),
            tls: Client::new(&settings.trust, identity),
            topology,
            process,
            only_looks: Arc::default(),
            hidden: Arc::default(),
        }
    }

    /// Names of the exchange and the queues.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Host and port, where the address can be read.
    pub(crate) fn place(&self) -> String {
        let url = self.settings.amqp_url.get();
        let place = url.map(|url| format!("{}:{}", url.place().0, url.place().1));
        place.unwrap_or_default()
    }

    /// How long one step with the broker may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.settings.broker_timeout
    }

    /// Bounds a step with the broker. Without a bound, it can hang forever on a lost connection.
    ///
    /// # Errors
    /// The step's own error, or [`BrokerError::Timeout`] naming it.
    pub async fn bounded<T>(
        &self,
        step: &'static str,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        match tokio::time::timeout(self.timeout(), work).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(BrokerError::Timeout(step)),
        }
    }

    /// The same for a connection that publishes. An alarm of the broker may block the connection, which
    /// works again when the alarm clears; another connection would be blocked too.
    ///
    /// # Errors
    /// The step's own error, or [`BrokerError::Timeout`] naming it.
    pub(crate) async fn bounded_unless_blocked<T>(
        &self,
        connection: &Connection,
        step: &'static str,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, BrokerError> {
        let mut work = pin!(work);
        loop {
            let was_blocked = connection.status().blocked();
            match tokio::time::timeout(self.timeout(), &mut work).await {
                Ok(result) => return Ok(result?),
                // After the alarm the step has the whole time again.
                Err(_) if was_blocked || connection.status().blocked() => {}
                Err(_) => return Err(BrokerError::Timeout(step)),
            }
        }
    }

    /// Connects. `role` distinguishes the connections of a process.
    ///
    /// # Errors
    /// The broker does not answer in time, or does not let the user in, or the credentials cannot be read.
    pub async fn connect(&self, role: &'static str) -> Result<BrokerConnection, BrokerError> {
        let url = self.settings.address()?;
        match self.try_connect(&url, role).await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(self.explained(&url, error).await),
        }
    }

    async fn try_connect(
        &self,
        url: &AmqpUrl,
        role: &'static str,
    ) -> Result<BrokerConnection, BrokerError> {
        let name = format!("{} {role}", self.process);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let greet = |stream| {
            let (uri, tls) = (url.uri().clone(), self.tls.clone());
            let opened = open(uri, stream, tls, properties.clone());
            async { Ok::<_, BrokerError>(opened.await?) }
        };
        let (connection, lifeline) = dial(url.place(), self.timeout(), greet).await?;
        Ok(BrokerConnection {
            connection,
            lifeline,
        })
    }

    /// Closes the connection in order. The broker then requeues unacked messages at once.
    ///
    /// # Errors
    /// The broker does not answer in time, or the connection is lost. It is cut.
    pub async fn close(&self, connection: BrokerConnection) -> Result<(), BrokerError> {
        let closing = connection.close(200, "done".into());
        self.bounded("closing", closing).await?;
        // The client library is about to end the TCP connection. It would take an earlier end for an error.
        connection.lifeline.release();
        Ok(())
    }

    /// Says where the connection was to lead, and what answers there if it is no broker.
    async fn explained(&self, url: &AmqpUrl, error: BrokerError) -> BrokerError {
        let (host, port) = url.place();
        let is_answer = matches!(&error, BrokerError::Lapin(error)
            if matches!(error.kind(), ErrorKind::ProtocolError(_)));
        let stranger = if is_answer {
            None
        } else {
            stranger(host, port, url.protocol()).await
        };
        let why = match (stranger, error) {
            (Some(stranger), _) => stranger,
            (None, BrokerError::Timeout(_)) => format!("no answer within {:?}", self.timeout()),
            (None, BrokerError::Lapin(error)) => reason(&error),
            (None, error) => error.to_string(),
        };
        BrokerError::Connecting(format!("{host}:{port}: {}", advised(why, &ADVICE)))
    }

    /// Opens a channel for the work of a session.
    ///
    /// # Errors
    /// The connection is lost, or the broker does not answer in time.
    pub async fn channel(&self, connection: &Connection) -> Result<Channel, BrokerError> {
        self.bounded("opening a channel", connection.create_channel())
            .await
    }
}
