//! Starting values of parameters.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reid_models::graph::{Init, Param};

/// A generator for one name: the same seed and name give the same numbers, whatever else is drawn before.
pub fn stream(seed: u64, name: &str) -> ChaCha8Rng {
    // FNV-1a; the stream of a ChaCha generator is chosen, not mixed, so that different names never overlap.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(hash);
    rng
}

/// `len` draws from a normal distribution of mean 0.
pub fn normal(rng: &mut ChaCha8Rng, std: f32, len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len + 1);
    while values.len() < len {
        // Box and Muller: two uniform draws make two normal ones.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * f64::from(std);
        let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(len);
    values
}

/// `len` draws from -bound to bound.
pub fn uniform(rng: &mut ChaCha8Rng, bound: f32, len: usize) -> Vec<f32> {
    (0..len)
        .map(|_| bound * (2.0 * rng.random::<f32>() - 1.0))
        .collect()
}

/// The start of a parameter.
pub fn initial(param: &Param, seed: u64) -> Vec<f32> {
    let len = param.shape.iter().product();
    let mut rng = stream(seed, &param.name);
    match param.init {
        Init::Constant { value } => vec![value; len],
        Init::Normal { std } => normal(&mut rng, std, len),
        Init::KaimingNormalFanOut => {
            let receptive: usize = param.shape.iter().skip(2).product();
            let fan_out = param.shape.first().copied().unwrap_or(1) * receptive;
            normal(&mut rng, (2.0 / fan_out.max(1) as f32).sqrt(), len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reid_models::graph::ParamKind;

    fn param(name: &str, shape: &[usize]) -> Param {
        Param {
            name: name.into(),
            shape: shape.to_vec(),
            kind: ParamKind::Trainable,
            init: Init::KaimingNormalFanOut,
        }
    }

    #[test]
    fn kaiming_has_its_spread_and_names_their_own_streams() {
        let a = initial(&param("a", &[64, 32, 3, 3]), 5);
        let n = a.len() as f32;
        let mean = a.iter().sum::<f32>() / n;
        let std = (a.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt();
        let want = (2.0f32 / (64.0 * 9.0)).sqrt();
        assert!(
            mean.abs() < want / 50.0 && (std / want - 1.0).abs() < 0.02,
            "{mean} {std} {want}"
        );
        assert_eq!(a, initial(&param("a", &[64, 32, 3, 3]), 5));
        assert_ne!(a, initial(&param("b", &[64, 32, 3, 3]), 5));
        assert_ne!(a, initial(&param("a", &[64, 32, 3, 3]), 6));
    }
}
