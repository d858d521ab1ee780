//! From an image to the latent vector that makes it: by an encoder, by gradient descent, or by both, descent from where the
//! encoder says and from elsewhere (Zhu et al. 2016; the schedule of the step size is that of Karras et al. 2020).

use super::dcgan::LatentLaw;
use super::gan::Maker;
use super::network::Mode;
use super::reader::{Reader, Schedule, train};
use crate::nn::{Adam, Flat, Init, Layout};
use crate::random::Stream;
use crate::{Error, Result};
use tch::{Kind, Tensor};

/// Filters in the encoder's first layer.
const WIDTH: i64 = 32;
/// Factor of the distance of features beside that of pixels.
const FEATURES: f64 = 0.1;
/// Factor of ½ mean z² where latent vectors are normal; uniform ones are bounded by tanh.
const PRIOR: f64 = 1e-3;
/// Latent vectors of which the best one is where descent begins without an encoder.
const STARTS: i64 = 64;
/// Largest step size.
const RATE: f64 = 0.1;

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Gradient descent from the best of some random vectors.
    Optimisation,
    /// What the encoder says.
    Encoder,
    /// Gradient descent from there, and from the best of some random vectors, too: for each image what came nearer.
    Both,
}

/// An encoder that knows nothing yet: images → latent vectors, before tanh if these are uniform.
pub fn encoder(maker: &Maker, seed: u64) -> Reader {
    let spec = &maker.generator.spec;
    let mut rng = Stream::new(seed, "encoder weights", 0, 0);
    Reader::new(spec.channels, spec.size, WIDTH, spec.latent, &mut rng)
}

/// Trains an encoder on the generator's own images: the mean of (E(G(z)) − z)² over fresh z.
///
/// # Errors
/// A training that diverges.
pub fn train_encoder(maker: &Maker, encoder: &mut Reader, seed: u64, schedule: &mut Schedule) -> Result<()> {
    let spec = &maker.generator.spec;
    let rows = schedule.batch;
    train(encoder, schedule, |encoder, step| {
        let mut rng = Stream::new(seed, "images of an encoder", 0, step);
        let z = spec.law.draw(rows, spec.latent, &mut rng);
        let images = maker.images(&z, &vec![0; rows as usize])?;
        let read = bounded(spec.law, &encoder.forward(&images, Mode::Train));
        Ok((read - z).square().mean(Kind::Float))
    })
}

/// z from what may be any number: tanh u where z is uniform in (−1, 1).
fn bounded(law: LatentLaw, u: &Tensor) -> Tensor {
    match law {
        LatentLaw::Uniform => u.tanh(),
        LatentLaw::Normal => u.shallow_clone(),
    }
}

/// u of z; what lies at a bound is moved off it a little.
fn unbounded(law: LatentLaw, z: &Tensor) -> Tensor {
    match law {
        LatentLaw::Uniform => z.clamp(-0.98, 0.98).atanh(),
        LatentLaw::Normal => z.shallow_clone(),
    }
}

/// The step size at `t` in `[0, 1]`, as a share of the largest: up linearly in the first twentieth, down with half a cosine
/// in the last quarter.
pub fn rate(t: f64) -> f64 {
    let down = ((1.0 - t) / 0.25).min(1.0);
    (0.5 - 0.5 * (std::f64::consts::PI * down).cos()) * (t / 0.05).min(1.0)
}

/// What turns images into latent vectors.
#[derive(Debug)]
pub struct Inverter<'a> {
    /// The generator, with running statistics: an image does not depend on the others of its batch.
    pub maker: &'a Maker,
    /// See [`train_encoder`].
    pub encoder: &'a Reader,
    /// Whose maps images are compared by beside their pixels.
    pub features: &'a Reader,
    /// Of gradient descent.
    pub steps: u64,
    /// Of the random vectors.
    pub seed: u64,
}

impl Inverter<'_> {
    /// Latent vectors `[N, latent]` of images `[N, C, H, W]` in `[−1, 1]`.
    ///
    /// # Errors
    /// Images of another size than the generator's; libtorch's.
    pub fn invert(&self, images: &Tensor, method: Method) -> Result<Tensor> {
        let spec = &self.maker.generator.spec;
        let wanted = [spec.channels, spec.size, spec.size];
        if images.size()[1..] != wanted {
            return Err(Error::Invalid(format!(
                "an image is {:?}, the generator makes {wanted:?}",
                images.size()
            )));
        }
        let read = || tch::no_grad(|| bounded(spec.law, &self.encoder.forward(images, Mode::Running)));
        Ok(match method {
            Method::Encoder => read(),
            Method::Optimisation => self.descend(images, &self.nearest(images)?)?.0,
            Method::Both => {
                let (a, loss_of_a) = self.descend(images, &read())?;
                let (b, loss_of_b) = self.descend(images, &self.nearest(images)?)?;
                a.where_self(&loss_of_a.le_tensor(&loss_of_b).unsqueeze(1), &b)
            }
        })
    }

    /// Gradient descent from `start`: of all that each image came by, the latent vector of the smallest loss, and that loss,
    /// `[N]`. It is never worse than where it began.
    fn descend(&self, images: &Tensor, start: &Tensor) -> Result<(Tensor, Tensor)> {
        let (spec, count) = (&self.maker.generator.spec, images.size()[0]);
        let mut layout = Layout::default();
        layout.add("latent", &[count, spec.latent], Init::Constant(0.0));
        let mut latent = Flat::new(layout, &mut Stream::new(0, "overwritten", 0, 0));
        tch::no_grad(|| latent.get(0).shallow_clone().copy_(&unbounded(spec.law, start)));
        let mut adam = Adam::new(&latent, 1e-8);
        let targets = tch::no_grad(|| self.features.maps(images, Mode::Running));
        let best = start.copy();
        let lowest = Tensor::full([count], f64::INFINITY, (Kind::Float, tch::Device::Cpu));
        for step in 0..=self.steps {
            let z = bounded(spec.law, latent.get(0));
            let loss = self.loss(&z, images, &targets)?;
            tch::no_grad(|| {
                let better = loss.lt_tensor(&lowest);
                lowest.shallow_clone().copy_(&loss.minimum(&lowest));
                best.shallow_clone().copy_(&z.where_self(&better.unsqueeze(1), &best));
            });
            if step < self.steps {
                // A sum: each image goes its own way.
                latent.backward(&loss.sum(Kind::Float))?;
                adam.update(&mut latent, RATE * rate((step + 1) as f64 / (self.steps + 1) as f64));
            }
        }
        Ok((best, lowest))
    }

    /// The nearest in pixels of some random vectors, and of 0, for each image.
    fn nearest(&self, images: &Tensor) -> Result<Tensor> {
        let spec = &self.maker.generator.spec;
        let z = spec.law.draw(STARTS, spec.latent, &mut Stream::new(self.seed, "starts", 0, 0));
        let z = Tensor::cat(&[&z.zeros_like().narrow(0, 0, 1), &z], 0);
        let made = self.maker.images(&z, &vec![0; z.size()[0] as usize])?;
        let flat = |x: &Tensor| x.contiguous().flatten(1, -1);
        let nearest = Tensor::f_cdist(&flat(images), &flat(&made), 2.0, 2)?;
        Ok(z.index_select(0, &nearest.argmin(1, false)))
    }

    /// For each image: mean (G(z) − x)² + 0.1 · mean over maps φ of ‖φ(G(z)) − φ(x)‖² / ‖φ(x)‖², and for normal z a little
    /// of ½ mean z². `[N]`.
    fn loss(&self, z: &Tensor, images: &Tensor, targets: &[Tensor]) -> Result<Tensor> {
        let spec = &self.maker.generator.spec;
        let labels = match spec.classes {
            0 => None,
            classes => Some(super::network::one_hot(&vec![0; z.size()[0] as usize], classes)?),
        };
        let made = self.maker.generator.forward(z, labels.as_ref(), Mode::Running);
        let each = |x: &Tensor| x.square().flatten(1, -1).mean_dim([1i64].as_slice(), false, Kind::Float);
        let mut loss = each(&(&made - images));
        // The last map says what is there, no longer where.
        let compared = targets.len() - 1;
        for (map, target) in self.features.maps(&made, Mode::Running).iter().zip(targets).take(compared) {
            let distance = each(&(map - target)) / (each(target) + 1e-6);
            loss += distance * (FEATURES / compared as f64);
        }
        if spec.law == LatentLaw::Normal {
            loss += each(z) * (0.5 * PRIOR);
        }
        Ok(loss)
    }

    /// Mean squared error of pixels in `[−1, 1]` of each image, `[N]`, made again from `z`.
    ///
    /// # Errors
    /// The generator's.
    pub fn error(&self, z: &Tensor, images: &Tensor) -> Result<Vec<f64>> {
        let made = self.maker.images(z, &vec![0; z.size()[0] as usize])?;
        Ok(pixel_errors(&made, images))
    }
}

/// Mean (a − b)² of each image of `[N, C, H, W]`.
pub fn pixel_errors(a: &Tensor, b: &Tensor) -> Vec<f64> {
    let errors = (a - b).square().flatten(1, -1).mean_dim([1i64].as_slice(), false, Kind::Double);
    (0..errors.size()[0]).map(|i| errors.double_value(&[i])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::generative::dcgan::{DcganSpec, Generator, Preset};

    fn maker(law: LatentLaw) -> Maker {
        let spec = DcganSpec {
            latent: 8,
            law,
            generator_width: 4,
            ..DcganSpec::new(Preset::DcganTensorflow, 32, 3)
        };
        let mut generator = Generator::new(spec, &mut Stream::new(0, "generator", 0, 0)).unwrap();
        // As large as after some training: images that differ.
        let _ = tch::no_grad(|| generator.network.parameters.weights.g_mul_scalar_(4.0));
        generator.recalibrate(8, 64, &mut Stream::new(0, "recalibration", 0, 0), |_| None);
        Maker { generator, classes: Vec::new() }
    }

    #[test]
    fn the_step_size_goes_up_and_down() {
        assert_eq!((rate(0.0), rate(0.025), rate(0.5)), (0.0, 0.5, 1.0));
        assert!((rate(0.875) - 0.5).abs() < 1e-12 && rate(1.0).abs() < 1e-12);
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch() {
        let maker = maker(LatentLaw::Uniform);
        let z = maker.latents(0, 9, 1.0);
        let (all, alone) =
            (maker.images(&z, &[0; 9]).unwrap(), maker.images(&z.narrow(0, 4, 1), &[0]).unwrap());
        assert!(pixel_errors(&all.narrow(0, 4, 1), &alone)[0] < 1e-10);
        assert!(pixel_errors(&all.narrow(0, 3, 1), &alone)[0] > 1e-4, "others are others");
    }

    #[test]
    fn both_is_no_worse_than_either_and_each_image_goes_its_own_way() {
        for law in [LatentLaw::Uniform, LatentLaw::Normal] {
            let maker = maker(law);
            let mut reader = encoder(&maker, 0);
            let before = reader.network.parameters.weights.copy();
            let mut schedule = Schedule { steps: 150, batch: 32, tell: &mut |_| {} };
            train_encoder(&maker, &mut reader, 0, &mut schedule).unwrap();
            assert_ne!(before, reader.network.parameters.weights);
            let features = Reader::new(3, 32, 8, 2, &mut Stream::new(0, "features", 0, 0));
            let inverter =
                Inverter { maker: &maker, encoder: &reader, features: &features, steps: 60, seed: 0 };
            let images = maker.images(&maker.latents(100, 6, 1.0), &[0; 6]).unwrap();
            let error = |method: Method| {
                let z = inverter.invert(&images, method).unwrap();
                if law == LatentLaw::Uniform {
                    assert!(z.abs().max().double_value(&[]) <= 1.0);
                }
                inverter.error(&z, &images).unwrap().iter().sum::<f64>() / 6.0
            };
            let [read, descended, both] = [Method::Encoder, Method::Optimisation, Method::Both].map(error);
            assert!(both < read && both <= 1.02 * descended, "{both} {read} {descended}");
            let alone = inverter.invert(&images.narrow(0, 2, 1), Method::Both).unwrap();
            let all = inverter.invert(&images, Method::Both).unwrap().narrow(0, 2, 1);
            assert!((alone - all).abs().max().double_value(&[]) < 0.02);
            let small = Tensor::zeros([1, 3, 16, 16], (Kind::Float, tch::Device::Cpu));
            assert!(inverter.invert(&small, Method::Both).unwrap_err().to_string().contains("[3, 32, 32]"));
        }
    }
}
