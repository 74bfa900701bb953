//! A callback as a record in a segment. See the module `spool` for the format.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use messages::{Message, MessageError, ObjectId, decode, encode};
use serde::{Deserialize, Serialize};

const MARKER: [u8; 4] = *b"\xcbsp1";
/// Marker, length and checksum: four bytes each, numbers little-endian.
const HEADER: usize = 12;
/// The time of acceptance: milliseconds since 1970, little-endian.
const ACCEPTED_AT: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SpooledCallback {
    /// Distinct ids, in no particular order.
    pub(super) object_ids: Vec<ObjectId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) traceparent: Option<String>,
}

impl Message for SpooledCallback {
    const VERSION: u32 = 1;
    const KIND: &'static str = "spooled_callback";
}

/// A callback as bytes to be appended.
pub(super) fn frame(
    callback: &SpooledCallback,
    accepted_at: SystemTime,
) -> Result<Vec<u8>, serde_json::Error> {
    let message = encode(callback)?;
    let millis = accepted_at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis();
    let mut content = u64::try_from(millis)
        .unwrap_or(u64::MAX)
        .to_le_bytes()
        .to_vec();
    content.extend_from_slice(&message);
    let length = u32::try_from(content.len()).map_err(serde::ser::Error::custom)?;
    let mut record = MARKER.to_vec();
    record.extend_from_slice(&length.to_le_bytes());
    record.extend_from_slice(&crc32fast::hash(&content).to_le_bytes());
    record.append(&mut content);
    Ok(record)
}

/// A record whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Milliseconds since 1970.
    accepted_at: u64,
    message: &'a [u8],
}

impl Record<'_> {
    /// When the callback was accepted.
    pub(super) fn accepted_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_millis(self.accepted_at))
    }

    /// # Errors
    /// It was written by a version that this binary does not know.
    pub(super) fn callback(&self) -> Result<SpooledCallback, MessageError> {
        decode(self.message)
    }
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records<'a> {
    /// Every record whose checksum is right, in the order in which they were written.
    pub(super) readable: Vec<Record<'a>>,
    /// Bytes that are no record.
    pub(super) damaged: Vec<Range<usize>>,
    /// The beginning of a record that the end of the segment cuts off.
    pub(super) cut_off: Option<Range<usize>>,
}

impl<'a> Records<'a> {
    pub(super) fn read(segment: &'a [u8]) -> Self {
        let mut records = Self::default();
        let mut at = 0;
        while let Some(rest) = segment.get(at..).filter(|rest| !rest.is_empty()) {
            if let Some((record, length)) = first(rest) {
                records.readable.push(record);
                at += length;
                continue;
            }
            let skipped = at..at + to_next_marker(rest);
            at = skipped.end;
            if skipped.end == segment.len() && is_cut_off(rest) {
                records.cut_off = Some(skipped);
            } else {
                records.damage(skipped);
            }
        }
        records
    }

    fn damage(&mut self, bytes: Range<usize>) {
        match self.damaged.last_mut() {
            Some(last) if last.end == bytes.start => last.end = bytes.end,
            _ => self.damaged.push(bytes),
        }
    }
}

/// The little-endian number in the four bytes from `at` on.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let number = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*number))
}

/// The record at the beginning of `bytes`, and its length.
fn first(bytes: &[u8]) -> Option<(Record<'_>, usize)> {
    if !bytes.starts_with(&MARKER) {
        return None;
    }
    let end = HEADER.checked_add(number(bytes, 4)? as usize)?;
    let content = bytes.get(HEADER..end)?;
    if crc32fast::hash(content) != number(bytes, 8)? {
        return None;
    }
    let (accepted_at, message) = content.split_first_chunk::<ACCEPTED_AT>()?;
    let accepted_at = u64::from_le_bytes(*accepted_at);
    let record = Record {
        accepted_at,
        message,
    };
    Some((record, end))
}

/// Whether `bytes` are the beginning of a record, and not a whole record whose length was damaged.
fn is_cut_off(bytes: &[u8]) -> bool {
    let marker = bytes.len().min(MARKER.len());
    if bytes[..marker] != MARKER[..marker] {
        return false;
    }
    match (number(bytes, 4), number(bytes, 8), bytes.get(HEADER..)) {
        (Some(length), Some(checksum), Some(content)) => {
            content.len() < length as usize && crc32fast::hash(content) != checksum
        }
        _ => true,
    }
}

/// The distance from the first byte to the next marker, or to the end.
fn to_next_marker(bytes: &[u8]) -> usize {
    bytes
        .windows(MARKER.len())
        .skip(1)
        .position(|window| window == MARKER)
        .map_or(bytes.len(), |position| position + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn record(id: i64) -> Vec<u8> {
        let callback = SpooledCallback {
            object_ids: vec![ObjectId(id)],
            traceparent: None,
        };
        frame(
            &callback,
            UNIX_EPOCH + Duration::from_millis(id.unsigned_abs()),
        )
        .unwrap()
    }

    fn segment(ids: impl IntoIterator<Item = i64>) -> Vec<u8> {
        ids.into_iter().flat_map(record).collect()
    }

    fn ids(records: &Records<'_>) -> Vec<i64> {
        records
            .readable
            .iter()
            .flat_map(|record| record.callback().unwrap().object_ids)
            .map(|id| id.0)
            .collect()
    }

    fn only(places: &[Range<usize>]) -> Range<usize> {
        assert_eq!(places.len(), 1, "{places:?}");
        places[0].clone()
    }

    #[test]
    fn callbacks_are_read_in_the_order_in_which_they_were_written() {
        let segment = segment([5, i64::MIN, 0]);
        let records = Records::read(&segment);
        assert_eq!(ids(&records), [5, i64::MIN, 0]);
        assert_eq!((records.cut_off, records.damaged), (None, vec![]));
    }

    #[test]
    fn a_record_is_written_as_it_always_was() {
        let golden = b"\xcbsp1\x26\x00\x00\x00\xd4\x99\xff\xd4\x07\0\0\0\0\0\0\0{\"version\":1,\"object_ids\":[7]}";
        assert_eq!(record(7), golden);
    }

    #[test]
    fn a_callback_keeps_its_trace() {
        let callback = SpooledCallback {
            object_ids: vec![ObjectId(7)],
            traceparent: Some("00-07-08-01".to_owned()),
        };
        let record = frame(&callback, UNIX_EPOCH).unwrap();
        let records = Records::read(&record);
        assert_eq!(records.readable[0].callback().unwrap(), callback);
    }

    #[test]
    fn a_marker_within_what_cannot_be_read_is_no_record() {
        let mut damaged = segment([1]);
        let kept = damaged.len();
        damaged.extend_from_slice(&[0xff; 40]);
        damaged.extend_from_slice(&MARKER);
        damaged.extend_from_slice(&[0; 40]);
        let records = Records::read(&damaged);
        assert_eq!((ids(&records), records.cut_off), (vec![1], None));
        assert_eq!(only(&records.damaged), kept..kept + 84);
    }

    #[test]
    fn a_record_that_is_all_there_was_not_cut_off() {
        let mut changed = segment([1, 2]);
        let second = changed.len() / 2;
        changed[second + 5] ^= 1;
        let records = Records::read(&changed);
        assert_eq!((ids(&records), records.cut_off), (vec![1], None));
        assert_eq!(only(&records.damaged), second..changed.len());
    }

    proptest! {
        #[test]
        fn a_cut_costs_only_the_record_that_it_hits(count in 1_i64..20, cut in any::<prop::sample::Index>()) {
            let whole = segment(10..10 + count);
            let cut = cut.index(whole.len());
            let records = Records::read(&whole[..cut]);
            let kept = cut / record(10).len();
            prop_assert_eq!(ids(&records), (10..10 + i64::try_from(kept).unwrap()).collect::<Vec<_>>());
            let end = kept * record(10).len();
            prop_assert_eq!(records.cut_off, (end < cut).then_some(end..cut));
            prop_assert!(records.damaged.is_empty());
        }

        #[test]
        fn garbage_behind_the_last_record_costs_nothing(count in 0_i64..20, garbage: Vec<u8>) {
            let mut torn = segment(0..count);
            torn.extend_from_slice(&garbage);
            let records = Records::read(&torn);
            prop_assert_eq!(ids(&records), (0..count).collect::<Vec<_>>());
            let unreadable: Vec<_> = records.damaged.into_iter().chain(records.cut_off).collect();
            let whole = torn.len() - garbage.len()..torn.len();
            prop_assert!(garbage.is_empty() && unreadable.is_empty() || only(&unreadable) == whole);
        }

        #[test]
        fn damage_costs_only_the_records_that_it_hits(at in any::<prop::sample::Index>(), byte: u8) {
            let mut segment = segment(10..20);
            let length = segment.len() / 10;
            let at = at.index(segment.len());
            prop_assume!(segment[at] != byte);
            segment[at] = byte;
            let records = Records::read(&segment);
            let hit = at / length;
            let id = 10 + i64::try_from(hit).unwrap();
            prop_assert_eq!(ids(&records), (10..20).filter(|other| *other != id).collect::<Vec<_>>());
            prop_assert_eq!(records.cut_off, None);
            prop_assert_eq!(only(&records.damaged), hit * length..(hit + 1) * length);
        }
    }
}
