//! The one boot order of every process: configuration, runtime, telemetry, signals, start-up log,
//! admin server, work. Connections are made by the work, each with its own back-off, so the
//! order in which processes and servers start does not matter.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http_server::{listen, raise_limit};
use lifecycle::Shutdown;
use rlimit::Resource;
use settings::{CommandLine, ConfigError, Settings, parse};
use telemetry::{finish_logs, init_logs, init_metrics, write_to_stderr};
use tls::install_provider;
use tokio::net::TcpListener;
use trace::Recording;

use crate::admin::{Admin, Ask, ask, ask_over_tls};
use crate::config::{AdminPort, ProcessConfig, ProcessContext};
use crate::metrics::{BUILD_INFO, Build};

/// Boots the process and runs `work` until it ends. The exit code is 0 if the work ended in order.
pub fn start<C, F>(work: impl FnOnce(C, ProcessContext) -> F) -> ExitCode
where
    C: ProcessConfig,
    F: Future<Output = anyhow::Result<()>>,
{
    enum Task<C> {
        Run(C),
        Ask(AdminPort, String),
    }
    boot::<C, Ask, _>(
        C::NAME,
        C::ABOUT,
        |given| {
            let path = given.arguments.path.clone();
            Ok(match path {
                Some(path) => Task::Ask(given.read(std::env::vars_os())?, path),
                None => Task::Run(given.read(std::env::vars_os())?),
            })
        },
        async |task| match task {
            Task::Ask(port, path) => answer(&port, &path).await,
            Task::Run(settings) => run(settings, work).await,
        },
    )
}

/// Runs a command of an operator, with its settings and arguments. It writes no log and has no admin
/// port. The exit code is 0 if `work` succeeds.
pub fn start_command<C, A, F>(
    name: &'static str,
    about: &'static str,
    work: impl FnOnce(C, A) -> F,
) -> ExitCode
where
    C: Settings,
    A: Args,
    F: Future<Output = anyhow::Result<()>>,
{
    boot::<C, A, _>(
        name,
        about,
        |given| Ok((given.read(std::env::vars_os())?, given.arguments)),
        async |(settings, arguments)| {
            install_provider();
            work(settings, arguments).await
        },
    )
}

/// Runs `work` with what `read` makes of the command line of a binary whose settings are `C`.
fn boot<C: Settings, A: Args, T>(
    name: &'static str,
    about: &'static str,
    read: impl FnOnce(CommandLine<A>) -> Result<T, ConfigError>,
    work: impl AsyncFnOnce(T) -> anyhow::Result<()>,
) -> ExitCode {
    // A core file would have the secrets in it. To have none is never refused.
    Resource::CORE.set(0, 0).ok();
    let task = match parse::<C, A>(name, about, std::env::args_os()).and_then(read) {
        Ok(task) => task,
        Err(error) => return refuse(name, &error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("starting the runtime")),
    };
    // The logs are finished after a panic too.
    let logs = FinishLogs;
    let result = runtime.block_on(work(task));
    let code = result.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS);
    drop(logs);
    // Tasks that still run have had their time.
    runtime.shutdown_background();
    code
}

struct FinishLogs;

impl Drop for FinishLogs {
    fn drop(&mut self) {
        finish_logs();
    }
}

async fn run<C, F>(settings: C, work: impl FnOnce(C, ProcessContext) -> F) -> anyhow::Result<()>
where
    C: ProcessConfig,
    F: Future<Output = anyhow::Result<()>>,
{
    let resource = trace::resource(C::NAME, &settings.process().traces);
    // Before the logs, because lost lines are counted.
    let metrics = settings.process().metrics.then(|| {
        let all = C::METRICS.iter().copied().flatten();
        let process = resource.iter().map(|(key, value)| (key.as_str(), value));
        init_metrics(process, all)
    });
    let metrics = metrics.transpose()?;
    init_logs(&settings.process().logs)?;
    raise_limit();
    let build = Build {
        process: C::NAME,
        version: env!("CARGO_PKG_VERSION"),
    };
    BUILD_INFO.of(&build).set(1);
    let shutdown = Shutdown::on_signals(settings.process().shutdown_timeout)?;
    install_provider();
    let recording = Recording::begin(resource, &settings.process().traces)?;
    let context = ProcessContext::new(settings.process(), shutdown)?;
    let listener = listen(settings.process().admin_address)?;
    log_start(&settings, listener.local_addr()?);
    let admin = Admin {
        health: context.health.clone(),
        profiles: settings.process().profiles,
        metrics,
        shutdown: context.shutdown.clone(),
        tls: context.tls.clone(),
    };
    let shutdown = context.shutdown.clone();
    let work = work(settings, context);
    // A part of the time is for sending the spans that are left.
    let flush = recording.flush_timeout(shutdown.timeout());
    let limit = shutdown.timeout().saturating_sub(flush);
    let result = tokio::select! {
        result = with_admin(admin, listener, &shutdown, work) => result,
        () = overdue(&shutdown, limit) => Err(anyhow::anyhow!("did not stop within {limit:?}")),
    };
    recording.finish(flush).await;
    result
}

/// The admin port answers until the work has ended.
async fn with_admin(
    admin: Admin,
    listener: TcpListener,
    shutdown: &Shutdown,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let never = Shutdown::new(shutdown.timeout());
    tokio::select! {
        result = work => {
            anyhow::ensure!(result.is_err() || shutdown.has_begun(), "the work ended unasked");
            tracing::info!("stopped");
            result
        }
        () = admin.serve(listener, &never) => anyhow::bail!("the admin port closed"),
    }
}

async fn overdue(shutdown: &Shutdown, limit: Duration) {
    shutdown.begun().await;
    tokio::time::sleep(limit).await;
}

fn log_start<C: ProcessConfig>(settings: &C, admin_address: SocketAddr) {
    let in_force: Vec<String> = settings
        .show()
        .into_iter()
        .map(|(name, value)| format!("{}={value}", name.to_uppercase()))
        .collect();
    tracing::info!(
        process = C::NAME,
        version = env!("CARGO_PKG_VERSION"),
        %admin_address,
        settings = in_force.join(" "),
        "starting"
    );
}

/// Prints the answer of a running process. There is no log.
async fn answer(port: &AdminPort, path: &str) -> anyhow::Result<()> {
    let address = port.admin_address;
    let (status, body) = match port.tls_certificate_file.given() {
        None => ask(address, path).await?,
        Some(_) => ask_over_tls(address, path).await?,
    };
    std::io::stdout().write_all(&body)?;
    anyhow::ensure!(status.is_success(), "{address}{path} answered {status}");
    Ok(())
}

fn refuse(name: &str, error: &ConfigError) -> ExitCode {
    const EX_USAGE: u8 = 2;
    let text = match error {
        ConfigError::Usage(usage) if !usage.use_stderr() => {
            let shown = usage.print();
            return shown.map_or(ExitCode::from(EX_USAGE), |()| ExitCode::SUCCESS);
        }
        ConfigError::Usage(usage) => usage.render().to_string(),
        ConfigError::Invalid(_) => format!("{name}: {error}"),
    };
    write_to_stderr(text.trim_end());
    ExitCode::from(EX_USAGE)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    if tracing::event_enabled!(tracing::Level::ERROR) {
        tracing::error!(error = format!("{error:#}"), "failed");
    } else {
        write_to_stderr(&format!("{error:#}"));
    }
    ExitCode::FAILURE
}
