//! Training of a DCGAN: discriminator and generator in turn (Goodfellow et al. 2014), with what later work found to help,
//! each of it off unless the recipe asks for it.

use super::adversarial::{Adversarial, gradient_penalty, r1_penalty};
use super::augment::{Adaptive, Augmentation, diff_augment};
use super::data::{ImageSet, Order};
use super::dcgan::{DcganSpec, Discriminator, DiscriminatorNorm, Generator, LatentLaw, Preset};
use super::ema;
use super::grid;
use super::metrics::diversity;
use super::network::{Mode, Network, one_hot};
use super::schedule::linear_decay;
use crate::nn::{Adam, Precision};
use crate::run::tensor_file::{self, Values};
use crate::run::{Log, State, Train};
use crate::{Error, Result, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// Images of the grid that is made from the same latent vectors throughout a run.
const GRID: i64 = 64;
/// In a row of it.
const COLUMNS: usize = 8;
/// Batches by which running statistics are recalibrated before images are made for somebody to look at.
const RECALIBRATION: u64 = 16;

/// Settings of [`Gan`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DcganConfig {
    /// Whose networks, and whose settings where a key is absent.
    pub preset: Preset,
    /// Filters in the generator's last layer before the image.
    #[schemars(range(min = 1, max = 1024), extend("x-default" = "64; 128 for dcgan-code, but for 28 pixels"))]
    pub generator_width: Option<i64>,
    /// Filters in the discriminator's first layer.
    #[schemars(range(min = 1, max = 1024), extend("x-default" = "64; 128 for dcgan-code, but for 28 pixels"))]
    pub discriminator_width: Option<i64>,
    /// Numbers in a latent vector.
    #[schemars(range(min = 1, max = 65_536))]
    pub latent: i64,
    /// How they are drawn.
    pub latent_law: LatentLaw,
    /// What both networks minimise.
    pub loss: Adversarial,
    /// What keeps the discriminator in bounds.
    pub discriminator_norm: DiscriminatorNorm,
    /// Images in a step of the optimiser.
    #[schemars(range(min = 2), extend("x-default" = "64; 128 for dcgan-code"))]
    pub batch_size: Option<u64>,
    /// Parts in which a batch goes through the networks, one after the other, for less memory. Batch normalisation sees a
    /// part at a time.
    #[schemars(range(min = 1))]
    pub accumulate: u64,
    /// Updates of the discriminator in a step.
    #[schemars(range(min = 1))]
    pub discriminator_steps: u64,
    /// Updates of the generator in a step.
    #[schemars(range(min = 1), extend("x-default" = "2; 1 for dcgan-code"))]
    pub generator_steps: Option<u64>,
    /// Adam's step size.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Adam's β1.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub beta1: f64,
    /// Adam's β2.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub beta2: f64,
    /// Adam's ε.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub adam_epsilon: f64,
    /// λ of the penalty ½ λ Σ θ².
    #[schemars(range(min = 0), extend("x-default" = "0; 1e-5 for dcgan-code"))]
    pub weight_decay: Option<f64>,
    /// Share of the run after which the step size goes linearly to 0; 1 keeps it.
    #[schemars(range(min = 0, max = 1))]
    pub decay_from: f64,
    /// γ of R1, ½ γ ‖∇D(real)‖²; 0 is off.
    #[schemars(range(min = 0))]
    pub r1: f64,
    /// Steps from one R1 penalty to the next, which then counts so many times.
    #[schemars(range(min = 1))]
    pub r1_every: u64,
    /// Factor of (‖∇D‖ − 1)² between real and generated images (WGAN-GP); 0 is off.
    #[schemars(range(min = 0))]
    pub gradient_penalty: f64,
    /// What the discriminator sees.
    pub augment: Augmentation,
    /// Images after which half of the averaged generator is of later weights; 0 makes images with the generator itself.
    #[schemars(range(min = 0))]
    pub ema_half_life: f64,
    /// The half-life is at most this share of the images seen.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub ema_ramp: f64,
    /// Arithmetic of convolutions and products: "f32", or "bf16" with weights in f32, which pays on processors with AMX.
    pub precision: Precision,
}

impl Default for DcganConfig {
    fn default() -> Self {
        Self {
            preset: Preset::DcganTensorflow,
            generator_width: None,
            discriminator_width: None,
            latent: 100,
            latent_law: LatentLaw::Uniform,
            loss: Adversarial::NonSaturating,
            discriminator_norm: DiscriminatorNorm::Batch,
            batch_size: None,
            accumulate: 1,
            discriminator_steps: 1,
            generator_steps: None,
            learning_rate: 2e-4,
            beta1: 0.5,
            beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: None,
            decay_from: 1.0,
            r1: 0.0,
            r1_every: 16,
            gradient_penalty: 0.0,
            augment: Augmentation::None,
            ema_half_life: 0.0,
            ema_ramp: 0.05,
            precision: Precision::F32,
        }
    }
}

impl DcganConfig {
    /// Fills in what goes with the preset, for images of `size`.
    pub fn complete(&mut self, size: i64) {
        let code = self.preset == Preset::DcganCode;
        let width = DcganSpec::width(self.preset, size);
        self.generator_width.get_or_insert(width);
        self.discriminator_width.get_or_insert(width);
        self.batch_size.get_or_insert(if code { 128 } else { 64 });
        self.generator_steps.get_or_insert(if code { 1 } else { 2 });
        self.weight_decay.get_or_insert(if code { 1e-5 } else { 0.0 });
    }

    fn spec(&self, data: &ImageSet) -> DcganSpec {
        let width = DcganSpec::width(self.preset, data.size);
        DcganSpec {
            latent: self.latent,
            law: self.latent_law,
            classes: data.classes.len() as i64,
            generator_width: self.generator_width.unwrap_or(width),
            discriminator_width: self.discriminator_width.unwrap_or(width),
            norm: self.discriminator_norm,
            outputs: self.loss.outputs(),
            precision: self.precision,
            ..DcganSpec::new(self.preset, data.size, data.channels)
        }
    }

    /// What no single key can tell.
    ///
    /// # Errors
    /// Keys that contradict each other, and what to set.
    pub fn check(&self) -> Result<()> {
        let penalised = self.r1 > 0.0 || self.gradient_penalty > 0.0;
        if penalised && self.discriminator_norm == DiscriminatorNorm::Batch {
            return Err(Error::Invalid(
                "penalties are of each image by itself, with batch normalisation there is no such thing: set \
                 learner.discriminator_norm = \"none\" or \"spectral\""
                    .into(),
            ));
        }
        if penalised && self.loss == Adversarial::TwoClass {
            return Err(Error::Invalid("penalties need one logit: choose another learner.loss".into()));
        }
        let batch = self.batch_size.unwrap_or(64);
        if !batch.is_multiple_of(self.accumulate) || batch / self.accumulate < 2 {
            return Err(Error::Invalid(format!(
                "learner.accumulate = {} does not divide learner.batch_size = {batch} into parts of 2 or more",
                self.accumulate
            )));
        }
        Ok(())
    }
}

/// A generator and a discriminator in training. A step is an update of both.
pub struct Gan {
    config: DcganConfig,
    generator: Generator,
    discriminator: Discriminator,
    /// The averaged generator, if there is one.
    average: Option<Generator>,
    /// The generator's and the discriminator's.
    adams: [Adam; 2],
    adaptive: Adaptive,
    data: ImageSet,
    order: Order,
    seed: u64,
    step: u64,
    total_steps: u64,
    /// That of the fixed grid, as a share of that of real images, when last seen.
    diversity: Option<f64>,
}

/// A part of a batch, on its way through both networks.
struct Part {
    z: Tensor,
    labels: Option<Tensor>,
    /// Which it is, of all of this step: its streams follow from it.
    number: u64,
    /// What the generator made of `z`, with its graph, if it has not changed since.
    generated: Option<Tensor>,
}

impl Gan {
    /// With new networks.
    ///
    /// # Errors
    /// Keys that contradict each other; images of a size that does not work; fewer images than a batch.
    pub fn new(mut config: DcganConfig, data: ImageSet, seed: u64, total_steps: u64) -> Result<Self> {
        config.complete(data.size);
        config.check()?;
        let batch = config.batch_size.unwrap_or_default();
        if (data.training.len() as u64) < batch {
            return Err(Error::bad_file(
                &data.found.path,
                format!(
                    "{}, {} of them can be learnt from: fewer than a batch of learner.batch_size = {batch}",
                    data.found.describe(),
                    data.training.len()
                ),
            ));
        }
        let spec = config.spec(&data);
        let generator = Generator::new(spec.clone(), &mut Stream::new(seed, "generator weights", 0, 0))?;
        let discriminator = Discriminator::new(spec, &mut Stream::new(seed, "discriminator weights", 0, 0))?;
        let adam = |flat| {
            let mut adam = Adam::new(flat, config.adam_epsilon);
            adam.betas = [config.beta1, config.beta2];
            adam
        };
        let adams = [adam(&generator.network.parameters), adam(&discriminator.network.parameters)];
        let average = match config.ema_half_life > 0.0 {
            true => Some(copy_of(&generator)?),
            false => None,
        };
        let order = Order::new(seed, data.training.len());
        Ok(Self {
            config,
            generator,
            discriminator,
            average,
            adams,
            adaptive: Adaptive::new(),
            data,
            order,
            seed,
            step: 0,
            total_steps,
            diversity: None,
        })
    }

    fn stream(&self, purpose: &str, number: u64) -> Stream {
        Stream::new(self.seed, purpose, number, self.step)
    }

    fn batch_size(&self) -> u64 {
        self.config.batch_size.unwrap_or_default()
    }

    /// What the discriminator sees of `images`.
    fn seen(&self, images: &Tensor, purpose: &str, number: u64) -> Result<Tensor> {
        match self.config.augment {
            Augmentation::None => Ok(images.shallow_clone()),
            Augmentation::Diff => Ok(diff_augment(images, &mut self.stream(purpose, number))),
            Augmentation::Adaptive => self.adaptive.augment(images, &mut self.stream(purpose, number)),
        }
    }

    /// Real images of part `number` of this step, and latent vectors and labels for as many generated ones.
    fn part(&mut self, number: u64) -> Result<(Tensor, Part)> {
        let rows = self.batch_size() / self.config.accumulate;
        let each = self.config.accumulate * self.config.discriminator_steps;
        let places = self.order.batch((self.step * each + number) * rows, rows);
        let indices: Vec<i64> = places.iter().map(|&place| self.data.training[place as usize]).collect();
        let mut flips = self.stream("mirrored", number);
        let mirrored: Vec<bool> = match self.data.flip {
            true => indices.iter().map(|_| flips.below(2) == 1).collect(),
            false => Vec::new(),
        };
        let labels = self.data.labels(&indices);
        let classes = self.data.classes.len() as i64;
        let labels = labels.map(|labels| one_hot(&labels, classes)).transpose()?;
        let spec = &self.generator.spec;
        let z = spec.law.draw(rows as i64, spec.latent, &mut self.stream("latent", number));
        Ok((self.data.gather(&indices, &mirrored), Part { z, labels, number, generated: None }))
    }

    /// An update of the discriminator on a batch; the parts of it, for the generator.
    fn discriminate(&mut self, turn: u64, rate: f64, log: &mut Log) -> Result<Vec<Part>> {
        self.discriminator.network.parameters.clear_gradient();
        let count = self.config.accumulate;
        let (mut parts, mut dump) = (Vec::new(), None);
        // The generator's next update begins from what it made here, if there is memory for it and nothing in between.
        let keep = count == 1 && turn + 1 == self.config.discriminator_steps;
        for i in 0..count {
            let (real, mut part) = self.part(turn * count + i)?;
            let (labels, number) = (part.labels.as_ref(), part.number);
            let make = || self.generator.forward(&part.z, labels, Mode::Train);
            let generated = if keep { make() } else { tch::no_grad(make) };
            let shown = generated.detach();
            let seen_real = self.seen(&real, "augmentation of real images", number)?;
            let seen = self.seen(&shown, "augmentation of generated images", number)?;
            // Each by itself: batch normalisation must not mix them.
            let real_logits = self.discriminator.forward(&seen_real, labels, Mode::Train);
            let logits = self.discriminator.forward(&seen, labels, Mode::Train);
            let loss = self.config.loss.discriminator_loss(&real_logits, &logits);
            self.log_discriminator(&loss, &real_logits, &logits, log);
            let mut total = loss;
            if let Some(penalty) = self.penalty(&real, &shown, labels, number, log)? {
                total += penalty;
            }
            self.discriminator.network.parameters.add_backward(&(total / count as f64))?;
            self.adaptive.observe(&self.config.loss.margin(&real_logits.detach()));
            dump = Some((real, shown));
            part.generated = keep.then_some(generated);
            parts.push(part);
        }
        let flat = &mut self.discriminator.network.parameters;
        let norm = flat.gradient_norm();
        if !norm.is_finite() {
            let batch = dump.map(|(real, shown)| vec![("real".into(), real), ("generated".into(), shown)]);
            return Err(flat.diverged("discriminator", batch.unwrap_or_default()));
        }
        if let Some(decay) = self.config.weight_decay.filter(|decay| *decay > 0.0) {
            flat.add_weight_decay(decay);
        }
        self.adams[1].update(flat, rate);
        log.scalar("gan/discriminator_gradient_norm", norm);
        Ok(parts)
    }

    fn log_discriminator(&self, loss: &Tensor, real: &Tensor, generated: &Tensor, log: &mut Log) {
        let share = |logits: &Tensor, real: bool| {
            super::adversarial::accuracy(&self.config.loss.margin(&logits.detach()), real)
        };
        log.scalar("gan/discriminator_loss", loss.double_value(&[]));
        log.scalar("gan/accuracy_on_real", share(real, true));
        log.scalar("gan/accuracy_on_generated", share(generated, false));
        if self.config.augment == Augmentation::Adaptive {
            log.scalar("gan/augmentation", self.adaptive.probability);
        }
    }

    /// What the recipe adds to the discriminator's loss in this step.
    fn penalty(
        &self,
        real: &Tensor,
        generated: &Tensor,
        labels: Option<&Tensor>,
        number: u64,
        log: &mut Log,
    ) -> Result<Option<Tensor>> {
        let DcganConfig { r1, r1_every, gradient_penalty: factor, .. } = self.config;
        // An augmentation that fails has failed on these images before.
        let f = |x: &Tensor| {
            let seen = self.seen(x, "augmentation of real images", number);
            self.discriminator.forward(&seen.unwrap_or_else(|_| x.shallow_clone()), labels, Mode::Batch)
        };
        let mut total = None;
        let mut add = |penalty: Tensor| {
            total = Some(match total.take() {
                Some(sum) => sum + penalty,
                None => penalty,
            });
        };
        if r1 > 0.0 && self.step.is_multiple_of(r1_every) {
            let penalty = r1_penalty(f, real)?;
            log.scalar("gan/r1", penalty.double_value(&[]));
            add(penalty * (0.5 * r1 * r1_every as f64));
        }
        if factor > 0.0 {
            let mix = self.stream("between real and generated", number).uniforms(&[real.size()[0], 1, 1, 1]);
            let penalty = gradient_penalty(f, real, generated, &mix, 1.0)?;
            log.scalar("gan/gradient_penalty", penalty.double_value(&[]));
            add(penalty * factor);
        }
        Ok(total)
    }

    /// An update of the generator on the latent vectors of `parts`.
    fn generate(&mut self, parts: &mut [Part], turn: u64, rate: f64, log: &mut Log) -> Result<()> {
        let count = parts.len();
        self.generator.network.parameters.clear_gradient();
        let mut dump = Vec::new();
        for part in parts {
            let labels = part.labels.as_ref();
            let made = part.generated.take();
            let generated = made.unwrap_or_else(|| self.generator.forward(&part.z, labels, Mode::Train));
            let number = turn * count as u64 + part.number;
            let seen = self.seen(&generated, "augmentation for the generator", number)?;
            let logits = self.discriminator.forward(&seen, labels, Mode::Train);
            let loss = self.config.loss.generator_loss(&logits);
            log.scalar("gan/generator_loss", loss.double_value(&[]));
            self.generator.network.parameters.add_backward(&(loss / count as f64))?;
            dump = vec![("latent".into(), part.z.shallow_clone()), ("generated".into(), generated.detach())];
        }
        let flat = &mut self.generator.network.parameters;
        let norm = flat.gradient_norm();
        if !norm.is_finite() {
            return Err(flat.diverged("generator", dump));
        }
        if let Some(decay) = self.config.weight_decay.filter(|decay| *decay > 0.0) {
            flat.add_weight_decay(decay);
        }
        self.adams[0].update(flat, rate);
        log.scalar("gan/generator_gradient_norm", norm);
        Ok(())
    }

    /// Images of the same latent vectors throughout the run, `[64, C, H, W]`; with classes, these take turns.
    fn fixed_images(&self) -> Result<Tensor> {
        let generator = self.average.as_ref().unwrap_or(&self.generator);
        let spec = &generator.spec;
        let z = spec.law.draw(GRID, spec.latent, &mut Stream::new(self.seed, "fixed latent vectors", 0, 0));
        let labels: Vec<i64> = (0..GRID).map(|i| i % spec.classes.max(1)).collect();
        let labels = (spec.classes > 0).then(|| one_hot(&labels, spec.classes)).transpose()?;
        Ok(tch::no_grad(|| generator.forward(&z, labels.as_ref(), Mode::Batch)))
    }
}

/// A generator with weights of its own.
fn copy_of(generator: &Generator) -> Result<Generator> {
    let mut copy = Generator::new(generator.spec.clone(), &mut Stream::new(0, "overwritten", 0, 0))?;
    copy.network.copy_from(&generator.network)?;
    Ok(copy)
}

impl Train for Gan {
    fn step(&self) -> u64 {
        self.step
    }

    fn iterate(&mut self, log: &mut Log) -> Result<()> {
        let constant = (self.config.decay_from * self.total_steps as f64).round() as u64;
        let decay = self.total_steps.saturating_sub(constant);
        let rate = self.config.learning_rate * linear_decay(self.step, constant, decay);
        let mut parts = Vec::new();
        for turn in 0..self.config.discriminator_steps {
            parts = self.discriminate(turn, rate, log)?;
        }
        for turn in 0..self.config.generator_steps.unwrap_or(1) {
            self.generate(&mut parts, turn, rate, log)?;
        }
        if let Some(average) = &mut self.average {
            let batch = self.config.batch_size.unwrap_or_default();
            let keep = ema::keep(self.config.ema_half_life, self.config.ema_ramp, batch, self.step * batch);
            ema::follow(&mut average.network, &self.generator.network, keep)?;
        }
        self.step += 1;
        log.scalar("gan/learning_rate", rate);
        Ok(())
    }

    /// Only looks: a picture of the fixed grid, and how different its images are. There is no score by which a best
    /// checkpoint could be chosen.
    fn evaluate(&mut self, log: &mut Log) -> Result<Option<f64>> {
        let images = self.fixed_images()?;
        let frame = grid::tiles(&images, COLUMNS);
        log.image("fixed", frame.width as u32, frame.height as u32, grid::png(&frame)?);
        let some = &self.data.training[..self.data.training.len().min(GRID as usize)];
        let real = self.data.gather(some, &[]);
        if self.step == 0 || self.diversity.is_none() {
            let frame = grid::tiles(&real, COLUMNS);
            log.image("real", frame.width as u32, frame.height as u32, grid::png(&frame)?);
        }
        let share = diversity(&images.flatten(1, -1)) / diversity(&real.flatten(1, -1)).max(1e-12);
        log.scalar("gan/diversity", share);
        if share < 0.1 {
            tracing::warn!(
                "step {}: generated images are nearly all the same (diversity {share:.2})",
                self.step
            );
        }
        self.diversity = Some(share);
        Ok(None)
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("step", &mut self.step)?;
        state.value("spec", &mut self.generator.spec)?;
        state.value("averaged", &mut self.average.is_some())?;
        state.value("classes", &mut self.data.classes)?;
        state.value("diversity", &mut self.diversity)?;
        let (present, mut images) = (self.data.training.len(), self.data.training.len());
        state.value("images", &mut images)?;
        if images != present {
            return Err(Error::bad_file(
                &self.data.found.path,
                format!(
                    "the run began with {images} images to learn from, now there are {present}: restore them"
                ),
            ));
        }
        state.scope("generator", |state| self.generator.network.state(state))?;
        if let Some(average) = &mut self.average {
            state.scope("average", |state| average.network.state(state))?;
        }
        state.scope("discriminator", |state| self.discriminator.network.state(state))?;
        state.scope("adaptive", |state| self.adaptive.state(state))?;
        state.scope("generator_adam", |state| self.adams[0].state(state))?;
        state.scope("discriminator_adam", |state| self.adams[1].state(state))
    }

    fn conclude(&mut self, _log: &mut Log) -> Result<serde_json::Value> {
        Ok(serde_json::json!({
            "images": self.data.training.len(),
            "images_seen": self.step * self.batch_size() * self.config.discriminator_steps,
            "diversity": self.diversity,
        }))
    }
}

/// What images are made with, as a checkpoint of a [`Gan`] holds it.
#[derive(Debug)]
pub struct Maker {
    /// The averaged generator if there is one, with recalibrated statistics.
    pub generator: Generator,
    /// Names of the classes.
    pub classes: Vec<String>,
}

impl Maker {
    /// Reads the part of a checkpoint that [`Gan::state`] wrote, and recalibrates the running statistics.
    ///
    /// # Errors
    /// A checkpoint of something else, or a damaged one.
    pub fn from_state(state: &mut State) -> Result<Self> {
        let mut spec = DcganSpec::new(Preset::DcganTensorflow, 64, 3);
        state.value("spec", &mut spec)?;
        // Before memory is taken for what a damaged file describes.
        DcganSpec::check_size(spec.size)?;
        let (mut averaged, mut classes) = (false, Vec::new());
        state.value("averaged", &mut averaged)?;
        state.value("classes", &mut classes)?;
        let mut generator = Generator::new(spec, &mut Stream::new(0, "overwritten", 0, 0))?;
        let part = if averaged { "average" } else { "generator" };
        state.scope(part, |state| generator.network.state(state))?;
        let maker = Self { generator, classes };
        let spec = &maker.generator.spec;
        let batch = |rng: &mut Stream| {
            let labels: Vec<i64> =
                (0..GRID).map(|_| rng.below(spec.classes.max(1) as usize) as i64).collect();
            (spec.classes > 0).then(|| one_hot(&labels, spec.classes).ok()).flatten()
        };
        let mut rng = Stream::new(0, "recalibration", 0, 0);
        maker.generator.recalibrate(RECALIBRATION, GRID, &mut rng, batch);
        Ok(maker)
    }

    /// Writes what images are made with, and no more: the weights in 16 bits, by which images change less than can be
    /// seen, the recalibrated statistics in 32; and `about`, what users should know of it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn save(&mut self, path: &Path, about: &Values) -> Result<()> {
        let mut state = State::saving();
        self.state(&mut state)?;
        let (tensors, mut values) = state.finish()?;
        values.extend(about.clone());
        tensor_file::write(path, &tensors, &values)
    }

    /// Reads what [`Maker::save`] wrote, and what was said about it.
    ///
    /// # Errors
    /// A damaged file, or one of something else.
    pub fn load(path: &Path) -> Result<(Self, Values)> {
        let (tensors, values) = tensor_file::read(path)?;
        let about = values.clone();
        let mut state = State::loading(tensors, values).from_file(path.into());
        let mut spec = DcganSpec::new(Preset::DcganTensorflow, 64, 3);
        state.value("spec", &mut spec)?;
        DcganSpec::check_size(spec.size)?;
        let generator = Generator::new(spec, &mut Stream::new(0, "overwritten", 0, 0))?;
        let mut maker = Self { generator, classes: Vec::new() };
        maker.state_but_spec(&mut state)?;
        Ok((maker, about))
    }

    fn state(&mut self, state: &mut State) -> Result<()> {
        state.value("spec", &mut self.generator.spec)?;
        self.state_but_spec(state)
    }

    /// What lies in memory that the spec describes.
    fn state_but_spec(&mut self, state: &mut State) -> Result<()> {
        state.value("classes", &mut self.classes)?;
        let Network { parameters, buffers } = &mut self.generator.network;
        let mut halves = tch::no_grad(|| parameters.weights.to_kind(Kind::Half));
        state.tensor("weights", &mut halves)?;
        if state.is_loading() {
            tch::no_grad(|| parameters.weights.f_copy_(&halves))?;
        }
        state.tensor("buffers", &mut buffers.weights)
    }

    /// `count` latent vectors, each from a seed of its own: `seed`, `seed + 1`, …; scaled by `truncation` towards 0, the
    /// mean. `[count, latent]`.
    pub fn latents(&self, seed: u64, count: usize, truncation: f64) -> Tensor {
        let spec = &self.generator.spec;
        let one = |i: usize| {
            let mut rng = Stream::new(seed.wrapping_add(i as u64), "latent vector", 0, 0);
            spec.law.draw(1, spec.latent, &mut rng)
        };
        Tensor::cat(&(0..count).map(one).collect::<Vec<_>>(), 0) * truncation
    }

    /// Images `[N, C, H, W]` in `[−1, 1]` of latent vectors `[N, latent]`, of the classes `labels`, `[N]`.
    ///
    /// # Errors
    /// Labels that there are not.
    pub fn images(&self, z: &Tensor, labels: &[i64]) -> Result<Tensor> {
        let classes = self.generator.spec.classes;
        let mut made = Vec::new();
        let count = z.size()[0];
        for first in (0..count).step_by(GRID as usize) {
            let rows = GRID.min(count - first);
            let labels = match classes {
                0 => None,
                _ => Some(one_hot(&labels[first as usize..(first + rows) as usize], classes)?),
            };
            let z = z.narrow(0, first, rows);
            made.push(tch::no_grad(|| self.generator.forward(&z, labels.as_ref(), Mode::Running)));
        }
        Ok(Tensor::cat(&made, 0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::generative::data::DataConfig;

    /// 24 images of 32 × 32: a bright square in one of four corners, the class, on a dark ground.
    fn corners(folder: &Path) -> ImageSet {
        for i in 0..24u32 {
            let (left, top) = (i % 2 * 16, i / 2 % 2 * 16);
            let image = image::RgbImage::from_fn(32, 32, |x, y| {
                let inside = (left..left + 16).contains(&x) && (top..top + 16).contains(&y);
                image::Rgb(if inside { [250, 200, 40] } else { [20, 20, 30 + i as u8] })
            });
            let class = folder.join(format!("corner{}", i % 4));
            std::fs::create_dir_all(&class).unwrap();
            image.save(class.join(format!("{i}.png"))).unwrap();
        }
        let path = folder.to_string_lossy().into_owned();
        let config =
            DataConfig { path, size: 32, flip: true, label: Some("folder".into()), ..Default::default() };
        ImageSet::open(&config, None).unwrap()
    }

    fn small() -> DcganConfig {
        DcganConfig {
            generator_width: Some(4),
            discriminator_width: Some(4),
            latent: 8,
            batch_size: Some(8),
            ..Default::default()
        }
    }

    fn gan(config: DcganConfig) -> Gan {
        let folder = tempfile::tempdir().unwrap();
        Gan::new(config, corners(folder.path()), 0, 100).unwrap()
    }

    fn run(gan: &mut Gan, steps: u64) -> Log {
        let mut log = Log::in_memory();
        (0..steps).for_each(|_| gan.iterate(&mut log).unwrap());
        log
    }

    fn saved(gan: &mut Gan) -> (Vec<(String, Tensor)>, crate::run::tensor_file::Values) {
        let mut state = State::saving();
        gan.state(&mut state).unwrap();
        state.finish().unwrap()
    }

    #[test]
    fn every_setting_trains_and_goes_on_to_the_bit() {
        for config in [
            DcganConfig { ema_half_life: 50.0, augment: Augmentation::Diff, ..small() },
            DcganConfig { preset: Preset::DcganCode, accumulate: 2, discriminator_steps: 2, ..small() },
            DcganConfig {
                discriminator_norm: DiscriminatorNorm::None,
                loss: Adversarial::Logistic,
                r1: 1.0,
                r1_every: 2,
                augment: Augmentation::Adaptive,
                ..small()
            },
            DcganConfig {
                discriminator_norm: DiscriminatorNorm::Spectral,
                loss: Adversarial::Wasserstein,
                gradient_penalty: 10.0,
                decay_from: 0.02,
                ..small()
            },
            DcganConfig { loss: Adversarial::TwoClass, precision: Precision::Bf16, ..small() },
        ] {
            let mut whole = gan(config.clone());
            let log = run(&mut whole, 4);
            assert!(log.current("gan/generator_loss").unwrap().is_finite());
            let mut first = gan(config.clone());
            run(&mut first, 2);
            first.evaluate(&mut Log::in_memory()).unwrap();
            let (tensors, values) = saved(&mut first);
            let mut second = gan(config.clone());
            let mut state = State::loading(tensors.into_iter().collect(), values);
            second.state(&mut state).unwrap();
            state.finish().unwrap();
            run(&mut second, 2);
            for ((name, a), (_, b)) in saved(&mut whole).0.iter().zip(&saved(&mut second).0) {
                assert_eq!(a, b, "{name} with {config:?}");
            }
        }
    }

    #[test]
    fn images_are_made_from_a_checkpoint_each_by_itself() {
        let mut gan = gan(DcganConfig { ema_half_life: 50.0, ..small() });
        run(&mut gan, 2);
        let (tensors, values) = saved(&mut gan);
        let mut state = State::loading(tensors.into_iter().collect(), values);
        let maker = Maker::from_state(&mut state).unwrap();
        assert_eq!(maker.classes.len(), 4);
        let z = maker.latents(5, 70, 1.0);
        let labels: Vec<i64> = (0..70).map(|i| i % 4).collect();
        let images = maker.images(&z, &labels).unwrap();
        assert_eq!(images.size(), [70, 3, 32, 32]);
        let alone = maker.images(&maker.latents(8, 1, 1.0), &[3]).unwrap();
        assert!((images.narrow(0, 3, 1) - alone).abs().max().double_value(&[]) < 1e-5);
        assert!((maker.latents(5, 1, 0.5) * 2.0 - z.narrow(0, 0, 1)).abs().max().double_value(&[]) < 1e-6);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let mut maker = maker;
        let about = [("licence".to_string(), "CC0".into())].into_iter().collect();
        maker.save(&path, &about).unwrap();
        let (again, about) = Maker::load(&path).unwrap();
        assert_eq!((&again.classes, &about["licence"]), (&maker.classes, &"CC0".into()));
        let off = (again.images(&z, &labels).unwrap() - &images).abs().max().double_value(&[]);
        assert!(off < 2.0 / 255.0, "{off}");
        std::fs::write(&path, "no model").unwrap();
        assert!(Maker::load(&path).unwrap_err().to_string().contains("x.safetensors"));
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let refused = |config: DcganConfig| {
            let folder = tempfile::tempdir().unwrap();
            Gan::new(config, corners(folder.path()), 0, 100).err().unwrap().to_string()
        };
        let few = refused(DcganConfig { batch_size: Some(25), ..small() });
        assert!(
            few.contains("24 images in 4 class folders, 24 of them") && few.contains("batch_size = 25"),
            "{few}"
        );
        assert!(refused(DcganConfig { r1: 1.0, ..small() }).contains("discriminator_norm"));
        assert!(refused(DcganConfig { accumulate: 3, ..small() }).contains("accumulate = 3"));
    }

    #[test]
    fn a_number_that_is_not_finite_stops_and_is_named() {
        let mut gan = gan(small());
        let _ = tch::no_grad(|| gan.discriminator.network.parameters.weights.get(0).fill_(f64::NAN));
        let message = gan.iterate(&mut Log::in_memory()).unwrap_err().to_string();
        assert!(message.contains("discriminator"), "{message}");
    }
}
