//! The RabbitMQ and the PostgreSQL that all tests of a process share: given by the environment
//! (`scripts/test` does so where there is no container engine), or started in containers.
//!
//! The containers are removed when the process ends, in whatever way it does. No count of users could
//! say when that is: between two tests there may be none.

pub mod broker;
pub mod database;
pub(crate) mod http_server;
pub mod programs;
pub mod prometheus;
pub mod server;
pub mod span_collector;

use std::env::var_os;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::runtime::Runtime;

use crate::processes;
use crate::servers::server::{Keeper, Program, SERVER_BOUND, Server};

const HINT: &str = "run scripts/test, which brings up what is missing";
const PASSWORD: &str = "test";

/// Where RabbitMQ's metrics are within a container.
const BROKER_METRICS_PORT: u16 = 15_692;

/// Where RabbitMQ's management API is within a container.
const MANAGEMENT_PORT: u16 = 15_672;

/// The servers that all tests of a process share.
pub struct Servers {
    /// Address of RabbitMQ when the run began.
    pub amqp_url: String,
    /// Address of a PostgreSQL database whose user may create others, when the run began.
    pub database_url: String,
    /// Where RabbitMQ's metrics can be read, if they can.
    pub broker_metrics: Option<SocketAddr>,
    /// Where RabbitMQ's management API is, if it is known.
    pub management: Option<SocketAddr>,
    /// RabbitMQ.
    pub broker: Server,
    /// PostgreSQL.
    pub database: Server,
    runtime: Runtime,
    _remover: Option<Child>,
}

impl Servers {
    /// The servers of this process. The first call finds or starts them, and prepares the process for
    /// tests.
    ///
    /// # Errors
    /// There are none.
    pub fn shared() -> anyhow::Result<&'static Self> {
        static SERVERS: OnceLock<anyhow::Result<Servers>> = OnceLock::new();
        let servers = SERVERS.get_or_init(|| {
            // Thousands of connections are among the tests.
            ::http_server::raise_limit();
            // The processes under test run in this process too, and find their TLS provider installed.
            drop(rustls::crypto::ring::default_provider().install_default());
            processes::build();
            Self::find_or_start()
        });
        servers.as_ref().map_err(|error| anyhow!("{error:#}"))
    }

    /// Takes the servers that `TEST_AMQP_URL` and `TEST_DATABASE_URL` name, or starts containers of
    /// `RABBITMQ_IMAGE` and `POSTGRES_IMAGE`.
    fn find_or_start() -> anyhow::Result<Self> {
        let runtime = Runtime::new().context("starting a runtime")?;
        match (variable("TEST_AMQP_URL"), variable("TEST_DATABASE_URL")) {
            (Some(amqp_url), Some(database_url)) => {
                let mut servers = Self::new(amqp_url, database_url, [keeper(), keeper()], runtime);
                servers.broker_metrics = given_address("TEST_BROKER_METRICS_ADDRESS")?;
                servers.management = given_address("TEST_MANAGEMENT_ADDRESS")?;
                servers.wait(SERVER_BOUND)?;
                Ok(servers)
            }
            (None, None) => Self::start(runtime),
            _ => bail!("TEST_AMQP_URL and TEST_DATABASE_URL go together; {HINT}"),
        }
    }

    fn new(
        amqp_url: String,
        database_url: String,
        [broker, database]: [Keeper; 2],
        runtime: Runtime,
    ) -> Self {
        Self {
            broker: Server::new(Program::RabbitMq, amqp_url.clone(), broker),
            database: Server::new(Program::Postgres, database_url.clone(), database),
            amqp_url,
            database_url,
            broker_metrics: None,
            management: None,
            runtime,
            _remover: None,
        }
    }

    fn start(runtime: Runtime) -> anyhow::Result<Self> {
        let rabbitmq =
            variable("RABBITMQ_IMAGE").unwrap_or_else(|| "rabbitmq:4.3-management".to_owned());
        let postgres = variable("POSTGRES_IMAGE").unwrap_or_else(|| "postgres:18".to_owned());
        let start = async {
            let variables = [
                ("RABBITMQ_DEFAULT_USER", "test"),
                ("RABBITMQ_DEFAULT_PASS", PASSWORD),
                (
                    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                    "-rabbit dead_letter_worker_publisher_confirm_timeout 2000 \
                     -rabbit dead_letter_worker_consumer_prefetch 512",
                ),
            ];
            let broker = container(&rabbitmq, Program::RabbitMq, &variables, &[]).await?;
            // A crash of the machine is not among the tests: the disk need not be waited for. It is
            // among what is measured.
            let fsync = variable("TEST_FSYNC").unwrap_or_else(|| "off".to_owned());
            let fsync = format!("fsync={fsync}");
            let options = ["-c", &fsync, "-c", "max_connections=300"];
            let variables = [("POSTGRES_PASSWORD", PASSWORD)];
            let database = container(&postgres, Program::Postgres, &variables, &options).await?;
            let amqp_url = format!(
                "amqp://test:{PASSWORD}@{}/%2f",
                address(&broker, Program::RabbitMq.port()).await?
            );
            let database_url = format!(
                "postgres://postgres:{PASSWORD}@{}/postgres",
                address(&database, Program::Postgres.port()).await?
            );
            let metrics = ipv4_address(&broker, BROKER_METRICS_PORT).await?;
            let management = ipv4_address(&broker, MANAGEMENT_PORT).await?;
            let remover = remove_at_end([broker.id(), database.id()])?;
            let keepers =
                [broker, database].map(|container| Keeper::Container(Box::new(container)));
            anyhow::Ok((
                amqp_url,
                database_url,
                [metrics, management],
                remover,
                keepers,
            ))
        };
        let (amqp_url, database_url, [metrics, management], remover, keepers) =
            runtime.block_on(start)?;
        let servers = Self {
            broker_metrics: metrics,
            management,
            _remover: Some(remover),
            ..Self::new(amqp_url, database_url, keepers, runtime)
        };
        servers.wait(SERVER_BOUND)?;
        Ok(servers)
    }

    /// Waits until both servers let clients in.
    fn wait(&self, bound: Duration) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let broker = self.broker.until_it_lets_in(bound).await;
            broker.with_context(|| format!("no RabbitMQ at TEST_AMQP_URL; {HINT}"))?;
            let database = self.database.until_it_lets_in(bound).await;
            database.with_context(|| format!("no PostgreSQL at TEST_DATABASE_URL; {HINT}"))
        })
    }
}

/// Starts a process that removes the containers when this process has ended: a pipe to it closes then.
/// It has its own process group, which the signals of a terminal do not reach.
fn remove_at_end(containers: [&str; 2]) -> anyhow::Result<Child> {
    const REMOVE: &str = r#"read -r _; exec docker rm --force --volumes "$@""#;
    Command::new("sh")
        .args(["-c", REMOVE, "sh"])
        .args(containers)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("starting the process that removes the containers")
}

/// A setting of the tests. The pipeline has no setting with such a name.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    var_os(name)
        .and_then(|value| value.into_string().ok())
        .filter(|value| !value.is_empty())
}

fn given_address(name: &'static str) -> anyhow::Result<Option<SocketAddr>> {
    let address = variable(name).map(|address| address.parse()).transpose();
    address.context(name)
}

/// What keeps the servers running that the environment names.
fn keeper() -> Keeper {
    variable("TEST_SERVERS_STATE").map_or(Keeper::Unknown, |state| {
        Keeper::Supervisor(PathBuf::from(state))
    })
}

async fn container(
    image: &str,
    program: Program,
    variables: &[(&str, &str)],
    command: &[&str],
) -> anyhow::Result<ContainerAsync<GenericImage>> {
    let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    let mut exposing = GenericImage::new(name, tag).with_exposed_port(program.port().tcp());
    if program == Program::RabbitMq {
        exposing = exposing
            .with_exposed_port(BROKER_METRICS_PORT.tcp())
            .with_exposed_port(MANAGEMENT_PORT.tcp());
    }
    let mut request = exposing.with_cmd(command.to_vec());
    for (variable, value) in variables {
        request = request.with_env_var(*variable, *value);
    }
    request
        .with_startup_timeout(SERVER_BOUND)
        .start()
        .await
        .with_context(|| format!("starting a container of {image}; {HINT}"))
}

async fn ipv4_address(
    container: &ContainerAsync<GenericImage>,
    port: u16,
) -> anyhow::Result<Option<SocketAddr>> {
    let mut addresses = tokio::net::lookup_host(address(container, port).await?).await?;
    Ok(addresses.find(SocketAddr::is_ipv4))
}

async fn address(container: &ContainerAsync<GenericImage>, port: u16) -> anyhow::Result<String> {
    let host = container.get_host().await?;
    let port = container.get_host_port_ipv4(port).await?;
    Ok(format!("{host}:{port}"))
}
