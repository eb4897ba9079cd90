//! Latencies, counted in buckets: memory that does not grow, and a known error.

use hdrhistogram::Histogram as Buckets;

/// Significant digits in base ten. Two make 128 buckets for each power of two.
const DIGITS: u8 = 2;

/// Counts of values of any size. Its quantiles are at most 1/128 above the exact ones, its highest
/// value is exact.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Buckets<u64>,
    highest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "it fails for bounds in the wrong order and for more than five digits")]
        let buckets = Buckets::new_with_max(u64::MAX, DIGITS).expect("the bounds are in order");
        Self { buckets, highest: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.buckets.saturating_record(value);
        self.highest = self.highest.max(value);
    }

    /// Counts all that the other has counted.
    pub fn add(&mut self, other: &Self) {
        // It fails for histograms of other bounds, of which there are none.
        let _ = self.buckets.add(&other.buckets);
        self.highest = self.highest.max(other.highest);
    }

    /// Returns the number of values counted.
    pub fn total(&self) -> u64 {
        self.buckets.len()
    }

    /// Returns the highest value; 0 if there is none.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Returns the least value that at least `share` (0 to 1) of all values do not exceed; 0 if there is none.
    pub fn quantile(&self, share: f64) -> u64 {
        // For a share of zero the crate returns the lower end of the bucket.
        self.buckets.value_at_quantile(share.max(f64::MIN_POSITIVE)).min(self.highest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
