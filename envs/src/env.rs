//! The two traits every environment meets: [`Env`], one of them, and [`VecEnv`], a group stepped together.

use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::row::{Fault, Row};
use crate::space::{Leaf, LeafMut, Space};
use crate::wrappers::ResizeMethod;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// Which environment, with which arguments and in which wrappers: everything that is needed to make it again
/// elsewhere.
///
/// Wrappers are applied in one order, from the inside to the outside, whatever the order in a recipe:
/// `observation`, `actions`, `noop_max`, `sticky_actions`, `action_repeat` with `repeat_max`, `life_as_episode`,
/// pictures (`crop`, then `grayscale`, then `resize`), `frame_stack`, `time_limit`. It is the one in which the
/// originals' results were made (Stable-Baselines3's `AtariWrapper`, Gymnasium's `AtariPreprocessing`, Machado et al.
/// 2018, Pathak et al. 2017): no-ops at the start and sticky actions count single frames of the game, so they lie
/// inside the repetition; a life may end at any decision, so it lies outside of it; only what a decision ends with
/// is made smaller; and the stack holds one picture of each decision.
///
/// `time_limit` is outermost and counts decisions. Without it the environment's own limit stays where it was made,
/// innermost, and counts the environment's own steps: frames, if `action_repeat` is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(
    description = "Which environment, with which arguments and in which wrappers: everything that is needed to \
                          make it again elsewhere. Wrappers are applied in the order of these keys, from the inside \
                          to the outside; the time limit is outermost and counts decisions."
)]
#[serde(deny_unknown_fields)]
pub struct EnvSpec {
    /// A name of `imago envs` (`CartPole-v1`), `gym:ID` for any registered Gymnasium environment, `vec:ID` for one that
    /// steps many at once by itself.
    pub id: String,
    /// Arguments of its constructor.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    #[schemars(schema_with = "any_table", extend("x-default" = "none"))]
    pub args: toml::Table,
    /// A directory with Python modules that `gym:MODULE:ID` may name, and with files that `Doom` may; relative to the
    /// recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "none"))]
    pub path: Option<String>,
    /// Truncate episodes after this many decisions, in place of the environment's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-default" = "the environment's own"))]
    pub time_limit: Option<u32>,
    /// Numbers of the environment's info (`x_pos`, `lives`) that are logged at the end of each episode, as `env/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-default" = "none"))]
    pub metrics: Vec<String>,
    /// An observation outside the environment's own space is a failure of it, as a NaN is. Python environments only.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    #[schemars(extend("x-default" = "true"))]
    pub check_bounds: bool,
    /// Show only this field of Dict and Tuple observations, named as `imago envs check` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "all of them"))]
    pub observation: Option<String>,
    /// Choose among these actions alone, each a number or a list of numbers as the environment itself takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "some_actions", extend("x-default" = "all of them"))]
    pub actions: Option<Vec<toml::Value>>,
    /// Begin each episode with 1 to this many steps of action 0, a number drawn from the episode's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-default" = "none"))]
    pub noop_max: Option<u32>,
    /// Probability with which each frame repeats the action of the frame before (Machado et al. 2018: 0.25).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1), extend("x-default" = "off"))]
    pub sticky_actions: Option<f64>,
    /// Hold each action for this many frames of the game; rewards are summed, an end ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-default" = "1"))]
    pub action_repeat: Option<u32>,
    /// With `action_repeat`: show the brighter of the last two frames, byte by byte, since old consoles draw some
    /// things only in every other one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("x-default" = "false"))]
    pub repeat_max: bool,
    /// A lost life ends the learner's episode; the next one goes on in the same game until that is over. Reads
    /// `lives`, or else `life`, of the environment's info.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("x-default" = "false"))]
    pub life_as_episode: bool,
    /// Cut this many pixels off the picture: [top, bottom, left, right].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "none"))]
    pub crop: Option<[u32; 4]>,
    /// Make the picture grey: 0.299 red + 0.587 green + 0.114 blue.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("x-default" = "false"))]
    pub grayscale: bool,
    /// Make the picture this large: [height, width].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(inner(range(min = 1)), extend("x-default" = "as it is"))]
    pub resize: Option<[u32; 2]>,
    /// How `resize` does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "\"area\""))]
    pub resize_method: Option<ResizeMethod>,
    /// Show the last observations together, this many, oldest first; before an episode's first one there are zeros.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64), extend("x-default" = "1"))]
    pub frame_stack: Option<u32>,
}

fn yes() -> bool {
    true
}

fn is_yes(x: &bool) -> bool {
    *x
}

/// Arguments are the environment's own affair.
fn any_table(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

fn some_actions(_: &mut SchemaGenerator) -> Schema {
    let numbers = json_schema!({ "type": "array", "items": { "type": "number" } });
    json_schema!({ "type": "array", "items": { "anyOf": [{ "type": "number" }, numbers] } })
}

impl EnvSpec {
    /// Every key but `id` and `args`.
    const KEYS: [&str; 16] = [
        "path",
        "time_limit",
        "metrics",
        "check_bounds",
        "observation",
        "actions",
        "noop_max",
        "sticky_actions",
        "action_repeat",
        "repeat_max",
        "life_as_episode",
        "crop",
        "grayscale",
        "resize",
        "resize_method",
        "frame_stack",
    ];

    /// The environment `id` with its own defaults.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            args: toml::Table::new(),
            path: None,
            time_limit: None,
            metrics: Vec::new(),
            check_bounds: true,
            observation: None,
            actions: None,
            noop_max: None,
            sticky_actions: None,
            action_repeat: None,
            repeat_max: false,
            life_as_episode: false,
            crop: None,
            grayscale: false,
            resize: None,
            resize_method: None,
            frame_stack: None,
        }
    }

    /// `preset` with the keys of `self`, where it has any, in place of the preset's; arguments one by one. The id is
    /// the preset's.
    pub(crate) fn over(self, preset: &EnvSpec) -> Self {
        let mut args = preset.args.clone();
        args.extend(self.args);
        let preset = preset.clone();
        Self {
            id: preset.id,
            args,
            path: self.path.or(preset.path),
            time_limit: self.time_limit.or(preset.time_limit),
            metrics: if self.metrics.is_empty() { preset.metrics } else { self.metrics },
            check_bounds: self.check_bounds && preset.check_bounds,
            observation: self.observation.or(preset.observation),
            actions: self.actions.or(preset.actions),
            noop_max: self.noop_max.or(preset.noop_max),
            sticky_actions: self.sticky_actions.or(preset.sticky_actions),
            action_repeat: self.action_repeat.or(preset.action_repeat),
            repeat_max: self.repeat_max || preset.repeat_max,
            life_as_episode: self.life_as_episode || preset.life_as_episode,
            crop: self.crop.or(preset.crop),
            grayscale: self.grayscale || preset.grayscale,
            resize: self.resize.or(preset.resize),
            resize_method: self.resize_method.or(preset.resize_method),
            frame_stack: self.frame_stack.or(preset.frame_stack),
        }
    }

    /// `ID`, or `ID?argument=value&…` as on a command line. Values are read as TOML; what is none is text. A key of
    /// `[env]` (`grayscale=true`, `resize=[42,42]`) is that key; everything else is an argument of the constructor,
    /// and so is a key's namesake written `args.crop=…`.
    pub fn parse(text: &str) -> Result<Self> {
        let (id, arguments) = text.split_once('?').unwrap_or((text, ""));
        let refuse = |argument: &str, message: String| Error::BadArgument {
            id: id.into(),
            argument: argument.into(),
            message,
        };
        let mut keys = toml::Table::from_iter([("id".to_string(), toml::Value::String(id.into()))]);
        let mut args = toml::Table::new();
        for argument in arguments.split('&').filter(|argument| !argument.is_empty()) {
            let Some((name, value)) = argument.split_once('=') else {
                return Err(refuse(argument, format!("expected {argument}=VALUE")));
            };
            let value = value.parse().unwrap_or_else(|_| toml::Value::String(value.into()));
            if Self::KEYS.contains(&name) {
                keys.insert(name.into(), value);
                // One at a time, so that the error knows which.
                Self::deserialize(keys.clone()).map_err(|error| refuse(name, error.message().into()))?;
            } else {
                args.insert(name.strip_prefix("args.").unwrap_or(name).into(), value);
            }
        }
        let spec = Self::deserialize(keys).map_err(|error| refuse("id", error.message().into()))?;
        Ok(Self { args, ..spec })
    }

    /// Whether any wrapper but the time limit is asked for.
    pub(crate) fn is_wrapped(&self) -> bool {
        let Self { args, path, time_limit, metrics, check_bounds, .. } = self.clone();
        let plain = Self { args, path, time_limit, metrics, check_bounds, ..Self::new(&self.id) };
        *self != plain
    }
}

/// What one step gave, apart from the observation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step {
    /// Reward of this step.
    pub reward: f64,
    /// The task itself ended: success or failure. The value of what follows is 0.
    pub terminated: bool,
    /// The episode was cut off (a time limit): what follows would have had value.
    pub truncated: bool,
}

/// One environment. Knows nothing of tensors or of learning.
///
/// An episode is a function of its seed and the actions: `reset` seeds everything random about it. That is
/// what makes runs repeatable with any number of workers and resumable without storing generators.
pub trait Env: Send {
    /// What errors call this environment. The type's name unless overridden.
    fn id(&self) -> &str {
        std::any::type_name::<Self>()
    }
    /// The observation space.
    fn observation_space(&self) -> &Space;
    /// The action space.
    fn action_space(&self) -> &Space;
    /// Starts an episode and writes its first observation.
    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()>;
    /// Takes `action`, writes the observation that follows. After an end the caller resets.
    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step>;
    /// Which actions are allowed at this moment: [`Space::choices`] entries in the order of the action space, of
    /// several choices one after another, of a switch off before on. Returns whether there is a mask; an
    /// environment has one at every moment between a reset and an end, or never.
    fn action_mask(&self, _mask: &mut [bool]) -> bool {
        false
    }
    /// A picture of this moment for people, or `None` where the environment has none. Changes nothing that an
    /// episode depends on.
    ///
    /// # Errors
    /// A picture that should be there and cannot be drawn.
    fn render(&mut self) -> Result<Option<Frame>> {
        Ok(None)
    }
    /// A number that the environment says beside the observation after the last reset or step: the entry `name`
    /// of Gymnasium's `info` (`x_pos`, `lives` …), `true` being 1. `None` where it says no such thing, or says it
    /// in words.
    fn info(&self, _name: &str) -> Option<f64> {
        None
    }
    /// Of how many frames an observation is a stack, joined along its first dimension, oldest first: all but the
    /// newest are those of the observation before, and zero where the episode has none. 1 where it is none, or
    /// something else. Rollouts then store each frame once.
    fn frame_stack(&self) -> usize {
        1
    }
    /// Everything that distinguishes this moment, or `None` where the environment cannot say: a resumed run
    /// then starts a new episode there.
    fn save(&self) -> Option<Vec<u8>> {
        None
    }
    /// Returns to a saved moment.
    fn load(&mut self, _state: &[u8]) -> Result<()> {
        Err(Error::CannotRestore { id: self.id().into(), message: "it does not implement `load`".into() })
    }
}

impl<E: Env + ?Sized> Env for Box<E> {
    fn id(&self) -> &str {
        (**self).id()
    }

    fn observation_space(&self) -> &Space {
        (**self).observation_space()
    }

    fn action_space(&self) -> &Space {
        (**self).action_space()
    }

    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        (**self).reset(seed, observation)
    }

    fn step(&mut self, action: Leaf, observation: LeafMut) -> Result<Step> {
        (**self).step(action, observation)
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        (**self).action_mask(mask)
    }

    fn render(&mut self) -> Result<Option<Frame>> {
        (**self).render()
    }

    fn info(&self, name: &str) -> Option<f64> {
        (**self).info(name)
    }

    fn frame_stack(&self) -> usize {
        (**self).frame_stack()
    }

    fn save(&self) -> Option<Vec<u8>> {
        (**self).save()
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        (**self).load(state)
    }
}

/// A fixed group of environments of the same kind, stepped together.
///
/// Ends are reset within the step: the row holds the next episode's first observation, `finals` the true last
/// one. `seeds` decides the episode that follows.
pub trait VecEnv: Send {
    /// Number of environments.
    fn len(&self) -> usize;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Observation space of one environment.
    fn observation_space(&self) -> &Space;
    /// Action space of one environment.
    fn action_space(&self) -> &Space;
    /// Starts every environment; `seeds(env, episode)` is the seed of an episode. Writes the observations.
    fn reset(&mut self, seeds: &dyn Fn(usize, u64) -> u64, observation: LeafMut) -> Result<()>;
    /// One step of each. `action` holds the group's actions in a row.
    fn step(&mut self, action: Leaf, seeds: &dyn Fn(usize, u64) -> u64, row: &mut Row) -> Result<()>;
    /// Which actions each environment allows in the state that it is in, `[N, choices]` (see
    /// [`Env::action_mask`]); to be asked after each reset, step and load. Returns whether there are masks.
    ///
    /// # Errors
    /// A mask that allows nothing; environments of which some have masks and some not.
    fn action_mask(&self, _mask: &mut [bool]) -> Result<bool> {
        Ok(false)
    }
    /// See [`Env::frame_stack`]; the same for each.
    fn frame_stack(&self) -> usize {
        1
    }
    /// Where the player of an environment is now: `x` and `y` of its info, in its own units, if it says so.
    fn position(&self, _env: usize) -> Option<[f64; 2]> {
        None
    }
    /// State of every environment, `None` for those that cannot save, and each one's episode number.
    fn save(&self) -> Vec<(u64, Option<Vec<u8>>)>;
    /// Returns to a saved state. Environments that could not save start a new episode; their indices are
    /// returned. `observation` receives the first observations of those alone. Refuses another number of
    /// environments than it has.
    fn load(
        &mut self,
        state: &[(u64, Option<Vec<u8>>)],
        seeds: &dyn Fn(usize, u64) -> u64,
        observation: LeafMut,
    ) -> Result<Vec<usize>>;
}

/// How often in a row an environment may fail to begin anew before that is an error of the whole group.
const RENEWALS: usize = 3;

/// How to make one more environment.
type Make<E> = Box<dyn Fn() -> Result<E> + Send>;

/// Environments stepped one after another in a loop that the compiler sees through.
pub struct Each<E: Env> {
    envs: Vec<E>,
    episodes: Vec<u64>,
    /// Makes what takes the place of an environment that failed.
    make: Option<Make<E>>,
    /// What of the environments' info goes with the end of an episode.
    metrics: Vec<String>,
}

impl<E: Env> Each<E> {
    /// A group of at least one.
    ///
    /// # Panics
    /// If `envs` is empty: a group without environments has no spaces.
    pub fn new(envs: Vec<E>) -> Self {
        assert!(!envs.is_empty(), "a group needs at least one environment");
        let episodes = vec![0; envs.len()];
        Self { envs, episodes, make: None, metrics: Vec::new() }
    }

    /// A group of `count` environments that `make` makes. One that fails is replaced by another that it makes;
    /// where one of [`Each::new`] fails, nothing can take its place, and the step fails.
    ///
    /// # Errors
    /// Those of `make`.
    ///
    /// # Panics
    /// As [`Each::new`].
    pub fn made_by(count: usize, make: impl Fn() -> Result<E> + Send + 'static) -> Result<Self> {
        let envs = (0..count).map(|_| make()).collect::<Result<_>>()?;
        Ok(Self { make: Some(Box::new(make)), ..Self::new(envs) })
    }

    /// With these numbers of the environments' info beside every final observation.
    pub fn with_metrics(mut self, names: &[String]) -> Self {
        self.metrics = names.to_vec();
        self
    }

    /// One step of each environment from `first` on, up to one that fails, if one does: which, and with what. Apart
    /// from [`Each::renew`], so that nothing that seldom happens is in the loop's way.
    fn step_from(
        &mut self,
        first: usize,
        action: Leaf,
        seeds: &dyn Fn(usize, u64) -> u64,
        row: &mut Row,
    ) -> std::result::Result<(), (usize, Error)> {
        let (size, action_size) = (self.observation_space().len(), self.action_space().len());
        for (i, (env, episode)) in self.envs.iter_mut().zip(&mut self.episodes).enumerate().skip(first) {
            row.stepping.store(i as i64, Ordering::Relaxed);
            let mut observation = row.observation.part(i, size);
            let step = match env.step(action.part(i, action_size), observation.part(0, size)) {
                Ok(step) => step,
                Err(error) => {
                    (row.reward[i], row.terminated[i], row.truncated[i], row.valid[i]) =
                        (0.0, false, false, false);
                    return Err((i, error));
                }
            };
            row.reward[i] = step.reward as f32;
            row.terminated[i] = step.terminated;
            row.truncated[i] = step.truncated;
            row.valid[i] = true;
            if step.terminated || step.truncated {
                row.finals.push(i, env.observation_space()).copy_from(observation.leaf());
                row.finals.describe(self.metrics.iter().map(|name| env.info(name).unwrap_or(f64::NAN)));
                *episode += 1;
                env.reset(seeds(i, *episode), observation).map_err(|error| (i, error))?;
            }
        }
        Ok(())
    }

    /// Begins the next episode of the environment that failed, with another environment. What fails at that begins
    /// one more episode, a few times.
    #[cold]
    fn renew(&mut self, fault: Fault, seeds: &dyn Fn(usize, u64) -> u64, row: &mut Row) -> Result<()> {
        let Some(make) = &self.make else { return Err(fault.error) };
        let env = fault.env;
        row.faults.push(fault);
        for attempt in 1.. {
            self.episodes[env] += 1;
            let seed = seeds(env, self.episodes[env]);
            let mut begin = || {
                self.envs[env] = make()?;
                let size = self.envs[env].observation_space().len();
                self.envs[env].reset(seed, row.observation.part(env, size))
            };
            match begin() {
                Ok(()) => break,
                Err(error) if attempt == RENEWALS => return Err(error),
                Err(error) => row.faults.push(Fault { env, seed, error }),
            }
        }
        Ok(())
    }
}

impl<E: Env> VecEnv for Each<E> {
    fn len(&self) -> usize {
        self.envs.len()
    }

    fn position(&self, env: usize) -> Option<[f64; 2]> {
        Some([self.envs[env].info("x")?, self.envs[env].info("y")?])
    }

    fn observation_space(&self) -> &Space {
        self.envs[0].observation_space()
    }

    fn action_space(&self) -> &Space {
        self.envs[0].action_space()
    }

    fn reset(&mut self, seeds: &dyn Fn(usize, u64) -> u64, mut observation: LeafMut) -> Result<()> {
        for (i, env) in self.envs.iter_mut().enumerate() {
            let size = env.observation_space().len();
            self.episodes[i] = 0;
            env.reset(seeds(i, 0), observation.part(i, size))?;
        }
        Ok(())
    }

    fn step(&mut self, action: Leaf, seeds: &dyn Fn(usize, u64) -> u64, row: &mut Row) -> Result<()> {
        let mut first = 0;
        while let Err((env, error)) = self.step_from(first, action, seeds, row) {
            let fault = Fault { env, seed: seeds(env, self.episodes[env]), error };
            self.renew(fault, seeds, row)?;
            first = env + 1;
        }
        Ok(())
    }

    fn action_mask(&self, mask: &mut [bool]) -> Result<bool> {
        let choices = self.action_space().choices();
        if choices == 0 {
            return Ok(false);
        }
        let mut masked = 0;
        for (env, mask) in self.envs.iter().zip(mask.chunks_exact_mut(choices)) {
            if env.action_mask(mask) {
                masked += 1;
                if !env.action_space().allows_an_action(mask) {
                    return Err(Error::Contract {
                        id: env.id().into(),
                        message: "its action mask allows no action".into(),
                    });
                }
            }
        }
        if masked != 0 && masked != self.envs.len() {
            return Err(Error::Contract {
                id: self.envs[0].id().into(),
                message: format!("{masked} of {} environments have an action mask", self.envs.len()),
            });
        }
        Ok(masked != 0)
    }

    fn frame_stack(&self) -> usize {
        self.envs[0].frame_stack()
    }

    fn save(&self) -> Vec<(u64, Option<Vec<u8>>)> {
        self.envs.iter().zip(&self.episodes).map(|(env, &episode)| (episode, env.save())).collect()
    }

    fn load(
        &mut self,
        state: &[(u64, Option<Vec<u8>>)],
        seeds: &dyn Fn(usize, u64) -> u64,
        mut observation: LeafMut,
    ) -> Result<Vec<usize>> {
        if state.len() != self.envs.len() {
            return Err(Error::CannotRestore {
                id: self.envs[0].id().into(),
                message: format!(
                    "the saved group has {} environments, this one {}",
                    state.len(),
                    self.envs.len()
                ),
            });
        }
        let mut restarted = Vec::new();
        for (i, (episode, saved)) in state.iter().enumerate() {
            self.episodes[i] = *episode;
            match saved {
                Some(saved) => self.envs[i].load(saved)?,
                None => {
                    self.episodes[i] += 1;
                    let size = self.envs[i].observation_space().len();
                    let seed = seeds(i, self.episodes[i]);
                    self.envs[i].reset(seed, observation.part(i, size))?;
                    restarted.push(i);
                }
            }
        }
        Ok(restarted)
    }
}
