//! Whole episodes: evaluation, demonstrations, random baselines. Never part of training: own environments, own
//! seeds, no statistics updated.

use super::group::forget;
use super::watchdog::{Pulse, Watch};
use crate::memory::Column;
use crate::nn::{ActorCritic, Choice, Decision};
use crate::random::Stream;
use crate::{Error, Result};
use imago_envs::{Fault, LeafBuf, LeafMut, Row, RowBuf, Space, VecEnv};
use std::sync::atomic::Ordering;
use tch::{Device, Kind, Tensor};

/// An evaluation must come back: episodes of more steps than this are taken for endless.
const LONGEST: usize = 1_000_000;

/// Failures of environments that an evaluation puts up with.
const FAULTS: usize = 10;

/// Who acts.
#[derive(Debug)]
pub enum Actor<'a> {
    /// A policy's most probable action, or a sample.
    Policy {
        /// The policy.
        policy: &'a ActorCritic,
        /// Most probable action, not a sample.
        deterministic: bool,
    },
    /// Uniform over the action space (standard normal where it has no bounds).
    Random,
}

/// One whole episode.
#[derive(Clone, Debug, Default)]
pub struct Episode {
    /// Seed of its reset.
    pub seed: u64,
    /// Sum of the environment's rewards, undiscounted.
    pub episode_return: f64,
    /// Steps.
    pub length: usize,
    /// Ended by the task and not by a limit.
    pub terminated: bool,
    /// Cut off by a limit; both where the task ends in the limit's step.
    pub truncated: bool,
    /// Where its player was before each step, in the environment's units, if it says so.
    pub path: Vec<[f64; 2]>,
    /// The environment's own numbers at its end that were asked for (`EnvSpec::metrics`); NaN where it gave none.
    pub metrics: Vec<f64>,
    /// What was seen, done and received, if it was recorded.
    pub record: Option<Record>,
}

/// The steps of an episode of length `L`.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// `[L + 1, …]`, the true final observation last.
    pub observations: LeafBuf,
    /// `[L, …]`, as executed: clipped to the action space.
    pub actions: LeafBuf,
    /// `[L]`
    pub rewards: Vec<f32>,
}

/// Clips the floats of actions in place to the bounds of their space; other actions need none.
pub(crate) fn clip_to_space(space: &Space, mut actions: LeafMut) {
    match space {
        Space::Box { low, high, .. } => {
            for row in actions.f32().chunks_exact_mut(low.len()) {
                for (action, (&low, &high)) in row.iter_mut().zip(low.iter().zip(high)) {
                    *action = action.clamp(low as f32, high as f32);
                }
            }
        }
        Space::Fields(fields) => {
            for record in actions.u8().chunks_exact_mut(space.len()) {
                let boxes = fields.iter().filter(|field| matches!(field.space, Space::Box { .. }));
                boxes.for_each(|field| clip_to_space(&field.space, field.write(record)));
            }
        }
        Space::Discrete { .. } | Space::MultiDiscrete { .. } | Space::MultiBinary { .. } => {}
    }
}

/// Whether [`clip_to_space`] has anything to do.
pub(crate) fn is_clipped(space: &Space) -> bool {
    match space {
        Space::Box { .. } => true,
        Space::Fields(fields) => fields.iter().any(|field| is_clipped(&field.space)),
        Space::Discrete { .. } | Space::MultiDiscrete { .. } | Space::MultiBinary { .. } => false,
    }
}

/// One of `0 .. n`, of those that `mask` allows: the front of it, which is taken off.
fn random_choice(n: usize, mask: &mut Option<&[bool]>, rng: &mut Stream) -> usize {
    let Some(rest) = mask else { return rng.below(n) };
    let (own, others) = rest.split_at(n);
    *rest = others;
    let allowed = || own.iter().enumerate().filter(|(_, allowed)| **allowed);
    let drawn = rng.below(allowed().count().max(1));
    allowed().nth(drawn).map_or(0, |(choice, _)| choice)
}

/// Uniform over `space`, or over what `mask` allows of it; standard normal in directions without bounds.
fn random_action(space: &Space, mask: &mut Option<&[bool]>, rng: &mut Stream, mut action: LeafMut) {
    match space {
        Space::Discrete { n, .. } => action.i64()[0] = random_choice(*n as usize, mask, rng) as i64,
        Space::MultiDiscrete { n, .. } => {
            for (action, &n) in action.i64().iter_mut().zip(n) {
                *action = random_choice(n as usize, mask, rng) as i64;
            }
        }
        Space::MultiBinary { .. } => {
            action.u8().iter_mut().for_each(|switch| *switch = random_choice(2, mask, rng) as u8);
        }
        Space::Box { low, high, .. } => {
            for (action, (&low, &high)) in action.f32().iter_mut().zip(low.iter().zip(high)) {
                *action = match (high - low).is_finite() {
                    true => (low + (high - low) * f64::from(rng.uniform())) as f32,
                    false => rng.normal().clamp(low as f32, high as f32),
                };
            }
        }
        Space::Fields(fields) => {
            let record = action.u8();
            fields.iter().for_each(|field| random_action(&field.space, mask, rng, field.write(record)));
        }
    }
}

/// One random action from each stream: uniform over `space`, or over what `mask` (choices of one action after those
/// of another) allows of it; standard normal in directions without bounds.
pub fn random_actions(space: &Space, mask: Option<&[bool]>, noise: &mut [Stream]) -> LeafBuf {
    let mut actions = LeafBuf::zeros(space, noise.len());
    let (size, choices) = (space.len(), space.choices());
    for (i, rng) in noise.iter_mut().enumerate() {
        let mut mask = mask.map(|mask| &mask[i * choices..(i + 1) * choices]);
        random_action(space, &mut mask, rng, actions.leaf_mut().part(i, size));
    }
    actions
}

/// As [`random_actions`], `n` of them from one stream after each other, into `to`.
pub(crate) fn fill_randomly(
    space: &Space,
    mask: Option<&[bool]>,
    rng: &mut Stream,
    mut to: LeafMut,
    n: usize,
) {
    let (size, choices) = (space.len(), space.choices());
    for i in 0..n {
        let mut mask = mask.map(|mask| &mask[i * choices..(i + 1) * choices]);
        random_action(space, &mut mask, rng, to.part(i, size));
    }
}

/// The elements of `space` in `buffer` as a tensor, `[B, …]`.
pub fn leaf_tensor(buffer: &LeafBuf, space: &Space) -> Tensor {
    let flat = match buffer {
        LeafBuf::F32(values) => Tensor::from_slice(values),
        LeafBuf::U8(values) => Tensor::from_slice(values),
        LeafBuf::I64(values) => Tensor::from_slice(values),
        LeafBuf::Records(_) => Tensor::from_slice(buffer.leaf().u8()),
    };
    let shape: Vec<i64> = std::iter::once(-1).chain(space.shape().iter().map(|&d| d as i64)).collect();
    flat.view(&shape[..])
}

/// Runs `count` episodes in `envs`, the environment and the action noise of the `i`-th seeded by `(seed, purpose,
/// i)` alone, so that the same episodes come out for any number of environments and short ones are not
/// over-represented. In order of `i`.
///
/// # Errors
/// Whatever the environment reports; an episode that does not end.
pub fn run_episodes(
    envs: &mut dyn VecEnv,
    actor: &Actor,
    count: usize,
    seed: u64,
    purpose: &str,
    record: bool,
) -> Result<Vec<Episode>> {
    let n = envs.len();
    let (space, action_space) = (envs.observation_space().clone(), envs.action_space().clone());
    let seeds = |env: usize, episode: u64| Stream::seed(seed, purpose, episode * n as u64 + env as u64, 0);
    let mut row = RowBuf::new(envs);
    let pulse = Pulse::new(Column::zeros(&[2]), Column::zeros(&[n as i64]), 0);
    let _watch = Watch::over(&pulse);
    let seeds = |env: usize, episode: u64| {
        let seed = seeds(env, episode);
        pulse.seeds.atomic(env).store(seed as i64, Ordering::Relaxed);
        seed
    };
    pulse.at.atomic(0).store(0, Ordering::Relaxed);
    envs.reset(&seeds, row.observation.leaf_mut())?;
    let mut mask = vec![true; n * action_space.choices()];
    let masked = envs.action_mask(&mut mask)?;
    let noise_of = |env: usize, round: u64| Stream::new(seed, purpose, round * n as u64 + env as u64, 1);
    let mut noise: Vec<Stream> = (0..n).map(|env| noise_of(env, 0)).collect();
    let begin = |env: usize, round: u64| Episode {
        seed: seeds(env, round),
        record: record.then(|| Record {
            observations: LeafBuf::zeros(&space, 0),
            actions: LeafBuf::zeros(&action_space, 0),
            rewards: Vec::new(),
        }),
        ..Default::default()
    };
    let mut current: Vec<Episode> = (0..n).map(|env| begin(env, 0)).collect();
    let mut round = vec![0u64; n];
    let mut done: Vec<Option<Episode>> = vec![None; count];
    let mut missing = count;
    let (mut broken, mut faults) = (Vec::new(), 0);
    let mut decision = Decision::default();
    let mut memory = match actor {
        Actor::Policy { policy, .. } => policy.no_memory(n as i64),
        Actor::Random => Tensor::zeros([n as i64, 0], (Kind::Float, Device::Cpu)),
    };
    while missing > 0 {
        let mut action = match actor {
            Actor::Random => random_actions(&action_space, masked.then_some(&mask[..]), &mut noise),
            Actor::Policy { policy, deterministic } => {
                let seen = leaf_tensor(&row.observation, &space);
                let allowed = masked.then(|| Tensor::from_slice(&mask).view([n as i64, -1]));
                let choice = if *deterministic { Choice::Mode } else { Choice::Sample(&mut noise) };
                policy.decide_masked(&seen, allowed.as_ref(), &mut memory, choice, &mut decision);
                decision.action.clone()
            }
        };
        clip_to_space(&action_space, action.leaf_mut());
        for (env, episode) in current.iter_mut().enumerate() {
            episode.path.extend(envs.position(env));
            if let Some(record) = &mut episode.record {
                record.observations.extend(row.observation.leaf().part(env, space.len()));
                record.actions.extend(action.leaf().part(env, action_space.len()));
            }
        }
        pulse.at.atomic(0).fetch_add(1, Ordering::Relaxed);
        envs.step(action.leaf(), &seeds, &mut Row { stepping: pulse.at.atomic(1), ..row.row() })?;
        if envs.action_mask(&mut mask)? != masked {
            return Err(Error::Invalid(
                "an environment had an action mask at first and then not, or the other way round".into(),
            ));
        }
        for (env, episode) in current.iter_mut().enumerate() {
            if row.valid[env] {
                episode.episode_return += f64::from(row.reward[env]);
                episode.length += 1;
                if episode.length >= LONGEST {
                    return Err(Error::Invalid(format!(
                        "an episode did not end within {LONGEST} steps; give the environment a limit with \
                         env.time_limit"
                    )));
                }
                if let Some(record) = &mut episode.record {
                    record.rewards.push(row.reward[env]);
                }
            }
        }
        let mut begun: Vec<bool> = row.valid.iter().map(|valid| !valid).collect();
        // The step of an engine that only then begins the next episode is none of it.
        for (env, _) in begun.iter().enumerate().filter(|(_, begun)| **begun) {
            current[env] = begin(env, round[env]);
        }
        for (end, (env, last)) in row.finals.iter().enumerate() {
            begun[env] = true;
            round[env] += 1;
            noise[env] = noise_of(env, round[env]);
            let mut episode = std::mem::replace(&mut current[env], begin(env, round[env]));
            (episode.terminated, episode.truncated) = (row.terminated[env], row.truncated[env]);
            episode.metrics.extend(row.finals.metrics(end));
            if let Some(record) = &mut episode.record {
                record.observations.extend(last);
            }
            let index = (round[env] as usize - 1) * n + env;
            let place = if index < count { Some(index) } else { broken.pop() };
            if let Some(place) = place {
                done[place] = Some(episode);
                missing -= 1;
            }
        }
        // An episode that an environment's failure broke, or that failed to begin, is replaced by the next one that is
        // not asked for yet.
        for Fault { env, seed, error } in row.faults.drain(..) {
            faults += 1;
            if faults > FAULTS {
                return Err(error.into());
            }
            tracing::warn!(
                "environment {env} (episode of seed {seed}): {error}; another episode takes its place"
            );
            begun[env] = true;
            let index = round[env] as usize * n + env;
            if index < count {
                broken.push(index);
            }
            round[env] += 1;
            noise[env] = noise_of(env, round[env]);
            current[env] = begin(env, round[env]);
        }
        forget(&mut memory, &begun);
    }
    Ok(done.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn random_actions_keep_to_their_masks_and_use_all_of_them() {
        let space = Space::fields([
            ("a", Space::multi_discrete(&[2, 3])),
            ("b", Space::discrete(4)),
            ("c", Space::multi_binary(&[2])),
            ("d", Space::floats(&[1], -2.0, 2.0)),
        ])
        .unwrap();
        let mask = [false, true, true, false, true, true, true, false, true, true, false, true, true];
        let mut seen = std::collections::BTreeSet::new();
        for step in 0..500 {
            let drawn = random_actions(&space, Some(&mask), &mut [Stream::new(0, "random", 0, step)]);
            let field = |name| drawn.leaf().field(&space, name);
            let (a, b, c) = (field("a").i64(), field("b").i64()[0], field("c").u8());
            assert!(a[0] == 1 && a[1] != 1 && b != 2 && c[0] == 0 && field("d").f32()[0].abs() <= 2.0);
            seen.insert((a[1], b, c[1]));
        }
        assert_eq!(seen.len(), 2 * 3 * 2);
    }

    #[test]
    fn floats_within_records_are_clipped() {
        let space =
            Space::fields([("a", Space::discrete(9)), ("b", Space::floats(&[2], -1.0, 2.0))]).unwrap();
        let mut actions = LeafBuf::zeros(&space, 2);
        let mut leaf = actions.leaf_mut();
        let mut second = leaf.part(1, space.len());
        second.field(&space, "b").f32().copy_from_slice(&[-7.0, 7.0]);
        second.field(&space, "a").i64()[0] = 8;
        clip_to_space(&space, actions.leaf_mut());
        let second = actions.leaf().part(1, space.len());
        assert_eq!(second.field(&space, "b").f32(), [-1.0, 2.0]);
        assert_eq!(second.field(&space, "a").i64(), [8]);
        assert!(is_clipped(&space) && !is_clipped(&Space::multi_binary(&[3])));
    }
}
