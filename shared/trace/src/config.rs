//! The settings of traces.

use settings::{Name, Ratio, Secret, Value};
use tls::TrustSettings;
use url::Url;

use crate::pairs::{CollectorHeaders, ResourceAttributes};

/// Where spans are sent to, if anywhere.
#[derive(Clone)]
pub struct Address(pub(crate) Option<Url>);

impl Value for Address {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        match raw.trim() {
            "" | "off" => Ok(Self(None)),
            url => <Url as Value>::parse(url).map(Some).map(Self),
        }
    }

    fn show(&self) -> String {
        let Some(mut url) = self.0.clone() else {
            return "off".to_owned();
        };
        // Some collectors take a key there.
        if url.query().is_some() {
            url.set_query(Some("***"));
        }
        Value::show(&url)
    }
}

settings::settings! {
    /// Settings of traces.
    pub struct TraceSettings {
        /// Address that spans are sent to, in Zipkin's format (version 2), or off. A process
        /// that sends its spans nowhere makes none, and passes an incoming trace on unchanged.
        pub zipkin_url: Secret<Address> = "http://localhost:9411/api/v2/spans",
        /// Address of a collector that takes spans by OTLP (http/protobuf), such as
        /// http://localhost:4318: /v1/traces is appended. Without it, nothing is sent by OTLP.
        pub otel_exporter_otlp_endpoint: Secret<Address> = "",
        /// Address that spans are sent to by OTLP, as it is. It wins over
        /// OTEL_EXPORTER_OTLP_ENDPOINT.
        pub otel_exporter_otlp_traces_endpoint: Secret<Address> = "",
        /// Headers of requests by OTLP, as name=value,name=value, with values percent-encoded:
        /// authorization=Bearer%20word.
        pub otel_exporter_otlp_headers: Secret<CollectorHeaders> = "",
        /// Headers in place of those in OTEL_EXPORTER_OTLP_HEADERS.
        pub otel_exporter_otlp_traces_headers: Secret<CollectorHeaders> = "",
        /// Name of the service in spans, in place of that of the process.
        pub otel_service_name: Name = "",
        /// What else spans say of who made them, as name=value,name=value, with values
        /// percent-encoded: k8s.pod.name=fetcher-1. It wins over what the process knows,
        /// such as service.instance.id and host.name.
        pub otel_resource_attributes: ResourceAttributes = "",
        /// Whether the process makes no spans at all, wherever they would be sent to.
        pub otel_sdk_disabled: bool = "false",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (raw, shown) in [
            ("off", "off"),
            ("", "off"),
            ("http://host/v1", "http://host/v1"),
            (
                "http://user:hidden@host/?a=hidden",
                "http://user:***@host/?***",
            ),
        ] {
            assert_eq!(Address::parse(raw).unwrap().show(), shown);
        }
    }
}
