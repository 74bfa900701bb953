use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

/// The trace of an observation, by which a point of a graph leads to it. For traces that are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// The trace.
    pub trace_id: u128,
    /// The span in it that the observed work was a part of.
    pub span_id: u64,
}

impl EncodeLabelSet for Exemplar {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Self { trace_id, span_id } = self;
        [
            ("trace_id", format!("{trace_id:032x}")),
            ("span_id", format!("{span_id:016x}")),
        ]
        .encode(encoder)
    }
}
