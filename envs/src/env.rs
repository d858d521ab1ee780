//! The two traits every environment meets: [`Env`], one of them, and [`VecEnv`], a group stepped together.

use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::space::{Leaf, LeafBuf, LeafMut, Space};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Which environment, with which arguments: everything that is needed to make it again elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Truncate episodes after this many steps, in place of the environment's own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend("x-default" = "the environment's own"))]
    pub time_limit: Option<u32>,
}

/// Arguments are the environment's own affair.
fn any_table(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

impl EnvSpec {
    /// The environment `id` with its own defaults.
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), args: toml::Table::new(), path: None, time_limit: None }
    }

    /// `preset` with the keys of `self`, where it has any, in place of the preset's; arguments one by one. The id is
    /// the preset's.
    pub(crate) fn over(self, preset: &EnvSpec) -> Self {
        let mut args = preset.args.clone();
        args.extend(self.args);
        Self {
            id: preset.id.clone(),
            args,
            path: self.path.or_else(|| preset.path.clone()),
            time_limit: self.time_limit.or(preset.time_limit),
        }
    }

    /// `ID`, or `ID?argument=value&…` as on a command line. Values are read as TOML; what is none is text.
    pub fn parse(text: &str) -> Result<Self> {
        let (id, arguments) = text.split_once('?').unwrap_or((text, ""));
        let mut spec = Self::new(id);
        for argument in arguments.split('&').filter(|argument| !argument.is_empty()) {
            let Some((name, value)) = argument.split_once('=') else {
                return Err(Error::BadArgument {
                    id: id.into(),
                    argument: argument.into(),
                    message: format!("expected {argument}=VALUE"),
                });
            };
            let value = value.parse().unwrap_or_else(|_| toml::Value::String(value.into()));
            spec.args.insert(name.into(), value);
        }
        Ok(spec)
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

    fn save(&self) -> Option<Vec<u8>> {
        (**self).save()
    }

    fn load(&mut self, state: &[u8]) -> Result<()> {
        (**self).load(state)
    }
}

/// Row `t` of a rollout of `N` environments, written in place.
pub struct Row<'a> {
    /// What the policy sees next: after an end already the new episode's first observation. `[N, …]`
    pub observation: LeafMut<'a>,
    /// `[N]`
    pub reward: &'a mut [f32],
    /// `[N]`
    pub terminated: &'a mut [bool],
    /// `[N]`
    pub truncated: &'a mut [bool],
    /// `false` marks a row that belongs to no episode (the reset row of an engine that resets on the next
    /// step). `[N]`
    pub valid: &'a mut [bool],
    /// The true final observation of every episode that ended in this row is pushed here.
    pub finals: &'a mut Finals,
}

/// True final observations of one rollout: which environment, which observation. Keeps its buffers between
/// rollouts.
#[derive(Debug, Default)]
pub struct Finals {
    slots: Vec<(usize, LeafBuf)>,
    len: usize,
}

impl Finals {
    /// Forgets the content, keeps the buffers.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// The ends so far: environment index, its final observation.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Leaf<'_>)> {
        self.slots[..self.len].iter().map(|(env, leaf)| (*env, leaf.leaf()))
    }

    /// Number of ends so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no episode has ended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A buffer for the final observation of environment `env`; allocates only the first time.
    pub fn push(&mut self, env: usize, space: &Space) -> LeafMut<'_> {
        if self.len == self.slots.len() {
            self.slots.push((env, LeafBuf::zeros(space, 1)));
        }
        let slot = &mut self.slots[self.len];
        self.len += 1;
        slot.0 = env;
        slot.1.leaf_mut()
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

/// Environments stepped one after another in a loop that the compiler sees through.
pub struct Each<E: Env> {
    envs: Vec<E>,
    episodes: Vec<u64>,
}

impl<E: Env> Each<E> {
    /// A group of at least one.
    ///
    /// # Panics
    /// If `envs` is empty: a group without environments has no spaces.
    pub fn new(envs: Vec<E>) -> Self {
        assert!(!envs.is_empty(), "a group needs at least one environment");
        let episodes = vec![0; envs.len()];
        Self { envs, episodes }
    }
}

impl<E: Env> VecEnv for Each<E> {
    fn len(&self) -> usize {
        self.envs.len()
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
        for (i, env) in self.envs.iter_mut().enumerate() {
            let (size, action_size) = (env.observation_space().len(), env.action_space().len());
            let mut observation = row.observation.part(i, size);
            let step = env.step(action.part(i, action_size), observation.part(0, size))?;
            row.reward[i] = step.reward as f32;
            row.terminated[i] = step.terminated;
            row.truncated[i] = step.truncated;
            row.valid[i] = true;
            if step.terminated || step.truncated {
                row.finals.push(i, env.observation_space()).copy_from(observation.leaf());
                self.episodes[i] += 1;
                env.reset(seeds(i, self.episodes[i]), observation)?;
            }
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
