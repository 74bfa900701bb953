//! The AMQP headers of a message: its attempt, its reason and its traces.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::types::{AMQPValue, FieldArray, FieldTable};
use trace::{TraceContext, TraceSet};

use crate::lag::millis;

/// Which try at a chunk this is, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub NonZeroU32);

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The try after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What travels with a body, as AMQP headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Which try this is. A message without the header is at its first.
    pub attempt: Attempt,
    /// Why the try before failed, or why the message was given up.
    pub reason: Option<String>,
    /// The traces that the message belongs to.
    pub traces: TraceSet,
    /// When the callback of the ids was accepted, to the millisecond, by the clock of `ingest`.
    pub accepted_at: Option<SystemTime>,
}

impl Default for Headers {
    fn default() -> Self {
        Self {
            attempt: Attempt::FIRST,
            reason: None,
            traces: TraceSet::default(),
            accepted_at: None,
        }
    }
}

/// Header that holds [`Headers::accepted_at`], in milliseconds since 1970.
pub const ACCEPTED_AT_HEADER: &str = "x-accepted-at";
/// Header that holds [`Headers::attempt`].
pub const ATTEMPT_HEADER: &str = "x-attempt";
/// Header that holds [`Headers::reason`].
pub const REASON_HEADER: &str = "x-reason";

impl Headers {
    /// Of a message at its first try, as a part of `traces`.
    #[must_use]
    pub fn first_try(traces: TraceSet) -> Self {
        Self {
            traces,
            ..Self::default()
        }
    }

    /// Of the first message with ids of a callback that was accepted then.
    #[must_use]
    pub fn of_callback(accepted_at: SystemTime, traces: TraceSet) -> Self {
        Self {
            accepted_at: Some(accepted_at),
            ..Self::first_try(traces)
        }
    }

    /// Reads the headers of a message. A header of another type counts as missing.
    #[must_use]
    pub fn from_table(table: Option<&FieldTable>) -> Self {
        let value = |name| table.and_then(|table| table.inner().get(name));
        let attempt = value(ATTEMPT_HEADER)
            .and_then(as_u32)
            .and_then(NonZeroU32::new)
            .map_or(Attempt::FIRST, Attempt);
        let reason = match value(REASON_HEADER) {
            Some(AMQPValue::LongString(text)) => Some(text.to_string()),
            _ => None,
        };
        Self {
            attempt,
            reason,
            traces: table.map_or_else(TraceSet::default, read_traces),
            accepted_at: value(ACCEPTED_AT_HEADER).and_then(as_time),
        }
    }

    /// The headers as AMQP carries them. The reason is shortened, because all headers have to fit into
    /// one frame, and the broker closes a connection that sends a larger frame.
    #[must_use]
    pub fn to_table(&self) -> FieldTable {
        let mut table = FieldTable::default();
        table.insert(
            ATTEMPT_HEADER.into(),
            AMQPValue::LongLongInt(i64::from(self.attempt.0.get())),
        );
        if let Some(reason) = &self.reason {
            table.insert(
                REASON_HEADER.into(),
                AMQPValue::LongString(shortened(reason).into()),
            );
        }
        if let Some(accepted_at) = self.accepted_at {
            let millis = AMQPValue::LongLongInt(millis(accepted_at));
            table.insert(ACCEPTED_AT_HEADER.into(), millis);
        }
        write_traces(&self.traces, &mut table);
        table
    }
}

fn as_time(value: &AMQPValue) -> Option<SystemTime> {
    let AMQPValue::LongLongInt(millis) = value else {
        return None;
    };
    let since = Duration::from_millis(u64::try_from(*millis).ok()?);
    UNIX_EPOCH.checked_add(since)
}

/// Headers with the first trace, and with the state that other systems keep in it.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Header with the other traces of a batch.
const FURTHER: &str = "x-further-traceparents";

fn write_traces(traces: &TraceSet, table: &mut FieldTable) {
    let text = |text: String| AMQPValue::LongString(text.into());
    let mut contexts = traces.contexts();
    let Some(first) = contexts.next() else {
        return;
    };
    table.insert(TRACEPARENT.into(), text(first.parent));
    if let Some(state) = first.state {
        table.insert(TRACESTATE.into(), text(state));
    }
    let mut further = FieldArray::default();
    for context in contexts {
        further.push(text(context.parent));
    }
    if !further.as_slice().is_empty() {
        table.insert(FURTHER.into(), AMQPValue::FieldArray(further));
    }
}

fn read_traces(table: &FieldTable) -> TraceSet {
    let text = |name| table.inner().get(name).and_then(as_text);
    let first = text(TRACEPARENT).map(|parent| TraceContext {
        parent,
        state: text(TRACESTATE),
    });
    let further = match table.inner().get(FURTHER) {
        Some(AMQPValue::FieldArray(values)) => values.as_slice(),
        _ => &[],
    };
    let further = further
        .iter()
        .filter_map(as_text)
        .map(|parent| TraceContext {
            parent,
            state: None,
        });
    TraceSet::from_contexts(first.into_iter().chain(further))
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// A long text without its middle. Parsers quote their input, which may be long. The error stands at the
/// start, and its position at the end.
#[must_use]
pub fn shortened(text: &str) -> String {
    const ENDS: usize = 120;
    let length = text.chars().count();
    if length <= 2 * ENDS {
        return text.to_owned();
    }
    let start: String = text.chars().take(ENDS).collect();
    let end: String = text.chars().skip(length - ENDS).collect();
    format!("{start} ... {end}")
}

/// Other clients and operators may write the number in any of AMQP's integer types.
fn as_u32(value: &AMQPValue) -> Option<u32> {
    match *value {
        AMQPValue::ShortShortInt(n) => n.try_into().ok(),
        AMQPValue::ShortShortUInt(n) => Some(n.into()),
        AMQPValue::ShortInt(n) => n.try_into().ok(),
        AMQPValue::ShortUInt(n) => Some(n.into()),
        AMQPValue::LongInt(n) => n.try_into().ok(),
        AMQPValue::LongUInt(n) => Some(n),
        AMQPValue::LongLongInt(n) => n.try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_round_trip() {
        let headers = Headers {
            attempt: Attempt::FIRST.next(),
            reason: Some("status 503".into()),
            traces: TraceSet::from_traceparent(Some(format!("00-{:032x}-{:016x}-01", 7, 8))),
            accepted_at: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
        };
        assert_eq!(Headers::from_table(Some(&headers.to_table())), headers);
        assert_eq!(Headers::from_table(None), Headers::default());
    }

    #[test]
    fn a_long_reason_keeps_its_start_and_its_end() {
        let reason = Some(format!("start {} end", "ä".repeat(200_000)));
        let headers = Headers {
            reason,
            ..Headers::default()
        };
        let sent = Headers::from_table(Some(&headers.to_table()))
            .reason
            .unwrap();
        assert!(
            sent.len() < 1_000 && sent.starts_with("start ") && sent.ends_with(" end"),
            "{sent}"
        );
    }

    #[test]
    fn a_nonsensical_attempt_header_counts_as_the_first_attempt() {
        let mut table = FieldTable::default();
        table.insert(ATTEMPT_HEADER.into(), AMQPValue::LongLongInt(-3));
        assert_eq!(Headers::from_table(Some(&table)).attempt, Attempt::FIRST);
    }

    #[test]
    fn the_traces_of_a_message_survive_the_round_trip() {
        let context = |parent: &str, state: Option<&str>| TraceContext {
            parent: parent.to_owned(),
            state: state.map(str::to_owned),
        };
        let first = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let second = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b8-01";
        for traces in [
            TraceSet::default(),
            TraceSet::from_contexts([context(first, None)]),
            TraceSet::from_contexts([context(first, Some("vendor=1")), context(second, None)]),
        ] {
            let mut table = FieldTable::default();
            write_traces(&traces, &mut table);
            assert_eq!(read_traces(&table), traces);
        }
    }
}
