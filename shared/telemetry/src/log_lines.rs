//! Log lines that name the trace and the span that they are about.

use std::fmt;

use opentelemetry::trace::SpanContext;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Adds `trace_id` and `span_id` to the lines of a format, before their end. The library's formats have
/// no place for fields that the event itself does not have.
pub(crate) struct WithTrace<F> {
    /// Writes the line.
    format: F,
    /// What the line ends with, such as the brace of a JSON object.
    end: &'static str,
    /// Writes the two.
    fields: fn(&SpanContext) -> String,
}

impl<F> WithTrace<F> {
    /// For lines that people read.
    pub(crate) fn text(format: F) -> Self {
        Self {
            format,
            end: "\n",
            fields: |context| {
                let (trace, span) = (context.trace_id(), context.span_id());
                format!(" trace_id={trace} span_id={span}")
            },
        }
    }

    /// For lines that are JSON objects.
    pub(crate) fn json(format: F) -> Self {
        Self {
            format,
            end: "}\n",
            fields: |context| {
                let (trace, span) = (context.trace_id(), context.span_id());
                format!(r#","trace_id":"{trace}","span_id":"{span}""#)
            },
        }
    }
}

impl<F, S, N> FormatEvent<S, N> for WithTrace<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(span) = trace::current() else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format
            .format_event(context, Writer::new(&mut line), event)?;
        let start = line.strip_suffix(self.end).unwrap_or(&line);
        writer.write_str(start)?;
        writer.write_str(&(self.fields)(&span))?;
        writer.write_str(self.end)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::format;

    use super::*;
    use trace::TraceSet;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    async fn log(line: &'static str) {
        TraceSet::from_traceparent(Some(PARENT.to_owned()))
            .scope(async { tracing::info!(ids = 3, "{line}") })
            .await;
        tracing::info!("about nothing");
    }

    #[tokio::test]
    async fn a_line_of_json_is_still_json() {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .event_format(WithTrace::json(format().json().flatten_event(true)))
            .with_writer(move || written.clone())
            .finish();
        let _default = tracing::subscriber::set_default(subscriber);
        log("a } in the text").await;
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["trace_id"], PARENT[3..35]);
        assert_eq!(lines[0]["span_id"], PARENT[36..52]);
        assert_eq!(
            (&lines[0]["message"], &lines[0]["ids"]),
            (&"a } in the text".into(), &3.into())
        );
        assert_eq!(lines[1].get("trace_id"), None);
    }

    #[tokio::test]
    async fn a_line_of_text_names_the_trace_at_its_end() {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(WithTrace::text(format().with_ansi(false)))
            .with_writer(move || written.clone())
            .finish();
        let _default = tracing::subscriber::set_default(subscriber);
        log("posted").await;
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let expected =
            "posted ids=3 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7\n";
        assert!(lines.contains(expected), "{lines}");
        assert!(lines.ends_with("about nothing\n"), "{lines}");
    }
}
