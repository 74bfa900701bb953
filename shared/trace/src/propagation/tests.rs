use super::*;
use http::HeaderName;
use opentelemetry::trace::TraceId;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
    let header = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), value.parse().unwrap())
    };
    headers.iter().map(header).collect()
}

fn context(given: &[(&'static str, &str)]) -> Option<SpanContext> {
    TraceSet::sender(&headers(given))
}

#[test]
fn a_request_s_trace_is_read_in_either_format() {
    let expected = TraceId::from(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    let b3 = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1";
    let several = [
        ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("x-b3-spanid", "00f067aa0ba902b7"),
        ("x-b3-sampled", "1"),
    ];
    for given in [&[("traceparent", PARENT)][..], &[("b3", b3)], &several] {
        let context = context(given).unwrap();
        assert_eq!(context.trace_id(), expected);
        assert!(context.is_sampled() && context.is_remote());
    }
    let vendor = context(&[("traceparent", PARENT), ("tracestate", "vendor=value")]);
    assert_eq!(vendor.unwrap().trace_state().header(), "vendor=value");
    let both = context(&[("b3", &b3.replace("4736", "4799")), ("traceparent", PARENT)]);
    assert_eq!(both.unwrap().trace_id(), expected);
}

#[test]
fn a_request_with_nonsense_for_a_trace_has_none() {
    for given in [
        "",
        "00",
        "00-zz-00-01",
        &PARENT.replace("4bf9", "4BF9"),
        &"0".repeat(9_000),
    ] {
        assert_eq!(context(&[("traceparent", given)]), None, "{given}");
        assert_eq!(context(&[("b3", given)]), None, "{given}");
    }
    assert_eq!(context(&[]), None);
}

#[test]
fn b3_s_debug_flag_is_a_decision_and_its_lack_of_one_is_not() {
    let b3 = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
    let sampled = |given: String| context(&[("b3", &given)]).unwrap().is_sampled();
    assert!(sampled(format!("{b3}-d")) && sampled(format!("{b3}-1")));
    assert!(!sampled(format!("{b3}-0")) && !sampled(b3.to_owned()));
}

#[test]
fn b3_s_decision_counts_also_without_ids() {
    for (name, value, record) in [
        ("b3", "1", true),
        ("b3", "d", true),
        ("x-b3-flags", "1", true),
        ("b3", "0", false),
        ("x-b3-sampled", "0", false),
    ] {
        let decision = context(&[(name, value)]).unwrap();
        assert_eq!(
            (decision.is_valid(), decision.is_sampled()),
            (false, record),
            "{name}"
        );
    }
    assert_eq!(context(&[("b3", "2")]), None);
}

#[test]
fn what_others_say_of_a_trace_is_handed_on_unless_it_is_long() {
    let handed_on = |state: &str| {
        let context = context(&[("traceparent", PARENT), ("tracestate", state)]);
        let mut headers = HeaderMap::new();
        TraceSet::from_iter(context).inject(&mut headers);
        headers
            .get("tracestate")
            .map(|state| state.to_str().unwrap().to_owned())
    };
    assert_eq!(handed_on("vendor=value").as_deref(), Some("vendor=value"));
    let member = |n| format!("v{n}={}", "x".repeat(250));
    assert_eq!(
        handed_on(&[member(1), member(2), member(3)].join(",")),
        None
    );
}

#[test]
fn a_line_of_text_names_a_trace() {
    let traces = TraceSet::from_traceparent(Some(PARENT.to_owned()));
    assert_eq!(traces.to_traceparent().as_deref(), Some(PARENT));
    let mut headers = HeaderMap::new();
    traces.inject(&mut headers);
    assert_eq!(headers["traceparent"], PARENT);
    assert_eq!(headers["b3"], &PARENT[3..].replace("-01", "-1"));
}
