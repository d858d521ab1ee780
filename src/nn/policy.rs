//! The actor-critic: one description, from which learner and workers build the same network.

use super::cell::{Cell, CellKind};
use super::compact::{Choice, Compact, Decision};
use super::dense::Dense;
use super::distribution::Distribution;
use super::flat::{Flat, Init, Layout};
use super::normaliser::RunningNorm;
use super::squash::{Bounds, BoxHead};
use super::torso::{Linear, Precision, Torso, TorsoSpec, scaled};
use crate::memory::{leaf_of, slice};
use crate::random::Stream;
use crate::run::State;
use crate::{Error, Result};
use imago_envs::{Dtype, Space};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// The policy's output distribution; follows from the action space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head {
    /// One of `n` choices.
    Categorical,
    /// Independent normals with a state-independent log standard deviation.
    DiagonalGaussian,
    /// tanh of independent normals, or tanh alone: see [`BoxHead`].
    Bounded(BoxHead),
    /// Several independent choices.
    MultiCategorical,
    /// Independent switches.
    Bernoulli,
    /// Independent fields, each with the head of its space.
    Joint,
}

/// A recurrent cell between torso and heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemorySpec {
    /// Which one.
    pub kind: CellKind,
    /// H.
    pub units: i64,
}

/// Everything needed to build an [`ActorCritic`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// What it sees.
    pub observation: Space,
    /// What it decides.
    pub action: Space,
    /// Torso of the policy and, unless shared, of the value function.
    pub torso: TorsoSpec,
    /// One torso for both.
    pub shared: bool,
    /// Number of value estimates: one for each group of reward signals with its own discount; 0 for learners whose
    /// critics are networks of their own.
    pub value_heads: usize,
    /// Standardise observations by running statistics, clipped to ±10: vectors number by number, an image by one mean and one
    /// deviation for all of its pixels.
    pub normalise: bool,
    /// Initial log standard deviation of continuous actions.
    pub log_std: f64,
    /// The environment says which actions are allowed.
    #[serde(default)]
    pub masked: bool,
    /// How it acts on boxes.
    #[serde(default)]
    pub box_head: BoxHead,
    /// A memory of what was seen before in the episode, behind each torso.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySpec>,
}

impl PolicySpec {
    /// S, floats of memory of one environment: 0 without memory.
    pub fn memory_size(&self) -> i64 {
        let cells = 1 + i64::from(!self.shared && self.value_heads > 0);
        self.memory.map_or(0, |memory| cells * memory.kind.size(memory.units))
    }

    /// The head that fits the action space.
    pub fn head(&self) -> Head {
        match self.action {
            Space::Discrete { .. } => Head::Categorical,
            Space::Box { .. } if self.box_head == BoxHead::Gaussian => Head::DiagonalGaussian,
            Space::Box { .. } => Head::Bounded(self.box_head),
            Space::MultiDiscrete { .. } => Head::MultiCategorical,
            Space::MultiBinary { .. } => Head::Bernoulli,
            Space::Fields(_) => Head::Joint,
        }
    }
}

/// Values of the boxes in a space.
fn continuous(space: &Space) -> usize {
    match space {
        Space::Box { .. } => space.len(),
        Space::Fields(fields) => fields.iter().map(|field| continuous(&field.space)).sum(),
        _ => 0,
    }
}

/// Refuses boxes that no density here is over.
fn check_actions(space: &Space) -> Result<()> {
    match space {
        Space::Box { dtype, .. } if *dtype != Dtype::F32 => Err(Error::Invalid(format!(
            "actions of {space} have no distribution: use floats, or MultiDiscrete for whole numbers"
        ))),
        Space::Fields(fields) => fields.iter().try_for_each(|field| check_actions(&field.space)),
        _ => Ok(()),
    }
}

/// A policy with its value function(s): parameters and observation statistics together.
#[derive(Debug)]
pub struct ActorCritic {
    /// What it was built from.
    pub spec: PolicySpec,
    /// All parameters.
    pub parameters: Flat,
    /// Statistics of the observations; updated by the learner after each of its updates, nowhere else.
    pub normaliser: Option<RunningNorm>,
    torso: Torso,
    value_torso: Option<Torso>,
    /// Behind the torsos, in their order; none without memory.
    cells: Vec<Cell>,
    policy: Linear,
    log_std: Option<usize>,
    value: Option<Linear>,
    /// Of the actions, where the head keeps to them.
    bounds: Option<Bounds>,
    compact: Option<Compact>,
    /// Whether its statistics stay as they are.
    still: bool,
}

/// What the policy thinks of actions already taken.
#[derive(Debug)]
pub struct Evaluated {
    /// `[B]`
    pub log_prob: Tensor,
    /// `[B]`
    pub entropy: Tensor,
    /// `[B, H]`
    pub value: Tensor,
}

/// Weights and statistics as workers receive them: plain memory, shared between threads.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The flat parameter buffer.
    pub weights: Arc<Vec<f32>>,
    /// The observation statistics that belong to them.
    pub normaliser: Option<RunningNorm>,
}

impl ActorCritic {
    /// Builds and initialises: orthogonal, gain √2 in the torsos, 0.01 before the action distribution, 1 before
    /// the values.
    ///
    /// # Errors
    /// A torso that does not fit the observations; normalisation of images; actions of bytes; a head for bounded boxes
    /// over other actions.
    pub fn new(spec: PolicySpec, rng: &mut Stream) -> Result<Self> {
        Self::build(spec, |layout| Ok(Flat::new(layout, rng)))
    }

    fn build(spec: PolicySpec, parameters: impl FnOnce(Layout) -> Result<Flat>) -> Result<Self> {
        let mut layout = Layout::default();
        let torso = Torso::new(&mut layout, "policy", &spec.torso, &spec.observation)?;
        let value_torso = if spec.shared || spec.value_heads == 0 {
            None
        } else {
            Some(Torso::new(&mut layout, "value", &spec.torso, &spec.observation)?)
        };
        let cell = |layout: &mut Layout, name: &str, torso: &Torso| {
            let MemorySpec { kind, units } = spec.memory?;
            Some(Cell::new(layout, &format!("{name}/memory"), kind, torso.features, units))
        };
        let of_policy = cell(&mut layout, "policy", &torso);
        let of_value = value_torso.as_ref().and_then(|torso| cell(&mut layout, "value", torso));
        let cells: Vec<Cell> = of_policy.into_iter().chain(of_value).collect();
        let features = spec.memory.map_or(torso.features, |memory| memory.units);
        check_actions(&spec.action)?;
        let bounds = (spec.box_head != BoxHead::Gaussian).then(|| Bounds::of(&spec.action)).transpose()?;
        let each = if spec.box_head == BoxHead::SquashedGaussian { 2 } else { 1 };
        let outputs = each * spec.action.features() as i64;
        let policy = Linear::new(&mut layout, "policy/out", features, outputs, Init::Orthogonal(0.01));
        let continuous = if bounds.is_some() { 0 } else { continuous(&spec.action) as i64 };
        let log_std = (continuous > 0)
            .then(|| layout.add("policy/log_std", &[continuous], Init::Constant(spec.log_std)));
        let value = (spec.value_heads > 0).then(|| {
            Linear::new(&mut layout, "value/out", features, spec.value_heads as i64, Init::Orthogonal(1.0))
        });
        let running = |features| RunningNorm::new(features, 1e-8, Some(10.0));
        let normaliser = spec.normalise.then(|| match torso.convolutions() {
            [] => running(spec.observation.features()).only(torso.standardised(&spec.observation)),
            // All pixels are numbers of one kind.
            _ => running(1),
        });
        let parameters = parameters(layout)?;
        let compact = match spec.head() {
            // Masks, memory and other arithmetic are the slow path's.
            _ if spec.masked || spec.memory.is_some() || spec.torso.precision != Precision::F32 => None,
            Head::Categorical | Head::DiagonalGaussian | Head::Bounded(_) => Compact::new(
                &parameters.layout,
                &spec.observation,
                (&torso, value_torso.as_ref()),
                (&policy, value.as_ref()),
                log_std.map(|index| parameters.layout[index].offset),
                bounds.as_ref().map(|bounds| (spec.box_head, bounds.clone())),
            ),
            Head::MultiCategorical | Head::Bernoulli | Head::Joint => None,
        };
        let still = false;
        Ok(Self {
            spec,
            parameters,
            normaliser,
            torso,
            value_torso,
            cells,
            policy,
            log_std,
            value,
            bounds,
            compact,
            still,
        })
    }

    /// The fast path through the same parameters, where there is one.
    pub fn compact(&self) -> Option<&Compact> {
        self.compact.as_ref()
    }

    /// The network before the action distribution in plain memory; it reads [`ActorCritic::features`]. `None` with
    /// convolutions or memory.
    pub fn perceptron(&self) -> Option<Dense> {
        (self.torso.is_perceptron() && self.cells.is_empty())
            .then(|| Dense::new(&self.parameters.layout, self.torso.mlp(), Some(&self.policy)))
    }

    /// The bounds of the actions, where the head keeps to them.
    pub fn bounds(&self) -> Option<&Bounds> {
        self.bounds.as_ref()
    }

    /// What the networks read of observations `[B, …]`: floats, standardised if the policy does that.
    pub fn features(&self, observation: &Tensor) -> Tensor {
        let x = self.torso.prepare(&self.spec.observation, observation);
        match &self.normaliser {
            Some(normaliser) => normaliser.normalise(&x),
            None => x,
        }
    }

    /// What the fast path reads of observations `[B, …]`: images in the shape in which they were seen, else
    /// [`ActorCritic::features`].
    pub fn input(&self, observation: &Tensor) -> Tensor {
        match (self.torso.convolutions(), &self.normaliser) {
            ([], _) => self.features(observation).contiguous(),
            (_, None) => observation.contiguous(),
            (_, Some(normaliser)) => {
                normaliser.normalise(&scaled(&self.spec.observation, observation)).contiguous()
            }
        }
    }

    /// S, floats of memory of one environment: 0 without memory.
    pub fn memory(&self) -> i64 {
        self.spec.memory_size()
    }

    /// Nothing remembered in `count` environments: zeros `[count, S]`.
    pub fn no_memory(&self, count: i64) -> Tensor {
        Tensor::zeros([count, self.memory()], (Kind::Float, Device::Cpu))
    }

    /// Action distribution and values `[B, H]` in a batch of observations `[B, …]`; if it has a memory, there is
    /// nothing in it.
    pub fn forward(&self, observation: &Tensor) -> (Distribution, Tensor) {
        self.forward_masked(observation, None)
    }

    /// As [`ActorCritic::forward`], where `mask`, bool `[B, choices]`, says what is allowed (see
    /// [`Space::choices`]).
    pub fn forward_masked(&self, observation: &Tensor, mask: Option<&Tensor>) -> (Distribution, Tensor) {
        let memory = self.no_memory(observation.size()[0]);
        let (distribution, value, _) = self.forward_sequence(observation, mask, &memory, None);
        (distribution, value)
    }

    /// As [`ActorCritic::forward_masked`], for T steps of n environments whose observations follow each other row by row,
    /// `[T · n, …]`. Before them it remembers `memory`, `[n, S]`, but for the environments in which an episode begins in a
    /// step: where `start`, bool `[T, n]`, says so. Third, what it remembers after them.
    pub fn forward_sequence(
        &self,
        observation: &Tensor,
        mask: Option<&Tensor>,
        memory: &Tensor,
        start: Option<&Tensor>,
    ) -> (Distribution, Tensor, Tensor) {
        let x = self.features(observation);
        let torsos = std::iter::once(&self.torso).chain(&self.value_torso);
        let mut features: Vec<Tensor> = torsos.map(|torso| torso.forward(&self.parameters, &x)).collect();
        let (mut after, mut column) = (Vec::new(), 0);
        for (features, cell) in features.iter_mut().zip(&self.cells) {
            let sequence = features.view([-1, memory.size()[0], features.size()[1]]);
            let own = memory.narrow(1, column, cell.memory());
            let (outputs, last) = cell.unroll(&self.parameters, &sequence, &own, start);
            *features = outputs.flatten(0, 1);
            column += cell.memory();
            after.push(last);
        }
        let after = if after.is_empty() { memory.shallow_clone() } else { Tensor::cat(&after, 1) };
        let (distribution, value) = self.heads(&features, mask);
        (distribution, value, after)
    }

    /// What the heads make of the features, `[B, …]`, of each torso or of the memory behind it.
    fn heads(&self, features: &[Tensor], mask: Option<&Tensor>) -> (Distribution, Tensor) {
        // One torso's serve both.
        let (first, last) = (&features[0], &features[features.len() - 1]);
        let value = match &self.value {
            Some(value) => value.forward(&self.parameters, last),
            None => Tensor::zeros([first.size()[0], 0], (Kind::Float, Device::Cpu)),
        };
        let out = self.policy.forward(&self.parameters, first);
        let log_std = self.log_std.map(|index| self.parameters.get(index));
        let distribution = match (&self.bounds, self.spec.box_head) {
            (Some(bounds), BoxHead::Deterministic { noise }) => Distribution::around(&out, bounds, noise),
            (Some(bounds), _) => Distribution::squashed(&out, bounds),
            (None, _) => Distribution::over(&self.spec.action, &out, log_std, mask),
        };
        (distribution, value)
    }

    /// Decides in each state of `observation`, `[n, …]`; without gradients, and without libtorch on the fast path. If it
    /// has a memory, there is nothing in it.
    pub fn decide(&self, observation: &Tensor, choice: Choice, to: &mut Decision) {
        self.decide_masked(observation, None, &mut self.no_memory(observation.size()[0]), choice, to);
    }

    /// As [`ActorCritic::decide`], among the actions that `mask` allows, if there is one; `memory`, `[n, S]`, becomes what
    /// is remembered after it.
    pub fn decide_masked(
        &self,
        observation: &Tensor,
        mask: Option<&Tensor>,
        memory: &mut Tensor,
        choice: Choice,
        to: &mut Decision,
    ) {
        if let (Some(compact), None) = (&self.compact, mask) {
            let (weights, n) = (slice(&self.parameters.weights), observation.size()[0] as usize);
            return compact.decide(weights, self.normaliser.as_ref(), leaf_of(observation), n, choice, to);
        }
        // With libtorch: any policy, any mask.
        tch::no_grad(|| {
            let (distribution, value, after) = self.forward_sequence(observation, mask, memory, None);
            let action = match choice {
                Choice::Sample(noise) => distribution.sample(noise),
                Choice::Mode => distribution.mode(),
            };
            to.copy_from(&self.spec.action, &action, &distribution.log_prob(&action), &value);
            *memory = after;
        });
    }

    /// Values `[B, H]`, without gradients. If it has a memory, there is nothing in it.
    pub fn value(&self, observation: &Tensor) -> Tensor {
        self.value_after(observation, &self.no_memory(observation.size()[0]))
    }

    /// Values `[B, H]` of what is seen after what is remembered, `[B, S]`; without gradients.
    pub fn value_after(&self, observation: &Tensor, memory: &Tensor) -> Tensor {
        if self.compact.is_some() {
            let mut decision = Decision::default();
            self.decide(observation, Choice::Mode, &mut decision);
            let shape = [observation.size()[0], self.spec.value_heads as i64];
            return Tensor::from_slice(&decision.value).view(shape);
        }
        match observation.size()[0] {
            0 => Tensor::zeros([0, self.spec.value_heads as i64], (Kind::Float, Device::Cpu)),
            _ => tch::no_grad(|| self.forward_sequence(observation, None, memory, None).1),
        }
    }

    /// Probabilities, entropies and values of actions `[B]` or `[B, A]` taken in `observation`, with gradients.
    pub fn evaluate(&self, observation: &Tensor, action: &Tensor) -> Evaluated {
        let (distribution, value) = self.forward(observation);
        Evaluated { log_prob: distribution.log_prob(action), entropy: distribution.entropy(), value }
    }

    /// As [`ActorCritic::evaluate`], where `mask` says what was allowed when the actions were taken, if there was
    /// one.
    pub fn evaluate_masked(&self, observation: &Tensor, mask: Option<&Tensor>, action: &Tensor) -> Evaluated {
        let (distribution, value) = self.forward_masked(observation, mask);
        Evaluated { log_prob: distribution.log_prob(action), entropy: distribution.entropy(), value }
    }

    /// As [`ActorCritic::evaluate_masked`], for the sequences of [`ActorCritic::forward_sequence`].
    pub fn evaluate_sequence(
        &self,
        observation: &Tensor,
        mask: Option<&Tensor>,
        action: &Tensor,
        memory: &Tensor,
        start: &Tensor,
    ) -> Evaluated {
        let (distribution, value, _) = self.forward_sequence(observation, mask, memory, Some(start));
        Evaluated { log_prob: distribution.log_prob(action), entropy: distribution.entropy(), value }
    }

    /// Begins with what another policy has learnt: all of its parameters and its statistics. Values are taken over if
    /// both have as many heads, and begin anew if not: then what signals pay is another thing anyway.
    ///
    /// # Errors
    /// A policy of other spaces or other layers, another memory included.
    pub fn begin_from(&mut self, other: &Self) -> Result<()> {
        let (ours, theirs) = (&self.spec, &other.spec);
        theirs
            .observation
            .check_fits("the policy's and the environment's observations", &ours.observation)?;
        theirs.action.check_fits("the policy's and the environment's actions", &ours.action)?;
        let refused = |why: &str| {
            let of = |spec: &PolicySpec| {
                let (TorsoSpec { kind, hidden, activation, .. }, shared) = (&spec.torso, spec.shared);
                let memory = spec
                    .memory
                    .map_or("none".into(), |memory| format!("{} units of {:?}", memory.units, memory.kind));
                format!(
                    "torso {kind:?}, hidden {hidden:?}, activation {activation:?}, shared {shared}, memory {memory}"
                )
            };
            Error::Invalid(format!(
                "the layers must be the same: {} there, {} here{why}",
                of(theirs),
                of(ours)
            ))
        };
        // Shapes may fit where what they are of does not.
        let built = |spec: &PolicySpec| (spec.memory, spec.shared, spec.torso.activation, spec.torso.kind);
        if built(ours) != built(theirs) {
            return Err(refused(""));
        }
        let left = self.parameters.take_over(&other.parameters);
        if let Some(name) = left.iter().find(|name| !name.starts_with("value/out")) {
            return Err(refused(&format!(" (that policy has no `{name}` of this shape)")));
        }
        if self.normaliser.is_some() != other.normaliser.is_some() {
            return Err(Error::Invalid(format!(
                "policy.normalise is {} there and {} here",
                theirs.normalise, ours.normalise
            )));
        }
        self.normaliser.clone_from(&other.normaliser);
        Ok(())
    }

    /// Keeps parameters whose names begin with `name` as they are, or with the name `normaliser` the statistics.
    ///
    /// # Errors
    /// Nothing is called so; with the names that there are.
    pub fn freeze(&mut self, name: &str) -> Result<()> {
        if name == "normaliser" && self.normaliser.is_some() {
            self.still = true;
        } else if name.is_empty() || self.parameters.freeze(name) == 0 {
            let names = self.parameters.layout.iter().map(|slot| slot.name.as_str());
            let names: Vec<&str> = names.chain(self.normaliser.as_ref().map(|_| "normaliser")).collect();
            return Err(Error::Invalid(format!(
                "no parameter's name begins with `{name}` (there are: {})",
                names.join(", ")
            )));
        }
        Ok(())
    }

    /// Takes observations `[B, …]` into the running statistics, if there are any that may change.
    pub fn update_normaliser(&mut self, observation: &Tensor) {
        let Some(normaliser) = self.normaliser.as_mut().filter(|_| !self.still) else { return };
        match self.torso.convolutions() {
            [] => normaliser.update(&self.torso.prepare(&self.spec.observation, observation)),
            _ => normaliser.update_pixels(observation),
        }
    }

    /// A copy for the workers.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            weights: Arc::new(slice::<f32>(&self.parameters.weights).to_vec()),
            normaliser: self.normaliser.clone(),
        }
    }

    /// Takes over a snapshot of the same description.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.parameters.copy_from(&snapshot.weights)?;
        self.normaliser.clone_from(&snapshot.normaliser);
        Ok(())
    }

    /// The policy that a checkpoint holds, built from its own description.
    pub fn from_state(state: &mut State) -> Result<Self> {
        let mut spec: Option<PolicySpec> = None;
        state.value("spec", &mut spec)?;
        let spec =
            spec.ok_or_else(|| Error::Invalid("the checkpoint does not describe its policy".into()))?;
        for space in [&spec.observation, &spec.action] {
            space.check()?;
        }
        let mut policy = Self::build(spec, |layout| Flat::from_state(layout, state))?;
        policy.normaliser_state(state)?;
        Ok(policy)
    }

    /// Saves or restores parameters and statistics.
    ///
    /// # Errors
    /// A checkpoint of a policy with another description.
    pub fn state(&mut self, state: &mut State) -> Result<()> {
        let mut spec = Some(self.spec.clone());
        state.value("spec", &mut spec)?;
        if spec.as_ref() != Some(&self.spec) {
            return Err(Error::Invalid(format!(
                "the checkpoint's policy is another one: {spec:?}, not {:?}",
                self.spec
            )));
        }
        self.parameters.state(state)?;
        self.normaliser_state(state)
    }

    fn normaliser_state(&mut self, state: &mut State) -> Result<()> {
        match &mut self.normaliser {
            Some(normaliser) => state.scope("normaliser", |state| normaliser.state(state)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::memory::field_of;
    use crate::nn::TorsoKind;
    use imago_envs::LeafBuf;

    fn spec(observation: Space, action: Space, kind: TorsoKind, hidden: &[i64]) -> PolicySpec {
        let torso = TorsoSpec { kind, ..TorsoSpec::perceptron(hidden) };
        PolicySpec {
            observation,
            action,
            torso,
            shared: false,
            value_heads: 1,
            normalise: false,
            log_std: 0.0,
            masked: false,
            box_head: BoxHead::Gaussian,
            memory: None,
        }
    }

    fn image(side: usize, channels: usize) -> Space {
        Space::bytes(&[side, side, channels])
    }

    #[test]
    fn parameter_counts_equal_the_references() {
        let count =
            |spec| ActorCritic::new(spec, &mut Stream::new(0, "init", 0, 0)).unwrap().parameters.count();
        let cartpole =
            |hidden| spec(Space::floats(&[4], -1.0, 1.0), Space::discrete(2), TorsoKind::Mlp, hidden);
        // Stable-Baselines3's MlpPolicy on CartPole, and the GAIL paper's 10,802 + 10,801 minus its time input.
        assert_eq!(count(cartpole(&[64, 64])), 9_155);
        assert_eq!(count(cartpole(&[100, 100])), 10_802 + 10_701);
        // NatureCNN with 512 features, shared, on four stacked 84×84 frames: 1,684,128 in the torso.
        let atari = spec(image(84, 4), Space::discrete(6), TorsoKind::Nature, &[512]);
        assert_eq!(count(PolicySpec { shared: true, ..atari }), 1_684_128 + 6 * 513 + 513);
        // Pathak et al. (2017) on Doom and on Mario: 588,293 and 590,863, whose LSTM has one bias where libtorch's has two.
        let memory = Some(MemorySpec { kind: CellKind::Lstm, units: 256 });
        for (actions, wanted) in [(4, 588_293), (14, 590_863)] {
            let a3c = spec(image(42, 4), Space::discrete(actions), TorsoKind::Icm, &[]);
            assert_eq!(count(PolicySpec { shared: true, memory, ..a3c }), wanted + 4 * 256);
        }
    }

    #[test]
    fn a_description_that_the_parameters_contradict_is_refused() {
        let described = spec(Space::floats(&[3], -1.0, 1.0), Space::discrete(2), TorsoKind::Mlp, &[4]);
        let described = PolicySpec { normalise: true, ..described };
        let mut policy = ActorCritic::new(described.clone(), &mut Stream::new(0, "init", 0, 0)).unwrap();
        let mut state = State::saving();
        policy.state(&mut state).unwrap();
        let (tensors, values) = state.finish().unwrap();
        let loaded = |change: &dyn Fn(&mut PolicySpec)| {
            let mut described = described.clone();
            change(&mut described);
            let tensors = tensors.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
            let mut values = values.clone();
            values.insert("spec".into(), serde_json::to_value(described).unwrap());
            let mut state = State::loading(tensors, values);
            let loaded = ActorCritic::from_state(&mut state).map_err(|error| error.to_string())?;
            state.finish().unwrap();
            Ok::<_, String>(loaded)
        };
        let x = Stream::new(0, "x", 0, 0).normals(&[5, 3]);
        assert_eq!(loaded(&|_| ()).unwrap().value(&x), policy.value(&x));
        // None of them takes the memory that it describes.
        for hidden in [vec![40], vec![], vec![-4], vec![1 << 40], vec![i64::MAX; 3]] {
            let message = loaded(&|spec| spec.torso.hidden.clone_from(&hidden)).unwrap_err();
            assert!(message.contains("parameters"), "{hidden:?}: {message}");
        }
        assert!(loaded(&|spec| spec.value_heads = usize::MAX).unwrap_err().contains("parameters"));
        assert!(loaded(&|spec| spec.action = Space::discrete(0)).unwrap_err().contains("choices"));
        assert!(loaded(&|spec| spec.observation = Space::floats(&[4], 0.0, 1.0)).is_err());
    }

    #[test]
    fn channels_last_and_channels_first_see_the_same_image() {
        let mut last = ActorCritic::new(
            spec(image(42, 3), Space::discrete(4), TorsoKind::Icm, &[]),
            &mut Stream::new(0, "init", 0, 0),
        )
        .unwrap();
        let pixels = (Stream::new(1, "pixels", 0, 0).uniforms(&[2, 42, 42, 3]) * 255.0).to_kind(Kind::Uint8);
        let value = last.value(&pixels);
        assert_eq!(value.size(), [2, 1]);
        last.spec.observation = Space::bytes(&[3, 42, 42]);
        let first = last.value(&pixels.permute([0, 3, 1, 2]).contiguous());
        assert!((value - first).abs().max().double_value(&[]) < 1e-6);
    }

    /// An image, a vector, a choice and two switches.
    fn fields() -> Space {
        Space::fields([
            ("speed", Space::floats(&[2], -1.0, 1.0)),
            ("eye", image(42, 3)),
            ("gear", Space::discrete(3)),
            ("lights", Space::multi_binary(&[2])),
        ])
        .unwrap()
    }

    /// Records `[B, bytes]` of [`fields`].
    fn observed(speed: &Tensor, eye: &Tensor, gear: &Tensor, lights: &Tensor) -> Tensor {
        let Space::Fields(fields) = &fields() else { unreachable!() };
        let bytes: usize = fields.iter().map(|field| field.bytes()).sum();
        let records = Tensor::zeros([speed.size()[0], bytes as i64], (Kind::Uint8, tch::Device::Cpu));
        for (field, values) in fields.iter().zip([speed, eye, gear, lights]) {
            field_of(&records, field).copy_(values);
        }
        records
    }

    #[test]
    fn image_fields_go_through_convolutions_and_the_rest_joins_them() {
        let count = |observation: Space, kind| {
            let spec = PolicySpec { shared: true, ..spec(observation, Space::discrete(4), kind, &[256]) };
            ActorCritic::new(spec, &mut Stream::new(0, "init", 0, 0)).unwrap().parameters.count()
        };
        let alone = count(image(42, 3), TorsoKind::Icm);
        assert_eq!(count(fields(), TorsoKind::Icm), alone + (2 + 3 + 2) * 256);
        assert_eq!(count(fields(), TorsoKind::Mlp), (42 * 42 * 3 + 7) * 256 + 256 + 5 * 257);

        // With the weights of everything else at 0 it is the policy of the image alone.
        let alone =
            PolicySpec { shared: true, ..spec(image(42, 3), Space::discrete(4), TorsoKind::Icm, &[16]) };
        let mut joined = alone.clone();
        joined.observation = fields();
        let alone = ActorCritic::new(alone, &mut Stream::new(0, "init", 0, 0)).unwrap();
        let joined = ActorCritic::new(joined, &mut Stream::new(1, "init", 0, 0)).unwrap();
        tch::no_grad(|| {
            for i in 0..alone.parameters.layout.len() {
                let (from, mut to) = (alone.parameters.get(i), joined.parameters.get(i).shallow_clone());
                match from.size() == to.size() {
                    true => to.copy_(from),
                    false => {
                        let _ = to.zero_();
                        to.narrow(1, 0, from.size()[1]).copy_(from);
                    }
                }
            }
        });
        let eye = (Stream::new(1, "pixels", 0, 0).uniforms(&[2, 42, 42, 3]) * 255.0).to_kind(Kind::Uint8);
        let speed = Stream::new(1, "speed", 0, 0).normals(&[2, 2]);
        let (gear, lights) = (Tensor::from_slice(&[2i64, 0]), Tensor::from_slice2(&[[0u8, 1], [1, 1]]));
        let records = observed(&speed, &eye, &gear, &lights);
        assert!((alone.value(&eye) - joined.value(&records)).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn statistics_of_fields_leave_all_but_floats_alone() {
        for kind in [TorsoKind::Mlp, TorsoKind::Icm] {
            let spec = PolicySpec { normalise: true, ..spec(fields(), Space::discrete(4), kind, &[8]) };
            let mut policy = ActorCritic::new(spec, &mut Stream::new(0, "init", 0, 0)).unwrap();
            let eye = (Stream::new(1, "pixels", 0, 0).uniforms(&[6, 42, 42, 3]) * 255.0).to_kind(Kind::Uint8);
            let speed = Stream::new(1, "speed", 0, 0).normals(&[6, 2]) * 5.0 + 3.0;
            let (gear, lights) = (Tensor::from_slice(&[2i64; 6]), Tensor::from_slice2(&[[0u8, 1]; 6]));
            let records = observed(&speed, &eye, &gear, &lights);
            policy.update_normaliser(&records);
            let norm = policy.normaliser.as_ref().unwrap();
            let moved: Vec<usize> = (0..norm.mean.len()).filter(|&i| norm.mean[i] != 0.0).collect();
            // Vectors come first where the image is one of them, after it where it has convolutions.
            let first = if kind == TorsoKind::Mlp { 0 } else { 42 * 42 * 3 };
            assert_eq!(moved, [first, first + 1]);
            let shown = norm.normalise(&policy.torso.prepare(&policy.spec.observation, &records));
            let rest = shown.narrow(1, 42 * 42 * 3 + 2, 5).get(0);
            assert_eq!(Vec::<f32>::try_from(rest).unwrap(), [0.0, 0.0, 1.0, 0.0, 1.0]);
            assert!(policy.value(&records).isfinite().all().int64_value(&[]) == 1);
        }
    }

    #[test]
    fn convolutions_need_an_image_among_the_fields() {
        let vectors =
            Space::fields([("a", Space::floats(&[9, 9], 0.0, 1.0)), ("b", Space::discrete(3))]).unwrap();
        let refused =
            |spec| ActorCritic::new(spec, &mut Stream::new(0, "init", 0, 0)).unwrap_err().to_string();
        let message = refused(spec(vectors.clone(), Space::discrete(2), TorsoKind::Icm, &[8]));
        assert!(message.contains("none of these fields") && message.contains("mlp"), "{message}");
        let message = refused(spec(vectors, image(3, 1), TorsoKind::Mlp, &[8]));
        assert!(message.contains("MultiDiscrete"), "{message}");
    }

    #[test]
    fn a_policy_of_before_masks_is_read() {
        let spec = spec(Space::floats(&[3], -1.0, 1.0), Space::discrete(2), TorsoKind::Mlp, &[8]);
        let mut old = serde_json::to_value(&spec).unwrap();
        assert_eq!(old.as_object_mut().unwrap().remove("masked"), Some(false.into()));
        assert_eq!(serde_json::from_value::<PolicySpec>(old).unwrap(), spec);
    }

    #[test]
    fn bfloat16_changes_the_last_digits_and_keeps_weights_and_gradients_in_floats() {
        let whole = spec(image(42, 4), Space::discrete(4), TorsoKind::Icm, &[32]);
        let whole = PolicySpec { shared: true, ..whole };
        let mut short = whole.clone();
        short.torso.precision = Precision::Bf16;
        let [whole, mut short] =
            [whole, short].map(|spec| ActorCritic::new(spec, &mut Stream::new(0, "init", 0, 0)).unwrap());
        assert!(whole.compact().is_some() && short.compact().is_none());
        let pixels = (Stream::new(1, "pixels", 0, 0).uniforms(&[8, 42, 42, 4]) * 255.0).to_kind(Kind::Uint8);
        let (exact, rounded) = (whole.forward(&pixels).1, short.forward(&pixels).1);
        let difference = (&exact - &rounded).abs().max().double_value(&[]);
        let size = exact.abs().max().double_value(&[]);
        assert!(difference > 0.0 && difference < 0.03 * size, "{difference} of {size}");
        short.parameters.backward(&rounded.square().mean(Kind::Float)).unwrap();
        assert_eq!(
            (short.parameters.weights.kind(), short.parameters.gradient.kind()),
            (Kind::Float, Kind::Float)
        );
        let first = &short.parameters.layout[0];
        assert!(first.name.contains("convolution0"), "{}", first.name);
        assert!(slice::<f32>(&short.parameters.gradient)[..first.len()].iter().any(|&g| g != 0.0));
    }

    #[test]
    fn a_snapshot_carries_weights_and_statistics() {
        let spec = PolicySpec {
            normalise: true,
            ..spec(Space::floats(&[3], -1.0, 1.0), Space::floats(&[2], -1.0, 1.0), TorsoKind::Mlp, &[8])
        };
        let mut a = ActorCritic::new(spec.clone(), &mut Stream::new(0, "init", 0, 0)).unwrap();
        let mut b = ActorCritic::new(spec, &mut Stream::new(1, "init", 0, 0)).unwrap();
        let x = Stream::new(0, "x", 0, 0).normals(&[5, 3]);
        a.update_normaliser(&(&x * 3.0));
        let action = |policy: &ActorCritic| {
            let mut decision = Decision::default();
            policy.decide(&x, Choice::Mode, &mut decision);
            decision.action
        };
        assert_ne!(action(&a), action(&b));
        b.restore(&a.snapshot()).unwrap();
        assert_eq!(action(&a), action(&b));
        assert_eq!(a.value(&x), b.value(&x));
    }

    #[test]
    fn the_fast_path_decides_as_the_other_one() {
        let bounded = Space::floats(&[2], -1.0, 3.0);
        let vectors = || {
            let x = Stream::new(0, "x", 0, 0).normals(&[7, 4]);
            (Space::floats(&[4], -1.0, 1.0), TorsoKind::Mlp, &x * 2.0 + 1.0, x)
        };
        let images = || {
            let bytes = || (Stream::new(0, "x", 0, 0).uniforms(&[7, 22, 22, 2]) * 90.0).to_kind(Kind::Uint8);
            (image(22, 2), TorsoKind::Icm, bytes(), bytes())
        };
        for ((observation, torso, seen, x), action, box_head, value_heads) in [
            (vectors(), Space::discrete(3), BoxHead::Gaussian, 2),
            (images(), Space::discrete(3), BoxHead::Gaussian, 2),
            (vectors(), bounded.clone(), BoxHead::Gaussian, 2),
            (images(), bounded.clone(), BoxHead::Gaussian, 1),
            (vectors(), bounded.clone(), BoxHead::SquashedGaussian, 0),
            (vectors(), bounded, BoxHead::Deterministic { noise: 0.1 }, 1),
        ] {
            let spec = PolicySpec {
                value_heads,
                box_head,
                normalise: true,
                shared: torso == TorsoKind::Icm,
                log_std: -0.5,
                ..spec(observation, action, torso, &[16, 16])
            };
            let mut policy = ActorCritic::new(spec, &mut Stream::new(0, "init", 0, 0)).unwrap();
            policy.update_normaliser(&seen);
            let decide = |policy: &ActorCritic, sample: bool| {
                let mut decision = Decision::default();
                let mut noise = [Stream::new(3, "noise", 0, 0)];
                let choice = if sample { Choice::Sample(&mut noise) } else { Choice::Mode };
                policy.decide(&x, choice, &mut decision);
                decision
            };
            assert!(policy.compact.is_some());
            let fast = [false, true].map(|sample| decide(&policy, sample));
            policy.compact = None;
            let slow = [false, true].map(|sample| decide(&policy, sample));
            for (slow, fast) in slow.iter().zip(&fast) {
                let near = |a: &[f32], b: &[f32]| {
                    assert_eq!(a.len(), b.len());
                    assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} is not {b:?}");
                };
                near(&slow.log_prob, &fast.log_prob);
                near(&slow.value, &fast.value);
                match (&slow.action, &fast.action) {
                    (LeafBuf::F32(a), LeafBuf::F32(b)) => near(a, b),
                    (a, b) => assert_eq!(a, b),
                }
            }
        }
    }
}
