//! How much each source may send. Each has a bucket, which fills at a steady rate.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What a source may send at once is what fills its bucket in this time.
const BURST: Duration = Duration::from_secs(10);

/// A source is forgotten when this many others were seen since it was seen last. With twice as many
/// known at most, the buckets of one kind take up to 6 MiB.
const REMEMBERED: usize = 50_000;

/// Who sends callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The holder of the key at this place among `WEBHOOK_SECRETS`.
    Key(usize),
    /// Of an IPv6 address only the first half: its owner has all addresses that differ in the other half.
    Address(IpAddr),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        const FIRST_HALF: u128 = !0 << 64;
        Self::Address(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & FIRST_HALF).into(),
        })
    }
}

/// Limits the rate of each source, with a bucket for each.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// How much flows into each in a second.
    rate: u64,
    buckets: Mutex<RecentBuckets>,
}

/// The buckets that were used lately. A full bucket and none are the same.
#[derive(Debug, Default)]
struct RecentBuckets {
    /// When each will be full.
    current: HashMap<Source, Instant>,
    /// Those that were not used since `current` was empty.
    previous: HashMap<Source, Instant>,
}

impl RateLimiter {
    /// No buckets if `rate` is 0.
    pub(crate) fn new(rate: u64) -> Option<Self> {
        (rate > 0).then(|| Self {
            rate,
            buckets: Mutex::default(),
        })
    }

    /// Takes an amount from the bucket of a source. While anything is left, the amount may be larger:
    /// the rest is owed. So no callback is too large for ever.
    ///
    /// # Errors
    /// The bucket is empty. Some will be left after this time.
    pub(crate) fn take(&self, source: Source, amount: usize, now: Instant) -> Result<(), Duration> {
        const SECOND: u64 = 1_000_000_000;
        let mut buckets = self.buckets.lock();
        let full_at = buckets.full_at(source, now);
        let missing = full_at.saturating_duration_since(now);
        if let Some(wait) = missing.checked_sub(BURST) {
            return Err(wait);
        }
        let nanoseconds = (amount as u64).saturating_mul(SECOND) / self.rate;
        *full_at = now + missing + Duration::from_nanos(nanoseconds);
        Ok(())
    }
}

impl RecentBuckets {
    fn full_at(&mut self, source: Source, now: Instant) -> &mut Instant {
        if !self.current.contains_key(&source) {
            let full_at = self.previous.remove(&source).unwrap_or(now);
            if self.current.len() == REMEMBERED {
                self.previous = std::mem::take(&mut self.current);
            }
            self.current.insert(source, full_at);
        }
        self.current.entry(source).or_insert(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().unwrap().into()
    }

    /// How many callbacks are taken at once.
    fn taken(limiter: &RateLimiter, source: Source, now: Instant) -> usize {
        std::iter::repeat_with(|| limiter.take(source, 1, now))
            .take_while(Result::is_ok)
            .count()
    }

    #[test]
    fn a_source_may_send_at_its_rate_and_for_ten_seconds_at_once() {
        let (limiter, start) = (RateLimiter::new(5).unwrap(), Instant::now());
        let (one, other) = (source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(taken(&limiter, one, start), 50);
        assert_eq!(taken(&limiter, other, start), 50);
        for second in 1..5 {
            assert_eq!(taken(&limiter, one, start + SECOND * second), 5);
        }
        assert_eq!(taken(&limiter, one, start + SECOND * 1_000), 50);
        assert_eq!(taken(&limiter, Source::Key(0), start), 50);
    }

    #[test]
    fn what_is_owed_is_waited_for() {
        let (limiter, start) = (RateLimiter::new(100).unwrap(), Instant::now());
        let one = source("192.0.2.1");
        assert_eq!(limiter.take(one, 5_000, start), Ok(()));
        assert_eq!(limiter.take(one, 1, start), Err(40 * SECOND));
        // A source that asks in vain owes no more.
        assert_eq!(limiter.take(one, 1, start + 30 * SECOND), Err(10 * SECOND));
        let paid = start + 40 * SECOND + Duration::from_nanos(1);
        assert_eq!(limiter.take(one, 0, paid), Ok(()));
        assert_eq!(limiter.take(one, 1, paid), Ok(()));
    }

    #[test]
    fn the_largest_amounts_at_the_least_rate_are_waited_for() {
        let (limiter, start) = (RateLimiter::new(1).unwrap(), Instant::now());
        assert_eq!(limiter.take(Source::Key(0), 1_000_000, start), Ok(()));
        let wait = limiter.take(Source::Key(0), 1, start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(999_990));
        assert!(RateLimiter::new(0).is_none());
    }

    #[test]
    fn an_ipv6_host_is_one_source_whatever_address_it_takes() {
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:0:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_memory_and_frees_nobody_who_goes_on_sending() {
        let (limiter, start) = (RateLimiter::new(1).unwrap(), Instant::now());
        let sender = source("192.0.2.1");
        assert_eq!(taken(&limiter, sender, start), 10);
        for number in 0..1_000_000_u128 {
            let made_up = Ipv6Addr::from_bits((0x2001_0db8 << 96) | (number << 64));
            let made_up = IpAddr::from(made_up).into();
            assert_eq!(limiter.take(made_up, 1, start), Ok(()));
            if number % 40_000 == 0 {
                assert!(limiter.take(sender, 1, start).is_err(), "after {number}");
            }
        }
        let recent = limiter.buckets.lock();
        assert!(recent.current.len() + recent.previous.len() <= 2 * REMEMBERED);
        assert!(recent.current.capacity() + recent.previous.capacity() < 4 * REMEMBERED);
    }
}
