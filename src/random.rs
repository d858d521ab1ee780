//! Randomness is derived, not stored.
//!
//! Every random number comes from a [`Stream`] that is a pure function of the run's seed, a purpose, an index
//! and a step. Nothing has to be saved to resume, and nothing depends on which thread draws first. libtorch's
//! own generator (one for the whole process, unsavable) is never used.

use rand::{Rng, RngExt, SeedableRng, TryRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use std::convert::Infallible;
use tch::Tensor;

/// A generator for one purpose at one moment of a run. Implements [`rand::Rng`].
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `purpose` for its `index`-th user (a group, an environment, a seed) at `step`.
    pub fn new(seed: u64, purpose: &str, index: u64, step: u64) -> Self {
        // FNV-1a: `std`'s hashers may change between releases, and with them every run.
        let purpose = purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut key = [0; 32];
        for (part, value) in key.chunks_exact_mut(8).zip([seed, purpose, index, step]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// The seed of a task that seeds itself, such as an environment's episode.
    pub fn seed(seed: u64, purpose: &str, index: u64, step: u64) -> u64 {
        Self::new(seed, purpose, index, step).next_u64()
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f32 {
        self.0.random()
    }

    /// Uniform in `0 .. bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound)
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f32 {
        self.0.sample(StandardNormal)
    }

    /// Float32 tensor of standard normals.
    pub fn normals(&mut self, shape: &[i64]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.normal()).collect();
        Tensor::from_slice(&values).view(shape)
    }

    /// Float32 tensor of uniforms in `[0, 1)`.
    pub fn uniforms(&mut self, shape: &[i64]) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.uniform()).collect();
        Tensor::from_slice(&values).view(shape)
    }

    /// The indices `0 .. count` in random order (Fisher–Yates).
    pub fn permutation(&mut self, count: usize) -> Vec<i64> {
        let mut order: Vec<i64> = (0..count as i64).collect();
        for i in (1..count).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }

    /// `count` indices of `0 .. bound`, with replacement. Int64, `[count]`.
    pub fn indices(&mut self, bound: usize, count: usize) -> Tensor {
        let indices: Vec<i64> = (0..count).map(|_| self.below(bound) as i64).collect();
        Tensor::from_slice(&indices)
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_in_every_part_of_their_name_and_repeat() {
        let first = Stream::seed(1, "action", 2, 3);
        assert_eq!(first, Stream::seed(1, "action", 2, 3));
        for other in [(2, "action", 2, 3), (1, "noise", 2, 3), (1, "action", 3, 3), (1, "action", 2, 4)] {
            assert_ne!(first, Stream::seed(other.0, other.1, other.2, other.3));
        }
    }

    #[test]
    fn permutation_holds_every_index_once() {
        let mut order = Stream::new(0, "test", 0, 0).permutation(100);
        assert_ne!(order, (0..100).collect::<Vec<i64>>());
        order.sort();
        assert_eq!(order, (0..100).collect::<Vec<i64>>());
    }
}
