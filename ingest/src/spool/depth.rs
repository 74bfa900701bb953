//! How much is in the spool.

use std::time::SystemTime;

use super::segment::Segment;
use crate::metrics::{Place, SPOOL_BYTES, SPOOL_SEGMENTS};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) segments: u64,
}

impl Size {
    /// Adds a segment of this size.
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.segments += 1;
    }

    /// Subtracts a segment of this size.
    pub(super) fn subtract(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.segments = self.segments.saturating_sub(1);
    }
}

/// What is in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Depth {
    /// In the folder that this replica appends to.
    pub(super) own: Size,
    /// In folders that were adopted from other replicas.
    pub(super) adopted: Size,
    /// When the oldest callback was accepted.
    pub(super) oldest: Option<SystemTime>,
}

impl Depth {
    pub(super) fn bytes(&self) -> u64 {
        self.own.bytes + self.adopted.bytes
    }

    pub(super) fn segments(&self) -> u64 {
        self.own.segments + self.adopted.segments
    }

    pub(super) fn part(&mut self, segment: &Segment) -> &mut Size {
        if segment.adopted {
            &mut self.adopted
        } else {
            &mut self.own
        }
    }
}

/// Shows how much is at a place below the directory.
pub(super) fn show(place: Place, size: Size) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges are floating-point numbers"
    )]
    {
        SPOOL_BYTES.of(&place).set(size.bytes as f64);
        SPOOL_SEGMENTS.of(&place).set(size.segments as f64);
    }
}
