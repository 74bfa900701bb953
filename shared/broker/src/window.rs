//! How many messages a consumer takes ahead: as many as keep its handler busy, whatever their size.
//!
//! The broker counts messages, and a handler's work may be of any size: one message has 1 id, the next has
//! 500. So the window follows the handler's own account of its work. It grows while all of it is used and the
//! handler has too little to do, and shrinks when the handler has too much, or when most of it is not used. It
//! grows by a factor at most, because the messages that come next may be larger than those that came before.

use std::time::Duration;

use crate::handler::Load;

/// How many messages may be at hand whatever their size, so that a handler has the next message while it
/// finishes one.
const FLOOR: u16 = 8;

/// Maximum growth at one look, as a factor.
const GROWTH: usize = 4;

/// The time between two looks. Messages that have just been taken have to be counted as work by then.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How many looks in a row must find too little to do before the window grows. Between the end of one message and the
/// arrival of the next one there is always a little less.
const SHORT_LOOKS: u32 = 3;

/// How many looks in a row must find a part unused before it is given up: one second.
const UNUSED_LOOKS: u32 = 100;

/// The parts of the window, each of which is the prefetch of one consumer. The first one stays.
#[derive(Debug)]
pub(crate) struct Window {
    parts: Vec<u16>,
    max: usize,
    /// The largest number of messages at hand since the last look.
    peak: usize,
    short_looks: u32,
    unused_looks: u32,
}

/// How the window is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A further part, of this number of messages.
    Add(u16),
    /// The last part ends.
    EndLast,
}

impl Window {
    /// A window of at most `max` messages. With a handler that says how busy it is, it begins small.
    pub(crate) fn new(max: u16, is_adaptive: bool) -> Self {
        let first = if is_adaptive { max.min(FLOOR) } else { max };
        Self {
            parts: vec![first],
            max: max.into(),
            peak: 0,
            short_looks: 0,
            unused_looks: 0,
        }
    }

    pub(crate) fn first(&self) -> u16 {
        self.parts[0]
    }

    fn size(&self) -> usize {
        self.parts.iter().copied().map(usize::from).sum()
    }

    /// Notes the number of messages at hand after one was taken.
    pub(crate) fn note(&mut self, at_hand: usize) {
        self.peak = self.peak.max(at_hand);
    }

    /// Whether a look may change anything.
    pub(crate) fn needs_look(&self) -> bool {
        self.parts.len() > 1 || self.is_used_up() && self.size() < self.max
    }

    fn is_used_up(&self) -> bool {
        self.peak >= self.size()
    }

    /// Decides on the window, while so many messages are at hand.
    pub(crate) fn look(&mut self, at_hand: usize, load: Load) -> Option<Change> {
        let change = self.change(load);
        self.peak = at_hand;
        match change? {
            Change::Add(part) => self.parts.push(part),
            Change::EndLast => drop(self.parts.pop()),
        }
        self.short_looks = 0;
        self.unused_looks = 0;
        change
    }

    fn change(&mut self, load: Load) -> Option<Change> {
        if self.is_used_up() && load.at_hand < load.wanted {
            self.short_looks += 1;
            if self.short_looks < SHORT_LOOKS {
                return None;
            }
            return self.growth(load).map(Change::Add);
        }
        self.short_looks = 0;
        let last = self.parts[1..].last()?;
        let is_unused = self.peak <= (self.size() - usize::from(*last)) / 2;
        self.unused_looks = if is_unused { self.unused_looks + 1 } else { 0 };
        let has_too_much = load.at_hand > 2 * load.wanted;
        (has_too_much || self.unused_looks >= UNUSED_LOOKS).then_some(Change::EndLast)
    }

    /// The part that is missing until there is half more work at hand than is wanted, if further messages are
    /// as large as those at hand.
    fn growth(&self, load: Load) -> Option<u16> {
        let size = self.size();
        let aim = load.wanted + load.wanted / 2;
        let fitting = size.saturating_mul(aim).div_ceil(load.at_hand.max(1));
        let part = fitting.min(size * GROWTH).min(self.max).checked_sub(size)?;
        u16::try_from(part).ok().filter(|part| *part > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks for a second at a handler that has `ids` in each message, and a queue that never ends. Returns
    /// the number of ids at hand in the end.
    fn settle(window: &mut Window, ids: usize, wanted: usize) -> usize {
        for _ in 0..=UNUSED_LOOKS {
            let messages = window.size();
            window.note(messages);
            let at_hand = messages * ids;
            window.look(messages, Load { at_hand, wanted });
        }
        window.size() * ids
    }

    #[test]
    fn messages_of_any_size_keep_the_handler_busy_and_no_more() {
        for (ids, wanted) in [
            (1, 32_768),
            (50, 32_768),
            (200, 32_768),
            (50, 1_024),
            (200, 5_000),
        ] {
            let mut window = Window::new(u16::MAX, true);
            let at_hand = settle(&mut window, ids, wanted);
            assert!(at_hand >= wanted, "{at_hand} of {wanted}, {ids} a message");
            assert!(
                at_hand <= 2 * wanted,
                "{at_hand} of {wanted}, {ids} a message"
            );
        }
    }

    #[test]
    fn huge_messages_are_taken_a_few_at_a_time() {
        let mut window = Window::new(u16::MAX, true);
        assert_eq!(
            settle(&mut window, 10_000, 1_024),
            usize::from(FLOOR) * 10_000
        );
    }

    #[test]
    fn it_shrinks_when_messages_become_larger() {
        let mut window = Window::new(u16::MAX, true);
        settle(&mut window, 1, 4_096);
        let at_hand = settle(&mut window, 500, 4_096);
        assert!(at_hand <= 2 * 4_096, "{at_hand}");
    }

    #[test]
    fn it_shrinks_when_less_is_wanted() {
        let mut window = Window::new(u16::MAX, true);
        settle(&mut window, 50, 32_768);
        let at_hand = settle(&mut window, 50, 1_024);
        assert!(at_hand <= 2 * 1_024, "{at_hand}");
    }

    #[test]
    fn what_is_not_used_for_a_second_is_given_up() {
        let mut window = Window::new(u16::MAX, true);
        settle(&mut window, 1, 1_024);
        let load = Load {
            at_hand: 1_024,
            wanted: 1_024,
        };
        // Until then all of it was used.
        window.look(10, load);
        for _ in 1..UNUSED_LOOKS {
            window.note(10);
            assert_eq!(window.look(10, load), None);
        }
        window.note(10);
        assert_eq!(window.look(10, load), Some(Change::EndLast));
        while window.needs_look() {
            window.look(
                0,
                Load {
                    at_hand: 0,
                    wanted: 1_024,
                },
            );
        }
        assert_eq!(window.size(), usize::from(FLOOR));
    }

    #[test]
    fn a_window_that_is_not_used_up_does_not_grow() {
        let mut window = Window::new(u16::MAX, true);
        window.note(usize::from(FLOOR) - 1);
        assert!(!window.needs_look());
        let load = Load {
            at_hand: 0,
            wanted: 1_024,
        };
        assert_eq!(window.look(0, load), None);
    }

    #[test]
    fn it_grows_by_a_factor_because_the_next_messages_may_be_larger() {
        let mut window = Window::new(u16::MAX, true);
        let load = Load {
            at_hand: 8,
            wanted: 1_024,
        };
        let mut look = || {
            window.note(window.size());
            window.look(0, load)
        };
        // What is missing for a moment is on its way.
        for _ in 1..SHORT_LOOKS {
            assert_eq!(look(), None);
        }
        assert_eq!(look(), Some(Change::Add(3 * FLOOR)));
    }

    #[test]
    fn it_never_exceeds_the_maximum() {
        for max in [1, 5, 20] {
            let mut window = Window::new(max, true);
            assert_eq!(settle(&mut window, 1, 1_024), usize::from(max));
        }
        let window = Window::new(1_000, false);
        assert_eq!((window.first(), window.needs_look()), (1_000, false));
    }
}
