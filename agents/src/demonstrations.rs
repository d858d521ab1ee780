//! Demonstrations: whole episodes of an expert, or every k-th pair of them, with where they came from.

use crate::mean_std;
use imago::memory::{field_of, kind_of, slice};
use imago::rollout::{Episode, first_row_outside, leaf_tensor};
use imago::run::tensor_file;
use imago::{Error, Result, Stream};
use imago_envs::{Dtype, EnvSpec, Space};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// Layout of the file; raised when it changes.
const FORMAT: u32 = 1;

/// What is known of one episode, whichever of its pairs were kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DemoEpisode {
    /// Seed of its reset.
    pub seed: u64,
    /// Sum of the environment's rewards over the whole episode.
    pub episode_return: f64,
    /// Steps of the whole episode.
    pub length: usize,
    /// Ended by the task.
    pub terminated: bool,
    /// Cut off by a limit.
    pub truncated: bool,
    /// Pairs kept of it.
    pub pairs: usize,
}

/// Which episodes and pairs of a file to use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DemoSelection {
    /// Leave out this many episodes first.
    pub skip: usize,
    /// Then take this many; all if absent.
    pub episodes: Option<usize>,
    /// Of each, every `stride`-th pair.
    pub stride: usize,
    /// Of those, the ones from this step of the episode on.
    pub from_step: i64,
}

impl Default for DemoSelection {
    fn default() -> Self {
        Self { skip: 0, episodes: None, stride: 1, from_step: 0 }
    }
}

/// (observation, action) pairs of an expert, episode after episode.
#[derive(Debug)]
pub struct Demonstrations {
    /// Where they were recorded.
    pub env: EnvSpec,
    /// Its observation space.
    pub observation_space: Space,
    /// Its action space.
    pub action_space: Space,
    /// The episodes, E of them.
    pub episodes: Vec<DemoEpisode>,
    /// Every how many steps a pair was kept.
    pub stride: usize,
    /// What was seen before each action, `[P, …]`.
    pub observations: Tensor,
    /// What was done, as executed, `[P]` int64 or `[P, A]` float32.
    pub actions: Tensor,
    /// What was received for it, float32 `[P]`.
    pub rewards: Tensor,
    /// Index of each pair within its episode, int64 `[P]`.
    pub steps: Tensor,
    /// The true final observation of each episode, `[E, …]`.
    pub final_observations: Tensor,
}

/// The metadata of the file.
#[derive(Serialize, Deserialize)]
struct Header {
    demonstrations: u32,
    env: EnvSpec,
    observation_space: Space,
    action_space: Space,
    stride: usize,
    episodes: Vec<DemoEpisode>,
}

impl Demonstrations {
    /// From recorded episodes.
    ///
    /// # Errors
    /// Episodes without a record.
    pub fn from_episodes(
        env: EnvSpec,
        observation: &Space,
        action: &Space,
        recorded: &[Episode],
    ) -> Result<Self> {
        let (mut observations, mut actions, mut rewards) = (Vec::new(), Vec::new(), Vec::new());
        let (mut steps, mut finals, mut episodes) = (Vec::new(), Vec::new(), Vec::new());
        for episode in recorded {
            let record = episode
                .record
                .as_ref()
                .ok_or_else(|| Error::Invalid("an episode was run without being recorded".into()))?;
            let seen = leaf_tensor(&record.observations, observation);
            let length = episode.length as i64;
            observations.push(seen.narrow(0, 0, length));
            finals.push(seen.narrow(0, length, 1));
            actions.push(leaf_tensor(&record.actions, action));
            rewards.push(Tensor::from_slice(&record.rewards));
            steps.push(Tensor::arange(length, (Kind::Int64, tch::Device::Cpu)));
            episodes.push(DemoEpisode {
                seed: episode.seed,
                episode_return: episode.episode_return,
                length: episode.length,
                terminated: episode.terminated,
                truncated: episode.truncated,
                pairs: episode.length,
            });
        }
        if recorded.is_empty() {
            return Err(Error::Invalid("no episode was recorded".into()));
        }
        Ok(Self {
            env,
            observation_space: observation.clone(),
            action_space: action.clone(),
            episodes,
            stride: 1,
            observations: Tensor::cat(&observations, 0),
            actions: Tensor::cat(&actions, 0),
            rewards: Tensor::cat(&rewards, 0),
            steps: Tensor::cat(&steps, 0),
            final_observations: Tensor::cat(&finals, 0),
        })
    }

    /// One made-up episode of the given pairs, `[P, …]` and `[P]` or `[P, A]`: for tests and small experiments.
    pub fn from_pairs(observation: Space, action: Space, observations: Tensor, actions: Tensor) -> Self {
        let count = observations.size()[0];
        Self {
            env: EnvSpec::new("unknown"),
            observation_space: observation,
            action_space: action,
            episodes: vec![DemoEpisode {
                seed: 0,
                episode_return: 0.0,
                length: count as usize,
                terminated: false,
                truncated: true,
                pairs: count as usize,
            }],
            stride: 1,
            final_observations: observations.narrow(0, count - 1, 1),
            observations,
            actions,
            rewards: Tensor::zeros([count], (Kind::Float, tch::Device::Cpu)),
            steps: Tensor::arange(count, (Kind::Int64, tch::Device::Cpu)),
        }
    }

    /// Number of pairs, P.
    pub fn pairs(&self) -> usize {
        self.observations.size()[0] as usize
    }

    /// What was seen before and after a step, `[K, …]` each, of all K steps of which both are here: the next pair of the
    /// same episode, or its final observation.
    ///
    /// # Errors
    /// No such step: pairs were left out.
    pub fn transitions(&self) -> Result<(Tensor, Tensor)> {
        let steps = slice::<i64>(&self.steps);
        let (mut from, mut to, mut first) = (Vec::new(), Vec::new(), 0);
        for (i, episode) in self.episodes.iter().enumerate() {
            for pair in first..first + episode.pairs {
                let next = pair + 1;
                let follows = match next < first + episode.pairs {
                    true => (steps[next] == steps[pair] + 1).then_some(next),
                    false => (steps[pair] + 1 == episode.length as i64).then_some(self.pairs() + i),
                };
                if let Some(next) = follows {
                    from.push(pair as i64);
                    to.push(next as i64);
                }
            }
            first += episode.pairs;
        }
        if from.is_empty() {
            return Err(Error::Invalid(format!(
                "of the demonstrations every {}th pair is here, and what came next of none: imitating transitions needs \
                 every pair (demos_stride = 1)",
                self.stride
            )));
        }
        let all = Tensor::cat(&[&self.observations, &self.final_observations], 0);
        let pick = |index: &[i64]| all.index_select(0, &Tensor::from_slice(index));
        Ok((pick(&from), pick(&to)))
    }

    /// Mean and population standard deviation of the episodes' returns.
    pub fn return_mean_std(&self) -> (f64, f64) {
        mean_std(&self.episodes.iter().map(|episode| episode.episode_return).collect::<Vec<_>>())
    }

    /// The chosen episodes, whole or sub-sampled by the paper's rule: each keeps every `stride`-th pair from an
    /// offset uniform in `[0, stride)`, offsets drawn for all episodes in order from a generator of fixed seed,
    /// so that the same file and numbers always give the same pairs.
    ///
    /// # Errors
    /// More episodes than the file holds; a stride of 0, or one over pairs already sub-sampled.
    pub fn select(&self, selection: &DemoSelection) -> Result<Self> {
        let DemoSelection { skip, episodes: count, stride, from_step } = *selection;
        let held = self.episodes.len();
        let count = count.unwrap_or(held.saturating_sub(skip));
        if stride == 0 || count == 0 || skip.checked_add(count).is_none_or(|end| end > held) {
            return Err(Error::Invalid(format!(
                "the demonstrations hold {held} episodes: cannot leave out {skip} and use {count} with stride \
                 {stride}"
            )));
        }
        if stride > 1 && self.stride > 1 {
            return Err(Error::Invalid(format!(
                "the demonstrations are already sub-sampled with stride {}: use the original file for another",
                self.stride
            )));
        }
        let mut offsets = Stream::new(0, "demonstration stride", 0, 0);
        let (mut index, mut episodes, mut first) = (Vec::new(), Vec::new(), 0);
        let step = slice::<i64>(&self.steps);
        for (i, episode) in self.episodes.iter().enumerate() {
            let offset = offsets.below(stride);
            if (skip..skip + count).contains(&i) {
                let strided = (offset..episode.pairs).step_by(stride).map(|pair| first + pair);
                let before = index.len();
                index.extend(strided.filter(|&pair| step[pair] >= from_step).map(|pair| pair as i64));
                episodes.push(DemoEpisode { pairs: index.len() - before, ..episode.clone() });
            }
            first += episode.pairs;
        }
        if index.is_empty() {
            return Err(Error::Invalid(format!(
                "a stride of {stride} from step {from_step} on leaves no pair of such short episodes"
            )));
        }
        let index = Tensor::from_slice(&index);
        let pick = |tensor: &Tensor| tensor.index_select(0, &index);
        Ok(Self {
            env: self.env.clone(),
            observation_space: self.observation_space.clone(),
            action_space: self.action_space.clone(),
            episodes,
            stride: self.stride * stride,
            observations: pick(&self.observations),
            actions: pick(&self.actions),
            rewards: pick(&self.rewards),
            steps: pick(&self.steps),
            final_observations: self.final_observations.narrow(0, skip as i64, count as i64),
        })
    }

    /// Writes a safetensors file, atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        let header = Header {
            demonstrations: FORMAT,
            env: self.env.clone(),
            observation_space: self.observation_space.clone(),
            action_space: self.action_space.clone(),
            stride: self.stride,
            episodes: self.episodes.clone(),
        };
        let metadata = match serde_json::to_value(header) {
            Ok(serde_json::Value::Object(map)) => map,
            other => return Err(Error::Invalid(format!("cannot describe the demonstrations: {other:?}"))),
        };
        let tensors = [
            ("observation", &self.observations),
            ("action", &self.actions),
            ("reward", &self.rewards),
            ("step", &self.steps),
            ("final_observation", &self.final_observations),
        ]
        .map(|(name, tensor)| (name.to_string(), tensor.contiguous()));
        tensor_file::write(path, &tensors, &metadata)
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// Missing or damaged files, shapes that contradict the header, actions outside their space, NaN: each says
    /// which and where.
    pub fn load(path: &Path) -> Result<Self> {
        let (tensors, metadata) = tensor_file::read(path)?;
        Self::from_file(tensors, metadata).map_err(|reason| {
            Error::Invalid(format!("{} is no usable demonstration file: {reason}", path.display()))
        })
    }

    fn from_file(
        mut tensors: BTreeMap<String, Tensor>,
        metadata: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self, String> {
        if !metadata.contains_key("demonstrations") {
            return Err("it holds other things (a checkpoint?)".into());
        }
        let header: Header = serde_json::from_value(serde_json::Value::Object(metadata))
            .map_err(|error| format!("its header: {error}"))?;
        if header.demonstrations != FORMAT {
            return Err(format!("its format is {}, this program reads {FORMAT}", header.demonstrations));
        }
        for (name, space) in [("observation", &header.observation_space), ("action", &header.action_space)] {
            space.check().map_err(|error| format!("its {name}s: {error}"))?;
        }
        if header.stride == 0 {
            return Err("its stride is 0".into());
        }
        let pairs = header.episodes.iter().try_fold(0usize, |sum, episode| sum.checked_add(episode.pairs));
        let pairs = pairs.ok_or("its episodes hold more pairs than memory")?;
        let mut take = |name: &str, space: &Space, count: usize| {
            let tensor = tensors.remove(name).ok_or_else(|| format!("`{name}` is missing"))?;
            let shape: Vec<i64> =
                std::iter::once(count as i64).chain(space.shape().iter().map(|&d| d as i64)).collect();
            let kind = kind_of(space.dtype());
            if tensor.size() != shape || tensor.kind() != kind {
                return Err(format!(
                    "`{name}` is {:?} of {:?}, its header says {kind:?} of {shape:?}",
                    tensor.kind(),
                    tensor.size()
                ));
            }
            Ok(tensor)
        };
        let scalar = Space::floats(&[], f64::NEG_INFINITY, f64::INFINITY);
        let observations = take("observation", &header.observation_space, pairs)?;
        let actions = take("action", &header.action_space, pairs)?;
        let rewards = take("reward", &scalar, pairs)?;
        let steps = take("step", &Space::discrete(i64::MAX), pairs)?;
        let final_observations = take("final_observation", &header.observation_space, header.episodes.len())?;
        for (name, space, tensor) in [
            ("observation", &header.observation_space, &observations),
            ("action", &header.action_space, &actions),
            ("reward", &scalar, &rewards),
            ("final_observation", &header.observation_space, &final_observations),
        ] {
            check_values(name, space, tensor)?;
        }
        if pairs == 0 {
            return Err("it holds no pair".into());
        }
        Ok(Self {
            env: header.env,
            observation_space: header.observation_space,
            action_space: header.action_space,
            episodes: header.episodes,
            stride: header.stride,
            observations,
            actions,
            rewards,
            steps,
            final_observations,
        })
    }
}

/// Refuses floats that are not finite, choices that there are not, and switches that are neither on nor off.
fn check_values(name: &str, space: &Space, tensor: &Tensor) -> Result<(), String> {
    match space {
        Space::Fields(fields) => fields.iter().try_for_each(|field| {
            check_values(&format!("{name} {}", field.name), &field.space, &field_of(tensor, field))
        }),
        Space::Box { dtype: Dtype::F32, .. } => {
            let bad = slice::<f32>(&tensor.contiguous()).iter().position(|x| !x.is_finite());
            bad.map_or(Ok(()), |i| {
                let row = i / (tensor.numel() / tensor.size()[0] as usize);
                Err(format!("`{name}` row {row} holds a NaN or an infinity"))
            })
        }
        _ => first_row_outside(space, tensor)
            .map_or(Ok(()), |row| Err(format!("`{name}` row {row} lies outside {space}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use imago::rollout::Record;
    use imago_envs::{LeafBuf, LeafMut};
    use proptest::prelude::*;

    fn recorded(lengths: &[usize]) -> Demonstrations {
        let (observation, action) = (Space::floats(&[2], -100.0, 100.0), Space::discrete(3));
        let episodes: Vec<Episode> = lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| Episode {
                seed: i as u64,
                episode_return: length as f64,
                length,
                terminated: i % 2 == 0,
                truncated: i % 2 == 1,
                path: Vec::new(),
                metrics: Vec::new(),
                record: Some(Record {
                    observations: LeafBuf::F32((0..=length).flat_map(|t| [i as f32, t as f32]).collect()),
                    actions: LeafBuf::I64((0..length).map(|t| (t % 3) as i64).collect()),
                    rewards: vec![1.0; length],
                }),
            })
            .collect();
        Demonstrations::from_episodes(EnvSpec::new("Toy-v0"), &observation, &action, &episodes).unwrap()
    }

    #[test]
    fn what_came_next_is_known_where_pairs_follow_each_other() {
        let of = |demonstrations: &Demonstrations| {
            let (from, to) = demonstrations.transitions().unwrap();
            (slice::<f32>(&from).to_vec(), slice::<f32>(&to).to_vec())
        };
        // [episode, step] before and after; step 3 of the first and step 2 of the second are final observations.
        let wanted =
            (vec![0., 0., 0., 1., 0., 2., 1., 0., 1., 1.], vec![0., 1., 0., 2., 0., 3., 1., 1., 1., 2.]);
        assert_eq!(of(&recorded(&[3, 2])), wanted);
        let mut seen = [false; 2];
        for length in 8..12 {
            let few = recorded(&[length]).select(&DemoSelection { stride: 4, ..Default::default() }).unwrap();
            let last = slice::<i64>(&few.steps).last() == Some(&(length as i64 - 1));
            match last {
                true => assert_eq!(of(&few), (vec![0., length as f32 - 1.], vec![0., length as f32])),
                false => {
                    assert!(few.transitions().unwrap_err().to_string().contains("demos_stride = 1"));
                }
            }
            seen[usize::from(last)] = true;
        }
        assert_eq!(seen, [true; 2]);
    }

    #[test]
    fn a_file_gives_back_what_was_saved() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.demos");
        let ours = recorded(&[5, 1, 7]);
        ours.save(&path).unwrap();
        let theirs = Demonstrations::load(&path).unwrap();
        assert_eq!(ours.episodes, theirs.episodes);
        assert_eq!(
            (ours.env, ours.observation_space, ours.stride),
            (theirs.env, theirs.observation_space, 1)
        );
        assert_eq!(ours.observations, theirs.observations);
        assert_eq!(ours.actions, theirs.actions);
        assert_eq!(ours.final_observations, theirs.final_observations);
        assert_eq!(Vec::<f32>::try_from(theirs.final_observations.get(2)).unwrap(), [2.0, 7.0]);
    }

    #[test]
    fn striding_follows_the_papers_rule() {
        let all = recorded(&[100, 100, 100]);
        let chosen = all.select(&DemoSelection { stride: 20, ..Default::default() }).unwrap();
        assert_eq!((chosen.pairs(), chosen.episodes[1].pairs, chosen.stride), (15, 5, 20));
        let steps = Vec::<i64>::try_from(&chosen.steps).unwrap();
        for episode in steps.chunks(5) {
            assert!(episode[0] < 20 && episode.windows(2).all(|w| w[1] - w[0] == 20), "{steps:?}");
        }
        assert!(steps[0] != steps[5] || steps[5] != steps[10], "one offset for all: {steps:?}");
        // The same pairs whether an episode is chosen alone or with others.
        let second = all
            .select(&DemoSelection { skip: 1, episodes: Some(1), stride: 20, ..Default::default() })
            .unwrap();
        assert_eq!(Vec::<i64>::try_from(&second.steps).unwrap(), steps[5..10]);
        assert_eq!(second.observations, chosen.observations.narrow(0, 5, 5));
        let late =
            all.select(&DemoSelection { stride: 20, from_step: steps[2], ..Default::default() }).unwrap();
        let wanted: Vec<i64> = steps.iter().copied().filter(|&step| step >= steps[2]).collect();
        assert_eq!(Vec::<i64>::try_from(&late.steps).unwrap(), wanted);
        assert_eq!(late.episodes[0].pairs, 3);
        assert!(all.select(&DemoSelection { from_step: 100, ..Default::default() }).is_err());
        assert!(chosen.select(&DemoSelection { stride: 2, ..Default::default() }).is_err());
        assert!(all.select(&DemoSelection { episodes: Some(4), ..Default::default() }).is_err());
    }

    #[test]
    fn bad_files_are_refused_with_the_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.demos");
        let refused = |demonstrations: &Demonstrations| {
            demonstrations.save(&path).unwrap();
            Demonstrations::load(&path).unwrap_err().to_string()
        };
        let mut with_nan = recorded(&[4]);
        let _ = with_nan.observations.get(2).fill_(f64::NAN);
        assert!(refused(&with_nan).contains("`observation` row 2"));
        with_nan = recorded(&[4]);
        let _ = with_nan.actions.get(3).fill_(3);
        assert!(refused(&with_nan).contains("`action` row 3 lies outside Discrete(3)"));
        with_nan = recorded(&[4]);
        with_nan.rewards = with_nan.rewards.narrow(0, 0, 3);
        assert!(refused(&with_nan).contains("`reward`"));
    }

    #[test]
    fn records_are_saved_and_looked_into() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.demos");
        let observation = Space::fields([
            ("inner/speed", Space::floats(&[2], -1.0, 1.0)),
            ("gear", Space::Discrete { n: 3, start: 5 }),
            ("lights", Space::multi_binary(&[3])),
        ])
        .unwrap();
        let action = Space::multi_discrete(&[2, 4]);
        let recorded = || {
            let mut seen = LeafBuf::zeros(&observation, 3);
            for step in 0..3 {
                let mut leaf = seen.leaf_mut();
                let mut leaf = leaf.part(step, observation.len());
                leaf.field(&observation, "inner/speed").f32()[1] = step as f32;
                leaf.field(&observation, "gear").i64()[0] = step as i64;
                leaf.field(&observation, "lights").u8()[step] = 1;
            }
            let record =
                Record { observations: seen, actions: LeafBuf::I64(vec![0, 3, 1, 2]), rewards: vec![0.0; 2] };
            let episode = Episode { length: 2, record: Some(record), ..Default::default() };
            Demonstrations::from_episodes(EnvSpec::new("Toy-v0"), &observation, &action, &[episode]).unwrap()
        };
        recorded().save(&path).unwrap();
        let loaded = Demonstrations::load(&path).unwrap();
        assert_eq!((&loaded.observation_space, &loaded.action_space), (&observation, &action));
        assert_eq!(loaded.observations, recorded().observations);
        assert_eq!(loaded.actions, Tensor::from_slice2(&[[0i64, 3], [1, 2]]));
        let refused = |spoil: &dyn Fn(&mut Demonstrations)| {
            let mut demonstrations = recorded();
            spoil(&mut demonstrations);
            demonstrations.save(&path).unwrap();
            Demonstrations::load(&path).unwrap_err().to_string()
        };
        let Space::Fields(fields) = &observation else { unreachable!() };
        let fill = |index: usize, row: i64, value: f64| {
            move |demonstrations: &mut Demonstrations| {
                let _ = field_of(&demonstrations.observations, &fields[index]).get(row).fill_(value);
            }
        };
        assert!(refused(&fill(0, 1, f64::INFINITY)).contains("`observation inner/speed` row 1 holds a NaN"));
        assert!(
            refused(&fill(1, 0, 3.0)).contains("`observation gear` row 0 lies outside Discrete(3, start 5)")
        );
        assert!(
            refused(&fill(2, 1, 2.0)).contains("`observation lights` row 1 lies outside MultiBinary([3])")
        );
        let refused = refused(&|demonstrations| {
            let _ = demonstrations.actions.get(1).get(0).fill_(2);
        });
        assert!(refused.contains("`action` row 1 lies outside MultiDiscrete([2, 4])"), "{refused}");
    }

    /// Writes `ours` with the header changed, and reads it.
    fn with_header(ours: &Demonstrations, key: &str, value: serde_json::Value) -> Result<Demonstrations> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.demos");
        ours.save(&path).unwrap();
        let (tensors, mut header) = tensor_file::read(&path).unwrap();
        header.insert(key.into(), value).unwrap();
        tensor_file::write(&path, &tensors.into_iter().collect::<Vec<_>>(), &header).unwrap();
        Demonstrations::load(&path)
    }

    #[test]
    fn headers_that_contradict_themselves_are_refused() {
        let ours = recorded(&[4, 2]);
        let refused =
            |key: &str, value| with_header(&ours, key, value).unwrap_err().to_string().replace('"', "'");
        use serde_json::json;
        // 2⁶³ + 2⁶³ + 6 pairs are 6 again where sums wrap.
        let mut episodes = serde_json::to_value(&ours.episodes).unwrap();
        for i in [0, 1] {
            episodes[i]["pairs"] = json!((1u64 << 63) + 3);
        }
        assert!(refused("episodes", episodes).contains("more pairs than memory"));
        assert!(refused("stride", json!(0)).contains("stride"));
        let boxed = |shape: serde_json::Value, low: f64, count: usize| json!({"box": {"shape": shape, "dtype": "f32", "low": [[low, count]], "high": [[1.0, count]]}});
        assert!(refused("observation_space", boxed(json!([2]), 0.0, 3)).contains("bound for each value"));
        assert!(
            refused("observation_space", boxed(json!([1u64 << 63, 2]), 0.0, 0)).contains("bound for each")
        );
        assert!(refused("observation_space", boxed(json!([2]), 2.0, 2)).contains("above the upper"));
        assert!(
            refused("action_space", json!({"discrete": {"n": 0, "start": 0}})).contains("number of choices")
        );
        assert!(
            refused("action_space", json!({"discrete": {"n": i64::MAX, "start": 1}})).contains("choices")
        );
        let several = json!({"multi_discrete": {"shape": [2], "n": [2], "start": [0]}});
        assert!(refused("action_space", several).contains("number of choices and one start"));
        let several = json!({"multi_discrete": {"shape": [2], "n": [2, -1], "start": [0, 0]}});
        assert!(refused("action_space", several).contains("number of choices"));
        let switches = json!({"multi_binary": {"shape": [1u64 << 40]}});
        assert!(refused("observation_space", switches).contains("more switches"));
        let fields = json!({"fields": [["a", {"discrete": {"n": -1, "start": 0}}]]});
        assert!(refused("observation_space", fields).contains("number of choices"));
        let message = refused("observation_space", boxed(json!([1u64 << 60]), 0.0, 1 << 60));
        assert!(message.contains("more bounds"), "{message}");
    }

    fn any_leaf() -> impl Strategy<Value = Space> {
        let shape = proptest::collection::vec(1usize..4, 0..4);
        let boxes = (shape.clone(), -10.0f64..0.0, 0.0f64..10.0).prop_map(|(shape, low, high)| {
            // Different bounds, of which some are infinite.
            let count: usize = shape.iter().product();
            let low = (0..count).map(|i| if i % 3 == 2 { f64::NEG_INFINITY } else { low - i as f64 });
            let high = (0..count).map(|i| if i % 2 == 1 { f64::INFINITY } else { high });
            Space::Box { shape, dtype: Dtype::F32, low: low.collect(), high: high.collect() }
        });
        let images = shape.clone().prop_map(|shape| Space::bytes(&shape));
        prop_oneof![
            boxes,
            images,
            (1i64..10, -5i64..5).prop_map(|(n, start)| Space::Discrete { n, start }),
            proptest::collection::vec(1i64..5, 1..4).prop_map(|n| Space::multi_discrete(&n)),
            shape.prop_map(|shape| Space::multi_binary(&shape)),
        ]
    }

    fn any_space() -> impl Strategy<Value = Space> {
        let fields = proptest::collection::vec(any_leaf(), 1..4).prop_map(|leaves| {
            Space::fields(leaves.into_iter().enumerate().map(|(i, leaf)| (format!("{i}/\"x\""), leaf)))
                .unwrap()
        });
        prop_oneof![3 => any_leaf(), 1 => fields]
    }

    /// Fills elements of a space, each value another one.
    fn fill(space: &Space, mut leaf: LeafMut) {
        match space {
            Space::Fields(fields) => {
                leaf.u8().chunks_exact_mut(space.len()).for_each(|record| {
                    fields.iter().for_each(|field| fill(&field.space, field.write(record)));
                });
            }
            Space::Discrete { n, .. } => leaf.i64().iter_mut().zip(0..).for_each(|(x, i)| *x = i % n),
            Space::MultiDiscrete { n, .. } => {
                leaf.i64().iter_mut().zip(0..).zip(n.iter().cycle()).for_each(|((x, i), n)| *x = i % n);
            }
            Space::MultiBinary { .. } => leaf.u8().iter_mut().zip(0..).for_each(|(x, i)| *x = i % 2),
            Space::Box { dtype: Dtype::U8, .. } => leaf.u8().iter_mut().zip(0..).for_each(|(x, i)| *x = i),
            Space::Box { .. } => {
                leaf.f32().iter_mut().zip(0u8..).for_each(|(x, i)| *x = f32::from(i) * 0.1 - 3.0);
            }
        }
    }

    fn some(space: &Space, count: usize) -> LeafBuf {
        let mut made = LeafBuf::zeros(space, count);
        fill(space, made.leaf_mut());
        made
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn demonstrations_of_any_space_come_back(
            observation in any_space(),
            action in any_space(),
            lengths in proptest::collection::vec(1usize..6, 1..5),
            stride in 1usize..4,
            skip in 0usize..3,
        ) {
            let episodes: Vec<Episode> = lengths.iter().enumerate().map(|(i, &length)| Episode {
                seed: u64::MAX - i as u64,
                episode_return: 0.1 * i as f64,
                length,
                terminated: i % 2 == 0,
                truncated: i % 2 == 1,
                path: Vec::new(),
                metrics: Vec::new(),
                record: Some(Record {
                    observations: some(&observation, length + 1),
                    actions: some(&action, length),
                    rewards: (0..length).map(|t| t as f32 / 3.0).collect(),
                }),
            }).collect();
            let mut env = EnvSpec::new("Toy-v0");
            env.args.insert("gravity".into(), toml::Value::Float(9.8));
            let ours = Demonstrations::from_episodes(env, &observation, &action, &episodes).unwrap();
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("x.demos");
            let same = |ours: &Demonstrations| {
                ours.save(&path).unwrap();
                let theirs = Demonstrations::load(&path).unwrap();
                prop_assert_eq!(&ours.env, &theirs.env);
                prop_assert_eq!(&ours.observation_space, &theirs.observation_space);
                prop_assert_eq!(&ours.action_space, &theirs.action_space);
                prop_assert_eq!((&ours.episodes, ours.stride), (&theirs.episodes, theirs.stride));
                prop_assert_eq!(&ours.observations, &theirs.observations);
                prop_assert_eq!(&ours.actions, &theirs.actions);
                prop_assert_eq!(&ours.rewards, &theirs.rewards);
                prop_assert_eq!(&ours.steps, &theirs.steps);
                prop_assert_eq!(&ours.final_observations, &theirs.final_observations);
                Ok(())
            };
            same(&ours)?;
            if let Ok(chosen) = ours.select(&DemoSelection { skip, episodes: None, stride, ..Default::default() }) {
                let kept: usize = chosen.episodes.iter().map(|episode| episode.pairs).sum();
                prop_assert_eq!(kept, chosen.pairs());
                let steps = Vec::<i64>::try_from(&chosen.steps).unwrap();
                let mut rest = &steps[..];
                for episode in &chosen.episodes {
                    let (own, others) = rest.split_at(episode.pairs);
                    prop_assert!(own.windows(2).all(|w| w[1] - w[0] == stride as i64), "{:?}", steps);
                    rest = others;
                }
                same(&chosen)?;
            } else {
                prop_assert!(skip >= lengths.len() || stride > 1);
            }
        }
    }
}
