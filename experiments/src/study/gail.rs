//! The tables of "Generative adversarial imitation learning" (Ho & Ermon 2016): table 1 (experts), table 3 (imitators).

use super::{Imitated, Method, Published, Study, Task};

/// All studies.
pub const STUDIES: [&Study; 3] = [&CLASSIC, &SEALS, &MUJOCO];

const CLONING: Method = Method {
    key: "bc",
    name: "BC, the paper's settings",
    recipe: "bc/cartpole",
    sets: &["run.eval_episodes=5"],
    section: "learner",
    imitated: Imitated::Expert,
    every_pair: false,
    checkpoint: "best",
};

const CLONING_ALL: Method = Method { key: "bc-all", name: "BC, every pair", every_pair: true, ..CLONING };

const GAIL: Method = Method {
    key: "gail",
    name: "GAIL",
    recipe: "gail/original-cartpole",
    sets: &[],
    section: "signal.gail",
    imitated: Imitated::Expert,
    every_pair: false,
    checkpoint: "latest",
};

/// The discriminator stays as it begins, zero: its reward is ± log 2 for everything.
const CONSTANT: Method = Method {
    key: "constant",
    name: "constant reward",
    sets: &["signal.gail.updates_per_round=0"],
    imitated: Imitated::Nobody,
    ..GAIL
};

const MISMATCHED: Method =
    Method { key: "mismatched", name: "GAIL of a random policy", imitated: Imitated::Random, ..GAIL };

/// CartPole, Acrobot and MountainCar.
pub const CLASSIC: Study = Study {
    name: "gail-classic",
    title: "GAIL on CartPole, Acrobot and MountainCar (Ho & Ermon 2016, table 3)",
    about: "\
GAIL by the settings of the authors' code: TRPO, 300 iterations of 5,000 steps, a discriminator of 2 × 100 tanh, one \
step of Adam on it after each of the policy; demonstrations are the first 1, 4, 7 or 10 episodes of one expert's with \
sampled actions, of which every 10th (CartPole) or 5th pair is imitated. Behaviour cloning: 1,001 steps of 128 pairs, \
70/30 split, best validation score; once by the same pairs, once by every pair of the same episodes.

Two columns are not in the paper. **Constant reward** pays each step the same (positive on CartPole, negative \
elsewhere) and knows nothing of any expert. **GAIL of a random policy** imitates as many episodes of a policy that acts \
at random. What they reach is reached without imitation: on these tasks episodes that end tell how good they were.

Not as in the original: rollouts of a fixed length, cut in the middle of episodes; statistics of the policy's \
observations begin empty; a step of the value function of at most 1 and not 0.01 standard deviations squared; experts \
of our own.",
    tasks: &[
        Task {
            name: "CartPole",
            env: "CartPole-v0",
            expert: "trpo/cartpole",
            expert_sets: &[],
            expert_needs: 200.0,
            demonstrations: &[1, 4, 7, 10],
            stride: 10,
            reward: "positive",
            published: Some(Published {
                random: 18.64,
                expert: 200.0,
                rows: &[
                    (1, (72.02, 35.82), (200.0, 0.0)),
                    (4, (169.18, 59.81), (200.0, 0.0)),
                    (7, (188.60, 29.61), (200.0, 0.0)),
                    (10, (177.19, 52.83), (200.0, 0.0)),
                ],
            }),
        },
        Task {
            name: "Acrobot",
            env: "Acrobot-v0",
            expert: "trpo/acrobot",
            expert_sets: &[],
            expert_needs: -80.0,
            demonstrations: &[1, 4, 7, 10],
            stride: 5,
            reward: "negative",
            published: Some(Published {
                random: -200.0,
                expert: -75.25,
                rows: &[
                    (1, (-130.60, 55.08), (-77.26, 18.03)),
                    (4, (-93.20, 32.58), (-83.12, 23.31)),
                    (7, (-96.92, 34.51), (-82.56, 20.95)),
                    (10, (-95.09, 33.33), (-78.91, 15.76)),
                ],
            }),
        },
        Task {
            name: "MountainCar",
            env: "MountainCar-v0",
            expert: "ppo/mountaincar",
            expert_sets: &[],
            expert_needs: -105.0,
            demonstrations: &[1, 4, 7, 10],
            stride: 5,
            reward: "negative",
            published: Some(Published {
                random: -200.0,
                expert: -98.75,
                rows: &[
                    (1, (-136.76, 34.44), (-101.55, 10.32)),
                    (4, (-133.25, 29.97), (-101.35, 10.63)),
                    (7, (-127.34, 29.15), (-99.90, 7.97)),
                    (10, (-123.14, 28.26), (-100.83, 11.40)),
                ],
            }),
        },
    ],
    methods: &[CLONING, CLONING_ALL, GAIL, CONSTANT, MISMATCHED],
    experts_sample: true,
    seeds: 7,
    episodes: 50,
};

/// Episodes of a fixed length, where surviving earns nothing.
pub const SEALS: Study = Study {
    name: "gail-seals",
    title: "GAIL where every episode is equally long (seals/CartPole)",
    about: "\
Episodes of always 500 steps: that one ends tells nothing, and whoever is paid the same for everything learns nothing. \
GAIL by PPO (recipe gail/cartpole) in 200,000 steps, from all pairs of 60 episodes of our own expert and from 25 pairs \
of one.",
    tasks: &[Task {
        name: "seals-CartPole",
        env: "seals/CartPole-v0",
        expert: "ppo/cartpole",
        expert_sets: &["env.id=\"seals/CartPole-v0\""],
        expert_needs: 500.0,
        demonstrations: &[1, 60],
        stride: 20,
        reward: "positive",
        published: None,
    }],
    methods: &[
        Method { ..CLONING },
        Method { recipe: "gail/cartpole", sets: SEALS_STEPS, ..GAIL },
        Method {
            key: "gail-all",
            name: "GAIL, every pair",
            recipe: "gail/cartpole",
            sets: SEALS_STEPS,
            every_pair: true,
            ..GAIL
        },
        Method {
            recipe: "gail/cartpole",
            sets: &["run.total_steps=200_000", "signal.gail.updates_per_round=0"],
            ..CONSTANT
        },
        Method { recipe: "gail/cartpole", sets: SEALS_STEPS, ..MISMATCHED },
    ],
    experts_sample: true,
    seeds: 5,
    episodes: 50,
};

const SEALS_STEPS: &[&str] = &["run.total_steps=200_000"];

/// MuJoCo. Off the beaten track of a few hours: what is run is chosen with `--task`, `--demos`, `--method`, `--seeds`.
pub const MUJOCO: Study = Study {
    name: "gail-mujoco",
    title: "GAIL and DAC on MuJoCo (Ho & Ermon 2016, table 3; Kostrikov et al. 2019)",
    about: "\
The environments are Gymnasium's v5, the paper's were v1: their returns are no measure for each other, scaled scores \
are. Experts act, and imitators are judged, by their most probable actions. Every 20th pair of each demonstration is imitated, 50 of an episode of 1,000 steps. GAIL by the settings of the \
authors' code but for a gradient penalty of 10 on the discriminator (Gulrajani et al. 2017) and 20,000 steps an iteration, not \
50,000, so that 10 million steps hold as many iterations as the paper's 25 million. DAC: TD3, 200,000 steps of the paper's million. \
Behaviour cloning: 20,001 steps of 128 pairs, 70/30 split, best validation score.",
    tasks: &[
        Task {
            name: "Hopper",
            env: "Hopper-v5",
            expert: "ppo/hopper",
            expert_sets: &["run.total_steps=1_000_000", "rollout.steps=512"],
            expert_needs: 3_000.0,
            demonstrations: &[4, 11, 18, 25],
            stride: 20,
            reward: "positive",
            published: Some(Published {
                random: 14.47,
                expert: 3571.38,
                rows: &[
                    (4, (50.57, 0.95), (3614.22, 7.17)),
                    (11, (1025.84, 266.86), (3615.00, 4.32)),
                    (18, (1949.09, 500.61), (3600.70, 4.24)),
                    (25, (3383.96, 657.61), (3560.85, 3.09)),
                ],
            }),
        },
        Task {
            name: "HalfCheetah",
            env: "HalfCheetah-v5",
            expert: "sac/halfcheetah",
            expert_sets: &["run.total_steps=100_000"],
            expert_needs: 4_000.0,
            demonstrations: &[4, 11, 18, 25],
            stride: 20,
            reward: "positive",
            published: Some(Published {
                random: -282.43,
                expert: 4463.46,
                rows: &[
                    (4, (-493.62, 246.58), (4515.70, 549.49)),
                    (11, (637.57, 1708.10), (4280.65, 1119.93)),
                    (18, (2705.01, 2273.00), (4749.43, 149.04)),
                    (25, (3718.58, 1856.22), (4840.07, 95.36)),
                ],
            }),
        },
    ],
    methods: &[
        Method {
            sets: &["run.total_steps=20_001", "run.eval_every=1_000", "run.eval_episodes=5"],
            ..CLONING
        },
        Method { recipe: "gail/hopper", ..GAIL },
        // A fifth of what its paper takes, in which it comes to its expert.
        Method {
            key: "dac",
            name: "DAC",
            recipe: "dac/hopper",
            section: "signal.dac",
            sets: &["run.total_steps=200_000"],
            ..GAIL
        },
        Method { recipe: "gail/hopper", ..CONSTANT },
        Method { recipe: "gail/hopper", ..MISMATCHED },
    ],
    experts_sample: false,
    seeds: 2,
    episodes: 50,
};
