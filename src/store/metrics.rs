//! How a store does, over its life. May be used on any thread; what is asked for is a copy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// Latencies are told apart to about this many digits.
const SIGNIFICANT_DIGITS: u8 = 2;
/// Longer ones count as this: an hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;

/// How a store does.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Of transactions that wrote.
    commits: Mutex<LatencyHistogram>,
    committed_writes: AtomicU64,
    /// Attempts made again.
    retries: AtomicU64,
    /// Connections made in place of lost ones.
    reconnects: AtomicU64,
    /// Times that somebody else's lock was waited for.
    lock_waits: AtomicU64,
}

/// Latencies in milliseconds; 0 where there were none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latencies {
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// All but a hundredth took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// What [`Metrics`] say at some time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct MetricsSnapshot {
    /// How many transactions wrote.
    pub commits: u64,
    /// How many writes are stored.
    pub committed_writes: u64,
    /// How long they took.
    pub commit_latencies: Latencies,
    /// See [`Metrics`].
    pub retries: u64,
    /// See [`Metrics`].
    pub reconnects: u64,
    /// See [`Metrics`].
    pub lock_waits: u64,
    /// How many writes are accepted and not settled.
    pub queued_writes: u64,
    /// How many bytes they are.
    pub queued_bytes: u64,
}

impl Metrics {
    /// A transaction is committed, and took this long.
    pub fn note_commit(&self, latency: Duration) {
        self.commits.lock().record(latency);
    }

    /// So many writes are stored.
    pub fn note_stored(&self, writes: usize) {
        let writes = u64::try_from(writes).unwrap_or(u64::MAX);
        self.committed_writes.fetch_add(writes, Ordering::Relaxed);
    }

    /// An attempt is made again.
    pub fn note_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is made in place of a lost one.
    pub fn note_reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody else's lock is waited for.
    pub fn note_lock_wait(&self) {
        self.lock_waits.fetch_add(1, Ordering::Relaxed);
    }

    /// What there is to say now, but for the queue.
    pub fn snapshot(&self) -> MetricsSnapshot {
        let commits = self.commits.lock();
        MetricsSnapshot {
            commits: commits.count(),
            committed_writes: self.committed_writes.load(Ordering::Relaxed),
            commit_latencies: commits.latencies(),
            retries: self.retries.load(Ordering::Relaxed),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            lock_waits: self.lock_waits.load(Ordering::Relaxed),
            ..MetricsSnapshot::default()
        }
    }
}

impl MetricsSnapshot {
    /// The same, of a store with so many writes queued, of so many bytes.
    pub fn with_queue(self, writes: usize, bytes: usize) -> Self {
        let number = |count| u64::try_from(count).unwrap_or(u64::MAX);
        Self { queued_writes: number(writes), queued_bytes: number(bytes), ..self }
    }
}

/// A histogram of latencies.
#[derive(Debug)]
pub struct LatencyHistogram(Histogram<u64>);

impl Default for LatencyHistogram {
    fn default() -> Self {
        let histogram = Histogram::new_with_max(MAX_LATENCY_US, SIGNIFICANT_DIGITS);
        Self(histogram.expect("bounds that it can have"))
    }
}

impl LatencyHistogram {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What there is to say now.
    pub fn latencies(&self) -> Latencies {
        if self.0.is_empty() {
            return Latencies::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "an hour is exact")]
        let ms = |microseconds: u64| microseconds as f64 / 1_000.0;
        Latencies {
            p50_ms: ms(self.0.value_at_quantile(0.5)),
            p99_ms: ms(self.0.value_at_quantile(0.99)),
            max_ms: ms(self.0.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_nothing_are_zero() {
        assert_eq!(Metrics::default().snapshot(), MetricsSnapshot::default());
    }

    #[test]
    fn latencies_are_told_to_two_digits() {
        let metrics = Metrics::default();
        for milliseconds in 1..=100 {
            metrics.note_commit(Duration::from_millis(milliseconds));
        }
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.commits, 100);
        let Latencies { p50_ms, p99_ms, max_ms } = snapshot.commit_latencies;
        for (found, expected) in [(p50_ms, 50.0), (p99_ms, 99.0), (max_ms, 100.0)] {
            assert!((found - expected).abs() <= expected / 50.0, "{found} for {expected}");
        }
    }
}
