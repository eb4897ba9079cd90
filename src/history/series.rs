//! The course of one figure.

use super::figure::Fold;

/// Rows by the second that are kept.
pub const HOUR: usize = 3600;
/// Rows by the minute that are kept.
pub const DAY: usize = 1440;
/// Bytes of one figure's history.
pub const SERIES_BYTES: usize = (HOUR + DAY) * size_of::<f32>() + size_of::<Series>();
/// Seconds of a minute.
pub(super) const MINUTE: u64 = 60;

/// The course of one figure, at places that row numbers give. [`f32::NAN`] stands where there is none.
#[derive(Debug)]
pub(super) struct Series {
    fold: Fold,
    seconds: Box<[f32]>,
    minutes: Box<[f32]>,
    /// Of the minute that goes on.
    folded: f64,
    /// The seconds of it that had a figure.
    count: u32,
}

impl Series {
    pub fn new(fold: Fold) -> Self {
        let empty = |length| vec![f32::NAN; length].into_boxed_slice();
        Self { fold, seconds: empty(HOUR), minutes: empty(DAY), folded: 0.0, count: 0 }
    }

    /// Takes the figure of a second. Each row number is to be told, in order.
    pub fn push(&mut self, row: u64, figure: f32) {
        put(&mut self.seconds, row, figure);
        if !figure.is_nan() {
            let figure = f64::from(figure);
            self.folded = match self.fold {
                Fold::Max if self.count > 0 => self.folded.max(figure),
                Fold::Sum | Fold::Mean | Fold::Max => self.folded + figure,
            };
            self.count += 1;
        }
        if row % MINUTE == MINUTE - 1 {
            let figure = match (self.fold, self.count) {
                (_, 0) => f64::NAN,
                (Fold::Mean, count) => self.folded / f64::from(count),
                (Fold::Sum | Fold::Max, _) => self.folded,
            };
            put(&mut self.minutes, row / MINUTE, figure as f32);
            (self.folded, self.count) = (0.0, 0);
        }
    }

    /// Returns the figure of a second, of which only the last [`HOUR`] are there.
    pub fn second(&self, row: u64) -> f32 {
        get(&self.seconds, row)
    }

    /// Returns the figure of a minute, likewise.
    pub fn minute(&self, row: u64) -> f32 {
        get(&self.minutes, row)
    }
}

fn put(ring: &mut [f32], row: u64, figure: f32) {
    let place = row % ring.len().max(1) as u64;
    if let Some(there) = ring.get_mut(place as usize) {
        *there = figure;
    }
}

fn get(ring: &[f32], row: u64) -> f32 {
    let place = row % ring.len().max(1) as u64;
    ring.get(place as usize).copied().unwrap_or(f32::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_made_of_their_seconds() {
        let of = |fold| {
            let mut series = Series::new(fold);
            (0..120_u64).for_each(|row| series.push(row, if row < 60 && row % 2 == 0 { 2.0 } else { f32::NAN }));
            assert_eq!(series.second(58), 2.0);
            assert!(series.second(59).is_nan() && series.minute(1).is_nan());
            series.minute(0)
        };
        assert_eq!([Fold::Sum, Fold::Mean, Fold::Max].map(of), [60.0, 2.0, 2.0]);
        let mut falling = Series::new(Fold::Max);
        (0..60_u64).for_each(|row| falling.push(row, -(row as f32)));
        assert_eq!(falling.minute(0), 0.0);
    }

    #[test]
    fn it_goes_round() {
        let mut series = Series::new(Fold::Sum);
        let rows = (2 * DAY as u64) * MINUTE;
        (0..rows).for_each(|row| series.push(row, row as f32));
        assert_eq!(series.second(rows - 1), (rows - 1) as f32);
        assert_eq!(series.second(rows - HOUR as u64), (rows - HOUR as u64) as f32);
        assert!(series.minute(2 * DAY as u64 - 1) > series.minute(DAY as u64));
        assert_eq!((series.seconds.len(), series.minutes.len()), (HOUR, DAY));
    }
}
