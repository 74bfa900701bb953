//! A RabbitMQ or PostgreSQL of a test run: where it is, and how it is killed and started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::{CmdWaitFor, ExecCommand};
use testcontainers::{ContainerAsync, GenericImage};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::servers::{broker, database};

/// How long a server may take to start or to stop.
pub const SERVER_BOUND: Duration = Duration::from_mins(2);

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The broker.
    RabbitMq,
    /// The database.
    Postgres,
}

impl Program {
    /// Its name among the programs of `scripts/lib/supervise`.
    fn name(self) -> &'static str {
        match self {
            Self::RabbitMq => "rabbitmq",
            Self::Postgres => "postgres",
        }
    }

    /// The signal that stops it in order. PostgreSQL would wait for its clients on SIGTERM.
    fn stop_signal(self) -> &'static str {
        match self {
            Self::RabbitMq => "TERM",
            Self::Postgres => "INT",
        }
    }

    /// Its port within a container.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::RabbitMq => 5672,
            Self::Postgres => 5432,
        }
    }
}

/// What keeps a server running.
pub enum Keeper {
    /// The container engine. Each start may give the server another port of the host.
    Container(Box<ContainerAsync<GenericImage>>),
    /// `scripts/lib/supervise`, with its state in this folder.
    Supervisor(PathBuf),
    /// Not known, so that it cannot be killed.
    Unknown,
}

/// A server.
pub struct Server {
    program: Program,
    /// Its address when the run began, with credentials.
    url: String,
    keeper: Keeper,
}

impl Server {
    /// The server at `url`.
    #[must_use]
    pub fn new(program: Program, url: String, keeper: Keeper) -> Self {
        Self {
            program,
            url,
            keeper,
        }
    }

    /// Whether it can be killed and started again.
    #[must_use]
    pub fn can_be_killed(&self) -> bool {
        !matches!(self.keeper, Keeper::Unknown)
    }

    /// Where it is now.
    ///
    /// # Errors
    /// The container does not run.
    pub async fn address(&self) -> anyhow::Result<SocketAddr> {
        let host = match &self.keeper {
            Keeper::Container(container) => {
                let port = container.get_host_port_ipv4(self.program.port()).await?;
                format!("{}:{port}", container.get_host().await?)
            }
            _ => host_of(&self.url).to_owned(),
        };
        let mut addresses = tokio::net::lookup_host(&host).await?;
        addresses
            .find(SocketAddr::is_ipv4)
            .with_context(|| format!("{host} has no address"))
    }

    /// Its URL with `address` in place of its own.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        self.url
            .replacen(host_of(&self.url), &address.to_string(), 1)
    }

    /// Its URL now.
    ///
    /// # Errors
    /// The container does not run.
    pub async fn url(&self) -> anyhow::Result<String> {
        Ok(self.url_at(self.address().await?))
    }

    /// Ends it as a power cut would: SIGKILL, and no supervisor starts it again.
    ///
    /// # Errors
    /// It could not be killed, or may not be.
    pub async fn kill(&self) -> anyhow::Result<()> {
        match &self.keeper {
            Keeper::Container(container) => {
                let docker = docker_client_instance().await?;
                docker.kill_container(container.id(), None).await?;
                Ok(())
            }
            Keeper::Supervisor(state) => self.end(state, "KILL").await,
            Keeper::Unknown => bail!("this server is not ours to kill"),
        }
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// It could not be stopped, or may not be.
    pub async fn stop(&self) -> anyhow::Result<()> {
        match &self.keeper {
            Keeper::Container(container) => Ok(container.stop_with_timeout(Some(60)).await?),
            Keeper::Supervisor(state) => self.end(state, self.program.stop_signal()).await,
            Keeper::Unknown => bail!("this server is not ours to stop"),
        }
    }

    /// Starts it again, and returns when it lets clients in.
    ///
    /// # Errors
    /// It does not.
    pub async fn start(&self) -> anyhow::Result<()> {
        match &self.keeper {
            Keeper::Container(container) => container.start().await?,
            Keeper::Supervisor(state) => signal("CONT", &self.supervisor(state)?).await?,
            Keeper::Unknown => {}
        }
        self.until_it_lets_in(SERVER_BOUND).await
    }

    /// Waits until it lets clients in.
    ///
    /// # Errors
    /// It does not within `bound`.
    pub async fn until_it_lets_in(&self, bound: Duration) -> anyhow::Result<()> {
        const PAUSE: Duration = Duration::from_millis(50);
        let deadline = Instant::now() + bound;
        loop {
            match self.connect().await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<()> {
        let url = self.url().await?;
        match self.program {
            Program::RabbitMq => broker::connect(&url).await.map(drop),
            Program::Postgres => database::connect(&url).await.map(drop),
        }
    }

    /// Runs one of the server's commands where the server runs.
    ///
    /// # Errors
    /// It fails.
    pub async fn command(&self, words: &[&str]) -> anyhow::Result<()> {
        match &self.keeper {
            Keeper::Container(container) => {
                // The engine may know the exit code a moment after the output has ended.
                let command =
                    ExecCommand::new(words.to_vec()).with_cmd_ready_condition(CmdWaitFor::exit());
                let mut result = container.exec(command).await?;
                let output = result.stdout_to_vec().await?;
                let shown = String::from_utf8_lossy(&output);
                ensure!(result.exit_code().await? == Some(0), "{words:?}: {shown}");
            }
            Keeper::Supervisor(state) => {
                let output = Command::new(state.join(words[0]))
                    .args(&words[1..])
                    .output();
                let output = output.await.with_context(|| format!("running {words:?}"))?;
                let shown = String::from_utf8_lossy(&output.stdout);
                ensure!(output.status.success(), "{words:?}: {shown}");
            }
            Keeper::Unknown => bail!("{words:?} cannot be run on this server"),
        }
        Ok(())
    }

    fn supervisor(&self, state: &Path) -> anyhow::Result<String> {
        let file = state.join(format!("{}.pid", self.program.name()));
        let pid = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(pid.trim().to_owned())
    }

    /// A supervisor that is held by SIGSTOP starts nothing again.
    async fn end(&self, state: &Path, how: &str) -> anyhow::Result<()> {
        let supervisor = self.supervisor(state)?;
        signal("STOP", &supervisor).await?;
        let children = format!("/proc/{supervisor}/task/{supervisor}/children");
        let children = std::fs::read_to_string(&children).context(children)?;
        for child in children.split_whitespace() {
            signal(how, child).await?;
            until_ended(child).await?;
        }
        Ok(())
    }
}

/// Host and port in a URL.
pub(crate) fn host_of(url: &str) -> &str {
    let after_login = url.split_once('@').map_or(url, |(_, rest)| rest);
    after_login.split('/').next().unwrap_or(after_login)
}

async fn signal(signal: &str, pid: &str) -> anyhow::Result<()> {
    let sent = Command::new("kill")
        .args(["-s", signal, pid])
        .status()
        .await?;
    ensure!(sent.success(), "kill -s {signal} {pid} failed");
    Ok(())
}

/// What has ended stays as a zombie for as long as its supervisor is held.
async fn until_ended(pid: &str) -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + SERVER_BOUND;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map_or("Z", |(_, state)| state);
        if state.starts_with('Z') {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "process {pid} does not end");
        sleep(PAUSE).await;
    }
}
