//! A pool of earlier generated images (Shrivastava et al. 2017): a discriminator that is also shown old ones forgets
//! less.

use crate::random::Stream;
use crate::run::State;
use crate::{Error, Result};
use tch::{Kind, Tensor};

/// Up to `capacity` images.
#[derive(Debug)]
pub struct ImagePool {
    capacity: usize,
    /// `[held, C, H, W]`
    images: Tensor,
}

impl ImagePool {
    /// An empty pool; CycleGAN's holds 50 (Zhu et al. 2017). One of 0 lets everything through.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, images: Tensor::zeros([0, 0, 0, 0], (Kind::Float, tch::Device::Cpu)) }
    }

    /// How many images it holds.
    pub fn len(&self) -> usize {
        self.images.size()[0] as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the discriminator is shown in place of `generated`, `[B, C, H, W]`, each image by itself: until the pool is
    /// full, the image itself, which is kept; then with probability ½ the image itself, else a random one of the pool,
    /// whose place it takes. No gradient flows through.
    ///
    /// # Errors
    /// Images of another shape than those that it holds.
    pub fn exchange(&mut self, generated: &Tensor, rng: &mut Stream) -> Result<Tensor> {
        let shown = generated.detach().copy();
        if self.capacity == 0 {
            return Ok(shown);
        }
        let shape = generated.size()[1..].to_vec();
        if self.is_empty() {
            let empty: Vec<i64> = std::iter::once(0).chain(shape.iter().copied()).collect();
            self.images = Tensor::f_zeros(&empty, (Kind::Float, tch::Device::Cpu))?;
        } else if self.images.size()[1..] != shape {
            return Err(Error::Invalid(format!(
                "an image pool of {:?} was given images of {shape:?}",
                &self.images.size()[1..]
            )));
        }
        for i in 0..generated.size()[0] {
            let image = generated.detach().narrow(0, i, 1);
            if self.len() < self.capacity {
                self.images = Tensor::f_cat(&[&self.images, &image], 0)?;
            } else if rng.uniform() >= 0.5 {
                let place = rng.below(self.capacity) as i64;
                shown.narrow(0, i, 1).f_copy_(&self.images.narrow(0, place, 1))?;
                self.images.narrow(0, place, 1).f_copy_(&image)?;
            }
        }
        Ok(shown)
    }

    /// Saves or restores the images.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        state.resizable("images", &mut self.images)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn images(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1, 1, 1])
    }

    fn values(images: &Tensor) -> Vec<f32> {
        Vec::try_from(images.view(-1)).unwrap()
    }

    #[test]
    fn fills_up_first_and_exchanges_half_of_what_comes_then() {
        let (mut pool, mut rng) = (ImagePool::new(3), Stream::new(0, "pool", 0, 0));
        assert_eq!(values(&pool.exchange(&images(&[1.0, 2.0, 3.0]), &mut rng).unwrap()), [1.0, 2.0, 3.0]);
        assert_eq!((pool.len(), values(&pool.images)), (3, vec![1.0, 2.0, 3.0]));
        let mut held = vec![1.0f32, 2.0, 3.0];
        let mut exchanged = 0;
        for i in 0..1000 {
            let new = 10.0 + i as f32;
            let shown = values(&pool.exchange(&images(&[new]), &mut rng).unwrap())[0];
            if shown != new {
                let place = held.iter().position(|&old| old == shown).unwrap();
                held[place] = new;
                exchanged += 1;
            }
            assert_eq!(values(&pool.images), held);
        }
        assert!((400..600).contains(&exchanged), "{exchanged}");
    }

    #[test]
    fn a_pool_of_none_lets_everything_through_and_other_shapes_are_refused() {
        let mut rng = Stream::new(0, "pool", 0, 0);
        let mut none = ImagePool::new(0);
        assert_eq!(values(&none.exchange(&images(&[4.0]), &mut rng).unwrap()), [4.0]);
        assert!(none.is_empty());
        let mut pool = ImagePool::new(2);
        let _ = pool.exchange(&images(&[1.0]), &mut rng).unwrap();
        let wide = Tensor::zeros([1, 1, 1, 2], (Kind::Float, tch::Device::Cpu));
        assert!(pool.exchange(&wide, &mut rng).unwrap_err().to_string().contains("[1, 1, 2]"));
    }
}
