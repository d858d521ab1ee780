//! Feature spaces in which curiosity modules think, and what teaches them.

use crate::encoder::{Encoder, Sight, Standardise, torso_for};
use crate::inverse_model::InverseModel;
use crate::transitions::Gathered;
use crate::vae::Vae;
use imago::nn::{Adam, Flat, Init, Layout, TorsoKind};
use imago::rollout::Batch;
use imago::run::{Log, State};
use imago::{Result, Stream};
use imago_envs::Space;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Takes the step that the gradient in `flat` says, its norm clipped to `max_norm`; the norm that it had is logged.
///
/// # Errors
/// A gradient that is not finite; `inputs` is dumped, and `what` named.
pub(crate) fn clipped_step(
    flat: &mut Flat,
    adam: &mut Adam,
    learning_rate: f64,
    max_norm: f64,
    (what, inputs): (&str, &Tensor),
    log: &mut Log,
) -> Result<()> {
    let norm = flat.clip_gradient(max_norm);
    if !norm.is_finite() {
        return Err(flat.diverged(what, vec![("inputs".into(), inputs.detach().copy())]));
    }
    adam.update(flat, learning_rate);
    log.scalar("gradient_norm", norm);
    Ok(())
}

/// In what space the future is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// An encoder that learns by the inverse model (Pathak et al. 2017).
    Inverse,
    /// An encoder that stays as it began (Burda et al. 2018).
    Random,
    /// The latent means of a variational auto-encoder (Burda et al. 2018).
    Vae,
    /// The observation itself.
    Pixels,
}

/// What teaches the encoder.
enum Teacher {
    Inverse(InverseModel),
    Vae(Vae),
    /// Nobody: it stays as it is.
    Nobody,
}

/// What features are made of.
#[derive(Clone, Copy)]
pub(crate) struct FeatureSpec<'a> {
    pub kind: FeatureKind,
    /// Side of the squares over which images are averaged.
    pub downsample: usize,
    pub torso: Option<TorsoKind>,
    pub hidden: Option<&'a [i64]>,
    pub standardise: Standardise,
    /// Each φ is shifted and scaled to mean 0 and deviation 1 over its numbers.
    pub layer_norm: bool,
    /// Of the teacher's layers.
    pub width: i64,
}

/// φ, in a [`Flat`] with whatever stands on it.
pub(crate) struct Features {
    encoder: Encoder,
    teacher: Teacher,
    layer_norm: bool,
    /// Numbers in φ.
    pub count: i64,
}

/// How the teacher finds φ.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taught {
    /// Its loss.
    pub loss: f64,
    /// Share of actions that the inverse model guesses.
    pub accuracy: Option<f64>,
}

/// (φ − mean φ) / √(var φ + 10⁻⁵) over the numbers of each φ, `[B, F]`, if that is wanted (layer normalisation without
/// parameters, Ba et al. 2016).
fn normalised(phi: Tensor, wanted: bool) -> Tensor {
    match wanted {
        true => phi.layer_norm(&phi.size()[1..], None::<Tensor>, None::<Tensor>, 1e-5, false),
        false => phi,
    }
}

impl Features {
    /// Reserves the parameters.
    ///
    /// # Errors
    /// A convolutional torso over something that is no image, or one too small for it.
    pub fn new(layout: &mut Layout, spec: FeatureSpec, observation: &Space, action: &Space) -> Result<Self> {
        let torso = torso_for(observation, spec.torso, spec.hidden);
        let sight = Sight::new(observation, spec.downsample)?;
        let encoder = match spec.kind {
            FeatureKind::Pixels => Encoder::identity(sight, spec.standardise),
            _ => Encoder::new(layout, "encoder", &torso, sight, spec.standardise, Init::GlorotUniform)?,
        };
        let encoded = encoder.features;
        let teacher = match spec.kind {
            FeatureKind::Inverse => Teacher::Inverse(InverseModel::new(layout, encoded, spec.width, action)),
            FeatureKind::Vae => Teacher::Vae(Vae::new(layout, encoded, spec.width, encoder.inputs())),
            FeatureKind::Random | FeatureKind::Pixels => Teacher::Nobody,
        };
        let count = match &teacher {
            Teacher::Vae(vae) => vae.features,
            Teacher::Inverse(_) | Teacher::Nobody => encoded,
        };
        Ok(Self { encoder, teacher, layer_norm: spec.layer_norm, count })
    }

    /// Finds the fast path, once the parameters are there.
    pub fn settle(&mut self, flat: &Flat) {
        self.encoder.settle(flat);
    }

    /// Whether they stay as they are.
    pub fn fixed(&self) -> bool {
        matches!(self.teacher, Teacher::Nobody)
    }

    /// φ `[B, F]` of observations `[B, …]`, without gradients.
    pub fn of(&mut self, flat: &Flat, observation: &Tensor) -> Tensor {
        let encoded = self.encoder.encode(flat, observation);
        let phi = match &self.teacher {
            Teacher::Vae(vae) => tch::no_grad(|| vae.mean(flat, &encoded)),
            Teacher::Inverse(_) | Teacher::Nobody => encoded,
        };
        normalised(phi, self.layer_norm)
    }

    /// Writes the gradient of `total(φ, the teacher's loss)` by every parameter into `flat`; φ, `[U, F]`, is that of
    /// `transitions.observation`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn descend(
        &mut self,
        flat: &mut Flat,
        transitions: &Gathered,
        rng: &mut Stream,
        total: impl FnOnce(&Flat, Tensor, Tensor) -> Tensor,
    ) -> Result<Taught> {
        let Self { encoder, teacher, layer_norm, .. } = self;
        let Gathered { observation, from, to, action } = transitions;
        let mut taught = Taught::default();
        let seen = matches!(teacher, Teacher::Vae(_)).then(|| encoder.prepared(observation).flatten(1, -1));
        encoder.descend(flat, observation, |flat, encoded| {
            let (loss, phi) = match teacher {
                Teacher::Inverse(inverse) => {
                    let phi = normalised(encoded.shallow_clone(), *layer_norm);
                    let out = inverse.forward(flat, &phi.index_select(0, from), &phi.index_select(0, to));
                    taught.accuracy = inverse.accuracy(&out, action);
                    (inverse.loss(&out, action), phi)
                }
                Teacher::Vae(vae) => {
                    let loss = vae.loss(flat, encoded, seen.as_ref().unwrap_or(encoded), rng);
                    (loss, normalised(vae.mean(flat, encoded), *layer_norm))
                }
                Teacher::Nobody => (Tensor::from(0f32), normalised(encoded.shallow_clone(), *layer_norm)),
            };
            taught.loss = loss.double_value(&[]);
            total(flat, phi, loss)
        })?;
        Ok(taught)
    }

    /// Logs the teacher's figures.
    pub fn log(&self, taught: Taught, log: &mut Log) {
        match self.teacher {
            Teacher::Inverse(_) => log.scalar("inverse_loss", taught.loss),
            Teacher::Vae(_) => log.scalar("vae_loss", taught.loss),
            Teacher::Nobody => {}
        }
        taught.accuracy.into_iter().for_each(|accuracy| log.scalar("inverse_accuracy", accuracy));
    }

    /// Begins their statistics, before a rollout's first bonus, if there are any and nothing is in them.
    pub fn begin(&mut self, rollout: &Batch) {
        self.encoder.begin(|| rollout.gather_observation(&rollout.valid_index()));
    }

    /// Takes a rollout into their statistics, once they are no longer needed as they are, if there are any.
    pub fn observe(&mut self, rollout: &Batch) {
        self.encoder.observe(|| rollout.gather_observation(&rollout.valid_index()));
    }

    /// Saves or restores the statistics; the parameters are the network's.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        self.encoder.state(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_norm_by_hand() {
        let phi = Tensor::from_slice(&[1f32, 2., 3., 10., 10., 40.]).view([2, 3]);
        // Means 2 and 20, variances 2/3 and 200.
        let wanted = [-1.5f64.sqrt(), 0.0, 1.5f64.sqrt(), -0.5f64.sqrt(), -0.5f64.sqrt(), 2f64.sqrt()];
        let found = normalised(phi.shallow_clone(), true);
        for (i, wanted) in (0i64..).zip(wanted) {
            assert!((found.double_value(&[i / 3, i % 3]) - wanted).abs() < 1e-4, "{found}");
        }
        assert_eq!(normalised(phi.shallow_clone(), false), phi);
    }
}
