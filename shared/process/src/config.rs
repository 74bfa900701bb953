//! What a process is made from: its settings, and the context that its work gets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lifecycle::{Health, Shutdown};
use metric_definitions::Description;
use settings::{Name, Settings};
use telemetry::LogSettings;
use tls::{Acceptor, ServerSettings};
use trace::TraceSettings;

settings::settings! {
    /// Settings that every process has.
    pub struct ProcessSettings {
        /// Address of /livez, /readyz, /metrics, and the profiles below /debug/pprof.
        pub admin_address: SocketAddr = "127.0.0.1:6060",
        /// Whether the admin address gives profiles to whoever asks. They show what a process
        /// is doing, and taking one costs processor time.
        pub profiles: bool = "false",
        /// How long the process may take to stop after SIGTERM or SIGINT. Unfinished work
        /// goes back to its queue.
        pub shutdown_timeout: Duration = "5s" in "100ms"..="1h",
        /// Whether metrics are collected. Without them /metrics is empty. Turn them off to
        /// measure what they cost.
        pub metrics: bool = "true",
    } with {
        /// Settings of logs.
        pub logs: LogSettings,
        /// Settings of traces.
        pub traces: TraceSettings,
        /// Settings of the certificate that the process shows to its clients.
        pub tls: ServerSettings,
    }
}

settings::settings! {
    /// What of the settings tells how a process that runs is asked. The certificate is not read: the process may go on
    /// with an older one.
    pub struct AdminPort {
        /// Where it answers.
        pub admin_address: SocketAddr = "127.0.0.1:6060",
        /// The port speaks TLS if there is one.
        pub tls_certificate_file: Name = "",
    } with {}
}

/// All settings of a process, and what is known of it beforehand.
pub trait ProcessConfig: Settings + Send + 'static {
    /// Name of the process, as its binary is called.
    const NAME: &'static str;
    /// What the process does, in a sentence.
    const ABOUT: &'static str;
    /// The metrics of the process, part by part.
    const METRICS: &'static [&'static [Description]];

    /// Settings that every process has.
    fn process(&self) -> &ProcessSettings;
}

/// What a process gets besides its settings.
#[derive(Clone)]
pub struct ProcessContext {
    /// The dependencies of the process, which the work names and reports on.
    pub health: Health,
    /// Tells the work to stop.
    pub shutdown: Shutdown,
    /// The TLS of all ports of the process, if it has a certificate. One for all, so that its files are read once.
    pub tls: Option<Acceptor>,
}

impl ProcessContext {
    /// The context of a process with these settings, which ends with `shutdown`.
    ///
    /// # Errors
    /// The certificate cannot be used any more.
    pub fn new(settings: &ProcessSettings, shutdown: Shutdown) -> io::Result<Self> {
        Ok(Self {
            health: Health::default(),
            shutdown,
            tls: settings.tls.acceptor()?,
        })
    }
}
