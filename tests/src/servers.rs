//! The RabbitMQ and the PostgreSQL of a test run: given by the environment (`scripts/test` does so
//! where there is no container engine), or started in containers and removed at the end of the run.

use std::env::var_os;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use crate::broker::connect as connect_broker;
use crate::database::connect as connect_database;

const HINT: &str = "run scripts/test, which brings up what is missing";
const PASSWORD: &str = "test";

/// The servers of a test run.
pub struct Servers {
    /// Address of RabbitMQ.
    pub amqp_url: String,
    /// Address of a PostgreSQL database whose user may create others.
    pub database_url: String,
    containers: Vec<ContainerAsync<GenericImage>>,
    runtime: Runtime,
}

impl Servers {
    /// Takes the servers that `TEST_AMQP_URL` and `TEST_DATABASE_URL` name, or starts containers of
    /// `RABBITMQ_IMAGE` and `POSTGRES_IMAGE`.
    ///
    /// # Errors
    /// A named server does not answer, or the containers cannot be started.
    pub fn find_or_start() -> anyhow::Result<Self> {
        let runtime = Runtime::new().context("starting a runtime")?;
        match (variable("TEST_AMQP_URL"), variable("TEST_DATABASE_URL")) {
            (Some(amqp_url), Some(database_url)) => {
                let servers = Self {
                    amqp_url,
                    database_url,
                    containers: Vec::new(),
                    runtime,
                };
                servers.wait(Duration::from_secs(5))?;
                Ok(servers)
            }
            (None, None) => Self::start(runtime),
            _ => bail!("TEST_AMQP_URL and TEST_DATABASE_URL go together; {HINT}"),
        }
    }

    fn start(runtime: Runtime) -> anyhow::Result<Self> {
        let rabbitmq =
            variable("RABBITMQ_IMAGE").unwrap_or_else(|| "rabbitmq:4-management".to_owned());
        let postgres = variable("POSTGRES_IMAGE").unwrap_or_else(|| "postgres:17".to_owned());
        let start = async {
            let variables = [
                ("RABBITMQ_DEFAULT_USER", "test"),
                ("RABBITMQ_DEFAULT_PASS", PASSWORD),
            ];
            let broker = container(&rabbitmq, 5672, &variables, &[]).await?;
            // A crash of the machine is not among the tests: the disk need not be waited for.
            let fast = ["-c", "fsync=off", "-c", "max_connections=300"];
            let database =
                container(&postgres, 5432, &[("POSTGRES_PASSWORD", PASSWORD)], &fast).await?;
            let amqp_url = format!(
                "amqp://test:{PASSWORD}@{}/%2f",
                address(&broker, 5672).await?
            );
            let database_url = format!(
                "postgres://postgres:{PASSWORD}@{}/postgres",
                address(&database, 5432).await?
            );
            anyhow::Ok((amqp_url, database_url, vec![broker, database]))
        };
        let (amqp_url, database_url, containers) = runtime.block_on(start)?;
        let servers = Self {
            amqp_url,
            database_url,
            containers,
            runtime,
        };
        servers.wait(Duration::from_mins(2))?;
        Ok(servers)
    }

    /// Waits until both servers let clients in.
    fn wait(&self, bound: Duration) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            until_ok(bound, || connect_broker(&self.amqp_url))
                .await
                .with_context(|| format!("no RabbitMQ at TEST_AMQP_URL; {HINT}"))?;
            until_ok(bound, || connect_database(&self.database_url))
                .await
                .with_context(|| format!("no PostgreSQL at TEST_DATABASE_URL; {HINT}"))?;
            Ok(())
        })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for container in self.containers.drain(..) {
            if let Err(error) = self.runtime.block_on(container.rm()) {
                complain(&format!("a container was not removed: {error}"));
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "the tests' own output")]
fn complain(message: &str) {
    eprintln!("{message}");
}

fn variable(name: &str) -> Option<String> {
    var_os(name)
        .and_then(|value| value.into_string().ok())
        .filter(|value| !value.is_empty())
}

async fn container(
    image: &str,
    port: u16,
    variables: &[(&str, &str)],
    command: &[&str],
) -> anyhow::Result<ContainerAsync<GenericImage>> {
    let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    let mut request = GenericImage::new(name, tag)
        .with_exposed_port(port.tcp())
        .with_cmd(command.to_vec());
    for (variable, value) in variables {
        request = request.with_env_var(*variable, *value);
    }
    request
        .with_startup_timeout(Duration::from_mins(2))
        .start()
        .await
        .with_context(|| format!("starting a container of {image}; {HINT}"))
}

async fn address(container: &ContainerAsync<GenericImage>, port: u16) -> anyhow::Result<String> {
    let host = container.get_host().await?;
    Ok(format!(
        "{host}:{}",
        container.get_host_port_ipv4(port).await?
    ))
}

async fn until_ok<T, F>(bound: Duration, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    const PAUSE: Duration = Duration::from_millis(100);
    let deadline = Instant::now() + bound;
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(PAUSE).await,
        }
    }
}
