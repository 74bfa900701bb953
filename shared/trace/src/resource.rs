//! Who makes the spans of this process.

use std::fs;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use uuid::Uuid;

use crate::attribute::{HOST_NAME, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION};
use crate::config::TraceSettings;

/// Where Linux says what the machine, or the container, is called.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";

/// What is known of this start of the process `service`. The settings have the last word.
#[must_use]
pub fn resource(service: &'static str, settings: &TraceSettings) -> Resource {
    let host = fs::read_to_string(HOST_NAME_FILE).ok();
    let host = host.map(|name| KeyValue::new(HOST_NAME, name.trim().to_owned()));
    let name = settings.otel_service_name.given();
    let name = name.map(|name| KeyValue::new(SERVICE_NAME, name.to_owned()));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes([
            KeyValue::new(SERVICE_NAME, service),
            KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
            KeyValue::new(SERVICE_INSTANCE_ID, Uuid::new_v4().to_string()),
        ])
        .with_attributes(host)
        .with_attributes(settings.otel_resource_attributes.each())
        .with_attributes(name)
        .build()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use settings::load;

    use super::*;

    fn with(flags: &[&str]) -> Resource {
        let flags = ["test"].iter().chain(flags).map(OsString::from);
        let loaded = load::<TraceSettings, ()>("test", "", flags, []).unwrap();
        resource("fetcher", &loaded.settings)
    }

    fn value(resource: &Resource, name: &'static str) -> String {
        let value = resource.get(&name.into());
        value.map_or_else(String::new, |value| value.to_string())
    }

    #[test]
    fn each_start_of_a_process_is_another_instance() {
        let (one, other) = (with(&[]), with(&[]));
        assert_eq!(value(&one, "service.name"), "fetcher");
        assert_eq!(value(&one, "service.version"), env!("CARGO_PKG_VERSION"));
        let instance = "service.instance.id";
        assert_eq!(value(&one, instance).len(), 36);
        assert_ne!(value(&one, instance), value(&other, instance));
        assert_eq!(value(&one, "host.name"), value(&other, "host.name"));
    }

    #[test]
    fn the_settings_have_the_last_word() {
        let attributes = "--otel-resource-attributes=service.instance.id=a%20b,k8s.pod.name=f-1,\
                          service.name=one";
        let given = with(&[attributes]);
        assert_eq!(value(&given, "service.instance.id"), "a b");
        assert_eq!(value(&given, "k8s.pod.name"), "f-1");
        assert_eq!(value(&given, "service.name"), "one");
        let named = with(&[attributes, "--otel-service-name=other"]);
        assert_eq!(value(&named, "service.name"), "other");
    }
}
