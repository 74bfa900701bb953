//! The headers of messages, which anybody may have set to anything.

use std::num::NonZeroU32;
use std::time::SystemTime;

use broker::{ATTEMPT_HEADER, Attempt, DUE_AT_HEADER, Headers, REASON_HEADER, lag, shortened};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use proptest::prelude::*;

use crate::config;

/// A value, with the integer and the text that it is to be read as.
type Known = (AMQPValue, Option<i64>, Option<String>);

fn value() -> impl Strategy<Value = Known> {
    let integer = |value: AMQPValue, number: i64| (value, Some(number), None);
    prop_oneof![
        any::<i8>().prop_map(move |n| integer(AMQPValue::ShortShortInt(n), n.into())),
        any::<u8>().prop_map(move |n| integer(AMQPValue::ShortShortUInt(n), n.into())),
        any::<i16>().prop_map(move |n| integer(AMQPValue::ShortInt(n), n.into())),
        any::<u16>().prop_map(move |n| integer(AMQPValue::ShortUInt(n), n.into())),
        any::<i32>().prop_map(move |n| integer(AMQPValue::LongInt(n), n.into())),
        any::<u32>().prop_map(move |n| integer(AMQPValue::LongUInt(n), n.into())),
        any::<i64>().prop_map(move |n| integer(AMQPValue::LongLongInt(n), n)),
        (-1..9_i64).prop_map(move |n| integer(AMQPValue::LongLongInt(n), n)),
        any::<String>().prop_map(|text| {
            let value = AMQPValue::LongString(text.clone().into());
            (value, None, Some(text))
        }),
        any::<bool>().prop_map(|yes| (AMQPValue::Boolean(yes), None, None)),
        any::<f64>().prop_map(|number| (AMQPValue::Double(number), None, None)),
        any::<u64>().prop_map(|time| (AMQPValue::Timestamp(time), None, None)),
        Just((AMQPValue::Void, None, None)),
        Just((AMQPValue::FieldArray(FieldArray::default()), None, None)),
        Just((AMQPValue::FieldTable(FieldTable::default()), None, None)),
    ]
}

#[test]
fn headers_are_read_from_any_table() {
    let values = (
        proptest::option::of(value()),
        proptest::option::of(value()),
        value(),
    );
    proptest!(config(), |((attempt, reason, other) in values)| {
        let mut table = FieldTable::default();
        for (name, known) in [(ATTEMPT_HEADER, &attempt), (REASON_HEADER, &reason)] {
            if let Some((value, _, _)) = known {
                table.insert(name.into(), value.clone());
            }
        }
        table.insert("x-other".into(), other.0);
        let number = attempt.and_then(|(_, number, _)| number);
        let number = number.and_then(|number| u32::try_from(number).ok());
        let expected = Headers {
            attempt: number.and_then(NonZeroU32::new).map_or(Attempt::FIRST, Attempt),
            reason: reason.and_then(|(_, _, text)| text),
            ..Headers::default()
        };
        prop_assert_eq!(Headers::from_table(Some(&table)), expected);
    });
}

#[test]
fn only_a_time_says_when_a_message_is_due() {
    proptest!(config(), |((value, _, _) in value())| {
        let is_time = matches!(value, AMQPValue::LongLongInt(_));
        let mut table = FieldTable::default();
        table.insert(DUE_AT_HEADER.into(), value);
        prop_assert_eq!(lag(Some(&table), SystemTime::now()).is_some(), is_time);
    });
}

#[test]
fn headers_are_read_as_they_were_written() {
    let headers = (any::<NonZeroU32>(), proptest::option::of(any::<String>()));
    proptest!(config(), |((attempt, reason) in headers)| {
        let headers = Headers { attempt: Attempt(attempt), reason, ..Headers::default() };
        let read = Headers::from_table(Some(&headers.to_table()));
        prop_assert_eq!(read.attempt, headers.attempt);
        prop_assert_eq!(read.reason, headers.reason.as_deref().map(shortened));
    });
}

/// A value for a header that names traces: of any type, or nearly right.
fn trace_header() -> impl Strategy<Value = AMQPValue> {
    let nearly = "0[0-9a-f]-[0-9a-f]{31,33}-[0-9a-f]{15,17}-0[0-3]";
    prop_oneof![
        value().prop_map(|(value, _, _)| value),
        nearly.prop_map(|text| AMQPValue::LongString(text.into())),
        proptest::collection::vec(nearly, 0..5).prop_map(|texts| {
            let texts = texts
                .into_iter()
                .map(|text| AMQPValue::LongString(text.into()));
            AMQPValue::FieldArray(texts.collect::<Vec<_>>().into())
        }),
    ]
}

#[test]
fn the_traces_of_a_message_are_read_from_any_table_and_as_they_were_written() {
    let names = ["traceparent", "tracestate", "x-further-traceparents"];
    let values = proptest::collection::vec(proptest::option::of(trace_header()), names.len());
    proptest!(config(), |(values in values)| {
        let mut table = FieldTable::default();
        for (name, value) in names.into_iter().zip(values) {
            if let Some(value) = value {
                table.insert(name.into(), value);
            }
        }
        let read = Headers::from_table(Some(&table));
        prop_assert_eq!(Headers::from_table(Some(&read.to_table())), read);
    });
}
