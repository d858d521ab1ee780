//! Any file as demonstrations: a value or one clean error, and what was read can be selected from, written, and
//! learnt from.

use super::container;
use imago::Stream;
use imago::nn::{ActorCritic, BoxHead, PolicySpec, TorsoSpec};
use imago_agents::{DemoSelection, Demonstrations, Gail, GailConfig};

/// Inputs of the largest network that is built.
const MOST_FEATURES: usize = 256;

/// Whether the input is a demonstration file.
pub fn check(data: &[u8]) -> bool {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("x.demos");
    if container::write(data, &path).is_none() {
        return false;
    }
    let demonstrations = match Demonstrations::load(&path) {
        Ok(demonstrations) => demonstrations,
        Err(error) => {
            assert!(error.to_string().contains("x.demos"), "{error} names no file");
            return false;
        }
    };
    let _ = demonstrations.return_mean_std();
    for (skip, episodes, stride) in [
        (0, None, 1),
        (0, None, 2),
        (0, None, 20),
        (1, None, 3),
        (0, Some(1), 1),
        (usize::MAX, Some(1), 1),
        (0, Some(usize::MAX), 1),
        (0, None, usize::MAX),
    ] {
        let Ok(chosen) =
            demonstrations.select(&DemoSelection { skip, episodes, stride, ..Default::default() })
        else {
            continue;
        };
        chosen.save(&path).expect("what was read can be written");
        let again = Demonstrations::load(&path).expect("what was written can be read");
        assert_eq!(again.env, chosen.env);
        assert_eq!(again.episodes, chosen.episodes);
        assert_eq!((again.pairs(), again.stride), (chosen.pairs(), chosen.stride));
        assert_eq!(again.observations, chosen.observations);
        assert_eq!(again.actions, chosen.actions);
        assert_eq!(again.final_observations, chosen.final_observations);
    }
    learn(&demonstrations);
    true
}

/// What behaviour cloning and GAIL do with them first.
fn learn(demonstrations: &Demonstrations) {
    let (observation, action) = (&demonstrations.observation_space, &demonstrations.action_space);
    if observation.features().max(action.features()) > MOST_FEATURES {
        return;
    }
    let rng = &mut Stream::new(0, "fuzzing", 0, 0);
    let torso = TorsoSpec::perceptron(&[2]);
    let spec = PolicySpec {
        observation: observation.clone(),
        action: action.clone(),
        torso,
        shared: true,
        value_heads: 1,
        normalise: true,
        log_std: 0.0,
        masked: false,
        box_head: BoxHead::Gaussian,
        memory: None,
    };
    if let Ok(mut policy) = ActorCritic::new(spec, rng) {
        policy.update_normaliser(&demonstrations.observations);
        policy.evaluate(&demonstrations.observations, &demonstrations.actions);
    }
    let config = GailConfig { hidden: vec![2], ..GailConfig::default() };
    let _ = Gail::new(config, demonstrations, 2, rng);
}
