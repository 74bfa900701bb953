//! The settings of traces.

use settings::{Ratio, Secret, Value};
use tls::TrustSettings;
use url::Url;

/// Where spans are sent to, if anywhere.
#[derive(Clone, Debug)]
pub struct Address(pub(crate) Option<Url>);

impl Value for Address {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        match raw.trim() {
            "off" => Ok(Self(None)),
            url => <Url as Value>::parse(url).map(Some).map(Self),
        }
    }

    fn show(&self) -> String {
        self.0.as_ref().map_or("off".to_owned(), Value::show)
    }
}

settings::settings! {
    /// Settings of traces.
    pub struct TraceSettings {
        /// Address that spans are sent to, in Zipkin's format (version 2). With off the
        /// process makes no spans, and passes an incoming trace on unchanged.
        pub zipkin_url: Secret<Address> = "http://localhost:9411/api/v2/spans",
        /// Share of callbacks whose traces are recorded, from 0 to 1. A callback that
        /// arrives with a trace which is not recorded is not recorded either.
        pub trace_ratio: Ratio = "1",
        /// Whether a callback that arrives with a trace which is recorded is recorded
        /// too, whatever TRACE_RATIO is. Then strangers can have every callback recorded.
        pub trust_traces: bool = "false",
    } with {
        /// Settings of whom connections trust.
        pub trust: TrustSettings,
    }
}
