//! Sums over many units of which a few, drawn at random, are known.

/// The normal distribution's two-sided 95 %.
const Z: f64 = 1.96;

/// A unit that is known: how large it looked, and what it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// What was known of it before, in proportion: see [`super::guess`].
    pub weight: f64,
    /// What it came to.
    pub value: f64,
}

/// Units, and how large they look together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Units {
    /// How many.
    pub count: u64,
    /// The sum of their weights.
    pub weight: f64,
}

impl Units {
    /// One more.
    pub fn add(&mut self, weight: f64) {
        self.count += 1;
        self.weight += weight;
    }

    /// Those that are not among `known`.
    pub fn without(self, known: impl IntoIterator<Item = f64>) -> Units {
        let less = |rest: Units, weight: f64| Units {
            count: rest.count.saturating_sub(1),
            weight: (rest.weight - weight).max(0.0),
        };
        known.into_iter().fold(self, less)
    }
}

/// A sum, and half the width of the interval that holds it in 95 of 100 samples; infinite where a sample of one cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Likely {
    /// The sum.
    pub value: f64,
    /// The error bar.
    pub error: f64,
}

/// What `rest` will come to, none of which is in the sample: `None` without a sample.
///
/// A regression on the weights (W. G. Cochran, *Sampling Techniques*, 7.2 and 7.3), for a sum of units that are yet to be drawn:
/// their own spread is in the error beside that of the sample's mean. For the units of a finite population that are left this is the
/// same as the usual finite population correction.
pub fn predict(sample: &[Known], rest: Units) -> Option<Likely> {
    let n = sample.len() as f64;
    let mean = |of: fn(&Known) -> f64| sample.iter().map(of).sum::<f64>() / n;
    let (weight, value) = (mean(|known| known.weight), mean(|known| known.value));
    if sample.is_empty() {
        return None;
    }
    let count = rest.count as f64;
    if rest.count == 0 {
        return Some(Likely::default());
    }
    let spread: f64 = sample.iter().map(|known| (known.weight - weight).powi(2)).sum();
    let together: f64 = sample.iter().map(|known| (known.weight - weight) * (known.value - value)).sum();
    // Two points always lie on a line: that tells nothing.
    let slope = if sample.len() > 2 && spread > 0.0 { together / spread } else { 0.0 };
    let away = rest.weight / count - weight;
    let off = |known: &Known| known.value - value - slope * (known.weight - weight);
    let freedom = if slope == 0.0 { n - 1.0 } else { n - 2.0 };
    let sum = count * (value + slope * away);
    if freedom < 1.0 {
        return Some(Likely { value: sum, error: f64::INFINITY });
    }
    let variance = sample.iter().map(|known| off(known).powi(2)).sum::<f64>() / freedom;
    let leverage = if slope == 0.0 { 0.0 } else { away.powi(2) / spread };
    let error = (variance * (count.powi(2) * (1.0 / n + leverage) + count)).sqrt();
    Some(Likely { value: sum.max(0.0), error: student(freedom) * error })
}

/// Student's two-sided 95 % for so many degrees of freedom, by the expansion of Cornish and Fisher.
fn student(freedom: f64) -> f64 {
    let terms = [
        (Z.powi(3) + Z) / 4.0,
        (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0,
        (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * Z.powi(3) - 15.0 * Z) / 384.0,
    ];
    terms.iter().rev().fold(0.0, |sum, term| (sum + term) / freedom) + Z
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    /// By Box and Muller.
    fn normal(rng: &mut Rng) -> f64 {
        (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
    }

    #[test]
    fn student_is_wider_for_few() {
        // From any table of it.
        for (freedom, expected) in [(3.0, 3.182), (4.0, 2.776), (10.0, 2.228), (98.0, 1.984)] {
            assert!((student(freedom) / expected - 1.0).abs() < 0.03, "{freedom}: {}", student(freedom));
        }
    }

    #[test]
    fn the_error_bar_holds_as_often_as_it_says_for_log_normal_values() {
        let seed = 20_261_121;
        let mut rng = Rng::with_seed(seed);
        let (worlds, mut held, mut within) = (1_000, 0, 0);
        for _ in 0..worlds {
            let mut unit = || Known { weight: 100.0 + 50.0 * rng.f64(), value: 90.0 * (0.6 * normal(&mut rng)).exp() };
            let all: Vec<Known> = (0..3_000).map(|_| unit()).collect();
            let (sample, rest) = all.split_at(100);
            let mut units = Units::default();
            rest.iter().for_each(|known| units.add(known.weight));
            let truth: f64 = rest.iter().map(|known| known.value).sum();
            let likely = predict(sample, units).unwrap();
            held += u32::from((likely.value - truth).abs() <= likely.error);
            within += u32::from((likely.value / truth - 1.0).abs() <= 0.20);
        }
        // 95 of 100 if values were normal; long tails take some of it.
        assert!((900..=985).contains(&held), "seed {seed}: {held} of {worlds} held");
        assert!(within > 980, "seed {seed}: {within} of {worlds} within a fifth");
    }

    #[test]
    fn what_follows_the_weight_is_known_to_the_last_token_from_few() {
        let known = |weight: f64| Known { weight, value: 300.0 + 1.3 * weight };
        let sample: Vec<Known> = [10.0, 50.0, 20.0, 80.0].map(known).to_vec();
        let likely = predict(&sample, Units { count: 1_000, weight: 90_000.0 }).unwrap();
        assert!((likely.value - (300_000.0 + 1.3 * 90_000.0)).abs() < 1e-6 && likely.error < 1e-6, "{likely:?}");
    }

    #[test]
    fn nothing_is_known_from_nothing_and_no_error_from_one() {
        let rest = Units { count: 10, weight: 100.0 };
        assert_eq!(predict(&[], rest), None);
        let one = predict(&[Known { weight: 5.0, value: 7.0 }], rest).unwrap();
        assert_eq!((one.value, one.error), (70.0, f64::INFINITY));
        assert_eq!(predict(&[Known { weight: 5.0, value: 7.0 }], Units::default()), Some(Likely::default()));
        let same = [Known { weight: 5.0, value: 7.0 }; 5];
        assert_eq!(predict(&same, rest), Some(Likely { value: 70.0, error: 0.0 }));
    }
}
