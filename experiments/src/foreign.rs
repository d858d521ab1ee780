//! Names that other libraries use for what recipes say: Stable-Baselines3 and its Zoo, CleanRL, `imitation`, OpenAI's
//! Baselines and Spinning Up, RLlib.

/// What a foreign name comes to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// It is this key, or section.
    Key(&'static str),
    /// It is this key, but not the same number.
    Differs(&'static str, &'static str),
    /// There is no such key; this is why.
    Not(&'static str),
}

use Foreign::{Differs, Key, Not};

const CPU: &str = "training runs on the processor; there is no other device yet";
const EXPLORATION: &str = "state-dependent exploration (gSDE) is not implemented; noise is Gaussian, see \
                           `policy.log_std`";
const LOGS: &str = "every run writes TensorBoard and metrics.jsonl into its own directory";
const WANDB: &str = "Weights & Biases is not supported; every run writes TensorBoard and metrics.jsonl";
const OPTIMISER: &str = "the optimiser is Adam; of its settings there are `learning_rate` and `adam_epsilon`";
const EXACT: &str = "runs always repeat to the bit";
const WRAPPERS: &str = "wrappers are keys of [env]: actions, noop_max, sticky_actions, action_repeat, life_as_episode, \
                        crop, grayscale, resize, frame_stack; a Gymnasium environment may bring others";
const ALE: &str = "around the environment; one that its own constructor takes goes into `env.args`, and both together \
                   count twice";
const SIZE: &str = "both numbers: [height, width]";
const FIRE: &str = "after a reset only action 0 is taken (`env.noop_max`); whoever must fire learns it";
const POLICY: &str = "its parts are keys of [policy]: torso, hidden, activation, shared, log_std";

/// Foreign names, sorted.
pub const NAMES: &[(&str, Foreign)] = &[
    ("action_repeat_probability", Key("env.sticky_actions")),
    ("activation_fn", Key("policy.activation")),
    ("actor_lr", Key("learner.learning_rate")),
    ("adam_eps", Key("learner.adam_epsilon")),
    ("agent", Key("learner")),
    ("algo", Key("learner.kind")),
    ("algorithm", Key("learner.kind")),
    (
        "allow_variable_horizon",
        Not("episodes may always end early; a GAIL run reports the bias that comes from it"),
    ),
    ("anneal_lr", Key("learner.anneal_learning_rate")),
    ("atol", Not("there is no such tolerance here")),
    ("batch_size", Key("learner.minibatch_size")),
    ("buffer_size", Key("learner.replay_size")),
    ("capture_video", Not("videos are not recorded yet")),
    ("clip_coef", Key("learner.clip")),
    ("clip_obs", Not("normalised observations are always clipped to ±10")),
    ("clip_param", Key("learner.clip")),
    ("clip_range", Key("learner.clip")),
    ("clip_range_vf", Key("learner.value_clip")),
    ("clip_ratio", Key("learner.clip")),
    ("clip_reward", Key("signal.NAME.reward_clip")),
    (
        "clip_vloss",
        Differs("learner.value_clip", "a distance (CleanRL's is `clip_coef`), absent for no clipping"),
    ),
    ("cliprange", Key("learner.clip")),
    ("cuda", Not(CPU)),
    ("data_subsamp_freq", Key("signal.gail.demos_stride")),
    ("demo_batch_size", Key("signal.gail.batch_size")),
    (
        "demo_minibatch_size",
        Differs(
            "signal.gail.batch_size",
            "the pairs of one discriminator step; gradients are not accumulated",
        ),
    ),
    ("demonstrations", Key("signal.gail.demos")),
    ("device", Not(CPU)),
    ("disc_lr", Key("signal.gail.learning_rate")),
    ("disc_opt_cls", Not(OPTIMISER)),
    ("disc_opt_kwargs", Key("signal.gail.learning_rate")),
    ("discriminator", Key("signal.gail")),
    ("ent_coef", Key("learner.entropy_coefficient")),
    ("ent_weight", Key("learner.entropy_coefficient")),
    ("entropy_coeff", Key("learner.entropy_coefficient")),
    ("env_id", Key("env.id")),
    ("env_kwargs", Key("env.args")),
    ("env_name", Key("env.id")),
    ("env_wrapper", Not(WRAPPERS)),
    ("environment", Key("env")),
    ("episodic_life", Key("env.life_as_episode")),
    ("eval_freq", Key("run.eval_every")),
    ("evaluation", Key("eval")),
    ("exp_name", Not("the run's directory is its name: --run-dir DIR")),
    ("expert_path", Key("signal.gail.demos")),
    ("ext_coef", Key("signal.NAME.weight")),
    ("features_extractor_class", Key("policy.torso")),
    ("features_extractor_kwargs", Not(POLICY)),
    ("fire_reset", Not(FIRE)),
    ("frame_skip", Key("env.action_repeat")),
    ("frameskip", Differs("env.action_repeat", ALE)),
    ("framestack", Key("env.frame_stack")),
    ("full_std", Not(EXPLORATION)),
    ("gae_lam", Key("learner.gae_lambda")),
    ("gamma", Key("learner.discount")),
    ("gen_algo", Key("learner")),
    (
        "gen_replay_buffer_capacity",
        Differs("signal.gail.replay_rollouts", "counted in rollouts (envs × steps), not in transitions"),
    ),
    (
        "gen_train_timesteps",
        Differs("rollout.steps", "the steps of one environment: gen_train_timesteps ÷ `rollout.envs`"),
    ),
    ("grad_clip", Key("learner.max_gradient_norm")),
    ("gradient_steps", Differs("learner.updates_per_step", "for each step of an environment")),
    ("gray_scale", Key("env.grayscale")),
    ("grayscale_newaxis", Not("a grey picture is always one plane: [1, height, width]")),
    ("grayscale_obs", Key("env.grayscale")),
    ("greyscale", Key("env.grayscale")),
    ("img_height", Differs("env.resize", SIZE)),
    ("img_width", Differs("env.resize", SIZE)),
    ("init_tensorboard", Not(LOGS)),
    ("int_coef", Key("signal.NAME.weight")),
    ("int_gamma", Key("signal.NAME.discount")),
    ("kl_target", Key("learner.target_kl")),
    ("l2_weight", Key("learner.weight_decay")),
    ("lam", Key("learner.gae_lambda")),
    ("lambda", Key("learner.gae_lambda")),
    ("limit_trajs", Key("signal.gail.demos_episodes")),
    ("log_freq", Key("run.log_every")),
    ("log_interval", Differs("run.log_every", "counted in steps, not in updates")),
    ("log_std_init", Key("policy.log_std")),
    ("lr", Key("learner.learning_rate")),
    ("max_ep_len", Key("env.time_limit")),
    ("max_episode_steps", Key("env.time_limit")),
    ("max_grad_norm", Key("learner.max_gradient_norm")),
    (
        "minibatch_size",
        Differs("learner.batch_size", "the pairs of one cloning step; gradients are not accumulated"),
    ),
    ("model", Key("policy")),
    ("n_batches", Key("run.total_steps")),
    ("n_disc_updates_per_round", Key("signal.gail.updates_per_round")),
    ("n_envs", Key("rollout.envs")),
    ("n_epochs", Key("learner.epochs")),
    ("n_eval_episodes", Key("run.eval_episodes")),
    ("n_expert_demos", Key("signal.gail.demos_episodes")),
    ("n_stack", Key("env.frame_stack")),
    ("n_steps", Key("rollout.steps")),
    ("n_timesteps", Key("run.total_steps")),
    ("net_arch", Differs("policy.hidden", "one list of widths for policy and value: [64, 64]")),
    ("network", Key("policy")),
    ("nminibatches", Differs("learner.minibatch_size", "envs × steps ÷ nminibatches")),
    ("noptepochs", Key("learner.epochs")),
    ("norm_adv", Key("learner.normalise_advantage")),
    ("norm_obs", Key("policy.normalise")),
    ("norm_reward", Differs("signal.NAME.reward_norm", "\"returns\" for what VecNormalize does")),
    (
        "normalize",
        Differs(
            "policy.normalise",
            "for observations; for rewards it is `signal.NAME.reward_norm` = \"returns\"",
        ),
    ),
    ("normalize_advantage", Key("learner.normalise_advantage")),
    ("normalize_images", Not("bytes always reach the network as 0 to 1")),
    ("normalize_output_layer", Key("signal.NAME.reward_norm")),
    ("nsteps", Key("rollout.steps")),
    ("num_env", Key("rollout.envs")),
    ("num_env_runners", Key("run.workers")),
    ("num_envs", Key("rollout.envs")),
    ("num_envs_per_env_runner", Key("rollout.group_size")),
    ("num_epochs", Key("learner.epochs")),
    ("num_minibatches", Differs("learner.minibatch_size", "envs × steps ÷ num_minibatches")),
    ("num_sgd_iter", Key("learner.epochs")),
    ("num_stack", Key("env.frame_stack")),
    ("num_steps", Key("rollout.steps")),
    ("num_threads", Key("run.learner_threads")),
    ("num_timesteps", Key("run.total_steps")),
    ("num_workers", Key("run.workers")),
    ("obs_type", Differs("env.args", "where it is an argument of the environment's constructor, as in ALE")),
    ("optimizer_class", Not(OPTIMISER)),
    ("optimizer_kwargs", Not(OPTIMISER)),
    ("ortho_init", Not("weights of the policy always start orthogonal")),
    ("padding_type", Not("before an episode's first observation a stack holds zeros")),
    ("pi_lr", Key("learner.learning_rate")),
    ("policy_kwargs", Not(POLICY)),
    ("ppo", Key("learner")),
    ("progress_bar", Not("it is shown unless --quiet is given")),
    ("repeat_action_probability", Differs("env.sticky_actions", ALE)),
    ("rollout_buffer_class", Not("there is one rollout buffer")),
    ("rollout_fragment_length", Key("rollout.steps")),
    ("rollout_path", Key("signal.gail.demos")),
    ("save_freq", Key("run.checkpoint_every")),
    ("save_model", Not("runs always keep checkpoints, see `run.checkpoint_every`")),
    ("scale_obs", Not("bytes always reach the network as 0 to 1")),
    ("screen_size", Differs("env.resize", SIZE)),
    ("sde_sample_freq", Not(EXPLORATION)),
    ("sgd_minibatch_size", Key("learner.minibatch_size")),
    ("share_features_extractor", Key("policy.shared")),
    ("signals", Key("signal")),
    ("skip", Key("env.action_repeat")),
    ("squash_output", Not("actions are Gaussian and clipped to their space")),
    ("stack", Key("env.frame_stack")),
    ("stack_num", Key("env.frame_stack")),
    ("stack_size", Key("env.frame_stack")),
    ("stats_window_size", Not("returns are logged of every episode that ended since the last log")),
    (
        "steps_per_epoch",
        Differs("rollout.steps", "the steps of one environment: steps_per_epoch ÷ `rollout.envs`"),
    ),
    ("sticky_action_prob", Key("env.sticky_actions")),
    ("tau", Key("learner.target_rate")),
    ("tensorboard_log", Not(LOGS)),
    ("terminal_on_life_loss", Key("env.life_as_episode")),
    ("timesteps_per_batch", Differs("rollout.steps", "the steps of one environment")),
    ("torch_deterministic", Not(EXACT)),
    ("total_timesteps", Key("run.total_steps")),
    ("track", Not(WANDB)),
    ("train", Key("run")),
    (
        "train_batch_size",
        Differs("rollout.steps", "the steps of one environment: train_batch_size ÷ `rollout.envs`"),
    ),
    ("train_freq", Differs("rollout.steps", "of each environment between two rounds of updates")),
    ("train_pi_iters", Key("learner.epochs")),
    ("training", Key("run")),
    ("update_epochs", Key("learner.epochs")),
    ("update_proportion", Key("signal.rnd.update_share")),
    ("use_expln", Not(EXPLORATION)),
    ("use_fire_reset", Not(FIRE)),
    ("use_rms_prop", Not(OPTIMISER)),
    ("use_sde", Not(EXPLORATION)),
    (
        "vec_env_class",
        Not("environments are stepped in groups by threads, see `rollout.group_size` and `run.workers`"),
    ),
    ("venv", Key("env")),
    ("verbose", Not("say --quiet for less, or set IMAGO_LOG=debug for more")),
    ("vf_clip_param", Key("learner.value_clip")),
    ("vf_coef", Key("learner.value_coefficient")),
    ("vf_loss_coeff", Key("learner.value_coefficient")),
    ("wandb_entity", Not(WANDB)),
    ("wandb_project_name", Not(WANDB)),
];

/// What `name` comes to here, if another library calls something so.
pub fn meaning(name: &str) -> Option<Foreign> {
    NAMES.binary_search_by(|(theirs, _)| (*theirs).cmp(name)).ok().map(|at| NAMES[at].1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::schema::sections;

    #[test]
    fn names_are_sorted_and_lead_to_keys_that_exist() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0), "`meaning` searches by halves");
        let sections = sections().unwrap();
        let ours: Vec<String> = sections
            .iter()
            .flat_map(|section| {
                let path = section.path();
                let base = path.split('.').next().unwrap().to_string();
                let keys = section.keys.iter().map(|key| format!("{path}.{}", key.name)).collect::<Vec<_>>();
                keys.into_iter().chain([path, base])
            })
            .collect();
        for (name, foreign) in NAMES {
            if let Key(key) | Differs(key, _) = foreign {
                assert!(ours.iter().any(|ours| ours == key), "`{name}` leads to `{key}`, which is no key");
            }
            // A name of ours in its own place never gets here; elsewhere it must not be called foreign.
            let key = sections.iter().flat_map(|section| &section.keys).any(|key| key.name == *name);
            assert!(!key || ["batch_size", "minibatch_size"].contains(name), "`{name}` is a name of ours");
        }
    }
}
