//! Latencies, counted in buckets: memory that does not grow, and a known error.

/// Buckets for each power of two: a value is told apart from one that differs by 1 in 128.
const BITS: u32 = 7;
const PER_POWER: usize = 1 << BITS;
/// The values below [`PER_POWER`] have a bucket each; then come the powers of two up to 2^63.
const BUCKETS: usize = PER_POWER * (64 - BITS as usize + 1);

/// Counts of values of any size. Its quantiles are at most 1/128 above the exact ones, its highest
/// value is exact.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    highest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), total: 0, highest: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count += 1;
        }
        self.total += 1;
        self.highest = self.highest.max(value);
    }

    /// Counts all that the other has counted.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(to, from)| *to += from);
        self.total += other.total;
        self.highest = self.highest.max(other.highest);
    }

    /// Values counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The highest value; 0 where there is none.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// The least value that at least `share` (0 to 1) of all values do not exceed; 0 where there is
    /// none.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((share * self.total as f64).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        bucket.map_or(self.highest, |bucket| last_of(bucket).min(self.highest))
    }
}

fn bucket(value: u64) -> usize {
    // The powers of two that are cut off, so that BITS + 1 digits are left.
    let cut = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    // Those digits have their highest set from the second power on, which counts one power more.
    (cut as usize) * PER_POWER + (value >> cut) as usize
}

/// The highest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    let cut = (bucket / PER_POWER).saturating_sub(1);
    let digits = (bucket - cut * PER_POWER) as u64;
    (digits << cut) | ((1 << cut) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_are_in_order_and_without_gaps() {
        assert_eq!((bucket(0), bucket(127), bucket(128), bucket(255), bucket(256)), (0, 127, 128, 255, 256));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for index in 0..BUCKETS {
            let last = last_of(index);
            assert_eq!(bucket(last), index);
            assert_eq!(last.checked_add(1).map_or(index + 1, bucket), index + 1);
        }
    }

    #[test]
    fn nothing_has_no_latency() {
        let empty = Histogram::default();
        assert_eq!((empty.total(), empty.quantile(0.5), empty.highest()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn quantiles_are_at_most_a_128th_above_the_exact_ones(
            values in proptest::collection::vec((0u32..64).prop_flat_map(|bits| 0..=(u64::MAX >> bits)), 1..300),
            split in 0usize..300,
        ) {
            let (mut one, mut other) = (Histogram::default(), Histogram::default());
            for (index, value) in values.iter().enumerate() {
                if index < split { one.record(*value) } else { other.record(*value) }
            }
            one.add(&other);
            let mut sorted = values.clone();
            sorted.sort_unstable();
            for share in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
                let rank = ((share * sorted.len() as f64).ceil() as usize).max(1);
                let exact = sorted[rank - 1];
                let got = one.quantile(share);
                prop_assert!(got >= exact && got - exact <= exact / 128, "{share}: {got} for {exact}");
            }
            prop_assert_eq!(one.quantile(1.0), one.highest());
            prop_assert_eq!((one.highest(), one.total()), (sorted[sorted.len() - 1], sorted.len() as u64));
        }
    }
}
