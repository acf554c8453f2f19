//! Medians and quantiles. Pure.

use serde::Serialize;

/// What many measurements of one thing say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    /// Half of the measurements are below.
    pub(super) median: f64,
    /// A quarter is below.
    pub(super) low: f64,
    /// A quarter is above.
    pub(super) high: f64,
    /// 1 in 100 is above.
    pub(super) p99: f64,
    /// How many there were.
    pub(super) count: usize,
}

impl Spread {
    /// `None`: nothing was measured.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&values, 0.5)?,
            low: quantile(&values, 0.25)?,
            high: quantile(&values, 0.75)?,
            p99: quantile(&values, 0.99)?,
            count: values.len(),
        })
    }
}

/// Between the two neighbours in proportion. `sorted` ascends; `None` where it is empty.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let place = q * (sorted.len().checked_sub(1)? as f64);
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let (low, high) = (sorted[below], sorted[above]);
    Some(low + (high - low) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0]);
        let spread = spread.unwrap_or_else(|| unreachable!("four values"));
        assert_eq!((spread.median, spread.low, spread.high), (2.5, 1.75, 3.25));
        assert_eq!(spread.count, 4);
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }
}
