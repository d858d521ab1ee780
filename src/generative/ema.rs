//! The running average of a network: what images are made with, smoother than what was just trained.

use super::network::Network;
use crate::memory::{slice, slice_mut};
use crate::nn::vectorised;
use crate::{Error, Result};

/// How much of the average stays in a step over `batch` images, when `seen` images were seen before it:
/// ½^(batch / min(half-life, seen · ramp)) (Karras et al. 2020). After `half_life` images half of the average is of later
/// weights; while there are few, `ramp` lets it forget how training began.
pub fn keep(half_life: f64, ramp: f64, batch: u64, seen: u64) -> f64 {
    0.5f64.powf(batch as f64 / half_life.min(seen as f64 * ramp).max(1e-8))
}

/// average ← keep · average + (1 − keep) · latest, of the parameters. Buffers are copied: statistics of batches belong to
/// the images that were just seen.
///
/// # Errors
/// Networks of different layouts.
pub fn follow(average: &mut Network, latest: &Network, keep: f64) -> Result<()> {
    let ours = slice_mut::<f32>(&mut average.parameters.weights);
    let theirs = slice::<f32>(&latest.parameters.weights);
    if ours.len() != theirs.len() {
        return Err(Error::Invalid(format!(
            "the average of {} weights does not fit a network of {}",
            ours.len(),
            theirs.len()
        )));
    }
    let new = (1.0 - keep) as f32;
    vectorised(
        #[inline(always)]
        || ours.iter_mut().zip(theirs).for_each(|(average, latest)| *average += new * (latest - *average)),
    );
    average.buffers.copy_from(slice(&latest.buffers.weights))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Stream;
    use crate::generative::network::Layouts;
    use crate::nn::Init;

    fn constant(parameter: f64, buffer: f64) -> Network {
        let mut layouts = Layouts::default();
        layouts.parameters.add("x", &[3], Init::Constant(parameter));
        layouts.buffers.add("y", &[2], Init::Constant(buffer));
        Network::new(layouts, &mut Stream::new(0, "init", 0, 0))
    }

    #[test]
    fn the_half_life_is_one_and_the_ramp_shortens_it() {
        assert!((keep(1000.0, 0.05, 1000, 1_000_000) - 0.5).abs() < 1e-12);
        // 64 images after 1,280: a half-life of 64.
        assert!((keep(1000.0, 0.05, 64, 1280) - 0.5).abs() < 1e-12);
        // Nothing has been seen: nothing is kept.
        assert_eq!(keep(1000.0, 0.05, 64, 0), 0.0);
    }

    #[test]
    fn parameters_are_averaged_and_buffers_copied() {
        let (mut average, mut latest) = (constant(1.0, 1.0), constant(3.0, 7.0));
        follow(&mut average, &latest, 0.75).unwrap();
        assert_eq!(slice::<f32>(&average.parameters.weights)[..3], [1.5; 3]);
        assert_eq!(slice::<f32>(&average.buffers.weights)[..2], [7.0; 2]);
        // A copy, not a view.
        slice_mut::<f32>(&mut latest.parameters.weights).fill(9.0);
        assert_eq!(slice::<f32>(&average.parameters.weights)[0], 1.5);
        let mut layouts = Layouts::default();
        layouts.parameters.add("x", &[30], Init::Constant(0.0));
        let other = Network::new(layouts, &mut Stream::new(0, "init", 0, 0));
        assert!(follow(&mut average, &other, 0.5).is_err());
    }
}
