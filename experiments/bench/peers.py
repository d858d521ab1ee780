"""The peers' side of `make bench`: one workload a call, in a process of its own; prints one line of JSON.

bench.py calls it, pinned to its core. The peers are used through their public interfaces, with one torch thread, and
without progress bars, printed tables and event files.
"""

import argparse
import functools
import importlib
import json
import logging
import os
import struct
import sys
import tempfile
import time
import warnings

import numpy as np

warnings.filterwarnings("ignore")

EVALUATION_EPISODES = 20


def torch():
    """One thread, on whichever path libtorch asks for them."""
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    return torch


def versions(*names):
    from importlib.metadata import version

    return {name: version(name) for name in names}


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def adam_steps(optimiser):
    """Gradient steps that the optimiser itself has counted."""
    return int(max((state["step"] for state in optimiser.state.values()), default=0))


def episode_return(policy, envs, episodes=EVALUATION_EPISODES):
    from stable_baselines3.common.evaluation import evaluate_policy

    return float(evaluate_policy(policy, envs, n_eval_episodes=episodes, deterministic=True, warn=False)[0])


def timed(learn, steps):
    """Seconds and rate of `learn`."""
    begun = time.perf_counter()
    learn()
    seconds = time.perf_counter() - begun
    return {"steps": steps, "seconds": seconds, "rate": steps / seconds}


def ppo(arguments):
    """Stable-Baselines3's PPO on CartPole-v1; its defaults but for rollouts of 256 steps and eight environments."""
    torch()
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    envs = make_vec_env("CartPole-v1", n_envs=8, seed=arguments.seed)
    learner = PPO("MlpPolicy", envs, n_steps=256, seed=arguments.seed, device="cpu")
    never = 1 << 30  # log_interval: nothing is printed anyway, and so nothing is put together for it
    learner.learn(arguments.warm, log_interval=never)
    measured = timed(
        lambda: learner.learn(arguments.steps, log_interval=never, reset_num_timesteps=False), arguments.steps
    )
    checks = {
        "parameters": parameters(learner.policy),
        "updates": adam_steps(learner.policy.optimizer),
        "steps": learner.num_timesteps,
        "return": episode_return(learner, make_vec_env("CartPole-v1", n_envs=8, seed=1000 + arguments.seed)),
    }
    return measured | {"checks": checks, "versions": versions("stable-baselines3", "gymnasium", "torch", "numpy")}


def demonstrations(path):
    """The episodes of a file that `imago record` wrote, as imitation's trajectories."""
    from imitation.data.types import Trajectory

    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()

    def array(name):
        entry = header[name]
        first, last = entry["data_offsets"]
        dtype = {"F32": np.float32, "I64": np.int64}[entry["dtype"]]
        return np.frombuffer(data[first:last], dtype).reshape(entry["shape"])

    observations, actions, finals = array("observation"), array("action"), array("final_observation")
    lengths = [episode["pairs"] for episode in json.loads(header["__metadata__"]["episodes"])]
    ends = np.cumsum(lengths)
    assert ends[-1] == len(actions), "a demonstration file whose parts do not agree"
    return [
        Trajectory(
            obs=np.concatenate([observations[end - length : end], finals[i : i + 1]]),
            acts=actions[end - length : end],
            infos=None,
            terminal=True,
        )
        for i, (length, end) in enumerate(zip(lengths, ends))
    ]


def by_ppo(envs, seed):
    """The learner of imitation's first example."""
    from stable_baselines3 import PPO

    return PPO(
        "MlpPolicy",
        envs,
        batch_size=64,
        ent_coef=0.0,
        learning_rate=4e-4,
        gamma=0.95,
        n_epochs=5,
        seed=seed,
        device="cpu",
    )


def by_trpo(envs, seed):
    """A step of the policy by ten conjugate gradients over the whole rollout, ten of the value function by Adam."""
    from sb3_contrib import TRPO

    return TRPO(
        "MlpPolicy",
        envs,
        batch_size=16_384,
        n_critic_updates=10,
        cg_max_steps=10,
        gamma=0.95,
        seed=seed,
        device="cpu",
    )


def gail_trainer(arguments, learner_of=by_ppo):
    """GAIL as in imitation's first example. Its RolloutInfoWrapper is left out: training does not need it."""
    torch()
    logging.disable(logging.WARNING)
    from imitation.algorithms.adversarial.gail import GAIL
    from imitation.rewards.reward_nets import BasicRewardNet
    from imitation.util import logger
    from imitation.util.networks import RunningNorm
    from imitation.util.util import make_vec_env

    def make(seed):
        return make_vec_env("seals:seals/CartPole-v0", rng=np.random.default_rng(seed), n_envs=8)

    envs = make(arguments.seed)
    learner = learner_of(envs, arguments.seed)
    trainer = GAIL(
        demonstrations=demonstrations(arguments.demos),
        demo_batch_size=1024,
        gen_replay_buffer_capacity=512,
        n_disc_updates_per_round=8,
        venv=envs,
        gen_algo=learner,
        reward_net=BasicRewardNet(
            envs.observation_space, envs.action_space, normalize_input_layer=RunningNorm
        ),
        custom_logger=logger.configure(tempfile.mkdtemp(), format_strs=[]),
    )
    return trainer, make(1000 + arguments.seed)


def gail_checks(trainer):
    return {
        "parameters": parameters(trainer.gen_algo.policy),
        "updates": adam_steps(trainer.gen_algo.policy.optimizer),  # TRPO: of the value function alone
        "discriminator_parameters": parameters(trainer._reward_net),
        "discriminator_updates": adam_steps(trainer._disc_opt),
        "steps": trainer.gen_algo.num_timesteps,
    }


GAIL_VERSIONS = ("imitation", "stable-baselines3", "seals", "gymnasium", "torch", "numpy")


def gail(arguments):
    """Speed of imitation's GAIL on seals/CartPole-v0."""
    trainer, evaluation = gail_trainer(arguments)
    trainer.train(arguments.warm)
    measured = timed(lambda: trainer.train(arguments.steps), arguments.steps)
    checks = gail_checks(trainer) | {"return": episode_return(trainer.policy, evaluation)}
    return measured | {"checks": checks, "versions": versions(*GAIL_VERSIONS)}


def gail_trpo(arguments):
    """Speed of imitation's GAIL with sb3-contrib's TRPO."""
    trainer, evaluation = gail_trainer(arguments, by_trpo)
    trainer.train(arguments.warm)
    measured = timed(lambda: trainer.train(arguments.steps), arguments.steps)
    checks = gail_checks(trainer) | {"return": episode_return(trainer.policy, evaluation)}
    return measured | {"checks": checks, "versions": versions(*GAIL_VERSIONS, "sb3-contrib")}


class Held(Exception):
    """Two evaluations in a row were good enough."""


def hold(arguments):
    """imitation's GAIL until its return holds: evaluated after every round, evaluations not timed."""
    trainer, evaluation = gail_trainer(arguments)
    curve, evaluating = [], 0.0
    begun = time.perf_counter()

    def after_round(_):
        nonlocal evaluating
        stopped = time.perf_counter()
        value = episode_return(trainer.policy, evaluation)
        curve.append((trainer.gen_algo.num_timesteps, stopped - begun - evaluating, value))
        evaluating += time.perf_counter() - stopped
        print(f"{curve[-1][0]} steps, {curve[-1][1]:.1f} s: return {value:.1f}", file=sys.stderr)
        if len(curve) > 1 and min(curve[-1][2], curve[-2][2]) >= arguments.target:
            raise Held

    try:
        trainer.train(arguments.steps, callback=after_round)
    except Held:
        pass
    checks = gail_checks(trainer) | {"return": curve[-1][2]}
    return {"curve": curve, "checks": checks, "versions": versions(*GAIL_VERSIONS)}


def pixel_policy(torch):
    """The torso of the recipe as a features extractor; nothing between it and the heads."""
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class Torso(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, 256)
            layers, channels = [], observation_space.shape[0]
            for _ in range(4):
                layers += [torch.nn.Conv2d(channels, 32, 3, 2, 1), torch.nn.ELU()]
                channels = 32
            layers += [torch.nn.Flatten(), torch.nn.Linear(32 * 3 * 3, 256), torch.nn.ELU()]
            self.layers = torch.nn.Sequential(*layers)

        def forward(self, observation):
            return self.layers(observation)

    return {"features_extractor_class": Torso, "net_arch": []}


def frame_pool(path, count, seed):
    """The same environment as frame_pool.rs, eight in one, so that Python's loop over environments costs nothing."""
    from gymnasium import spaces
    from stable_baselines3.common.vec_env import VecEnv

    class FramePool(VecEnv):
        def __init__(self):
            self.frames = np.load(path)
            self.random = np.random.default_rng(seed)
            box = spaces.Box(0, 255, self.frames.shape[1:], np.uint8)
            super().__init__(count, box, spaces.Discrete(4))

        def reset(self):
            self.steps = 0
            self.index = self.random.integers(len(self.frames), size=self.num_envs)
            return self.frames[self.index]

        def step_async(self, actions):
            self.actions = actions

        def step_wait(self):
            reward = (self.actions == self.index % 4).astype(np.float32)
            self.index = (self.index + 1) % len(self.frames)
            self.steps += 1
            observations = self.frames[self.index]
            infos = [{} for _ in range(self.num_envs)]
            over = self.steps == 525
            if over:
                for info, last in zip(infos, observations):
                    info.update({"terminal_observation": last, "TimeLimit.truncated": True})
                observations = self.reset()
            return observations, reward, np.full(self.num_envs, over), infos

        def close(self):
            pass

        def get_attr(self, name, indices=None):
            return [getattr(self, name)] * self.num_envs

        def set_attr(self, name, value, indices=None):
            raise NotImplementedError

        def env_method(self, name, *arguments, indices=None, **keywords):
            raise NotImplementedError

        def env_is_wrapped(self, wrapper, indices=None):
            return [False] * self.num_envs

    return FramePool()


def pixels(arguments):
    """Stable-Baselines3's PPO on frames from a pool."""
    module = torch()
    from stable_baselines3 import PPO

    learner = PPO(
        "CnnPolicy",
        frame_pool(arguments.frames, 8, arguments.seed),
        n_steps=128,
        batch_size=256,
        n_epochs=4,
        policy_kwargs=pixel_policy(module),
        seed=arguments.seed,
        device="cpu",
    )
    never = 1 << 30
    learner.learn(arguments.warm, log_interval=never)
    measured = timed(
        lambda: learner.learn(arguments.steps, log_interval=never, reset_num_timesteps=False), arguments.steps
    )
    checks = {
        "parameters": parameters(learner.policy),
        "updates": adam_steps(learner.policy.optimizer),
        "steps": learner.num_timesteps,
        "return": episode_return(learner, frame_pool(arguments.frames, 4, 1000 + arguments.seed), 4),
    }
    return measured | {"checks": checks, "versions": versions("stable-baselines3", "gymnasium", "torch", "numpy")}


def icm(arguments):
    """The same with rllte's intrinsic curiosity module, put under it as RLeXplore shows for Stable-Baselines3: a
    callback scores each rollout and adds the bonus to advantages and returns."""
    module = torch()
    from rllte.xplore.reward import ICM
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback

    pool = frame_pool(arguments.frames, 8, arguments.seed)
    reward = ICM(pool, latent_dim=256, encoder_model="espeholt", lr=1e-3, batch_size=256)

    class Curious(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            buffer = self.model.rollout_buffer
            seen = module.as_tensor(buffer.observations)
            followed = module.cat([seen[1:], module.as_tensor(self.locals["new_obs"]).unsqueeze(0)])
            begun = module.as_tensor(buffer.episode_starts)
            bonus = reward.compute(
                {
                    "observations": seen,
                    "actions": module.as_tensor(buffer.actions),
                    "rewards": module.as_tensor(buffer.rewards),
                    "terminateds": begun,
                    "truncateds": begun,
                    "next_observations": followed,
                },
                sync=True,
            ).numpy()
            buffer.advantages += bonus
            buffer.returns += bonus

    learner = PPO(
        "CnnPolicy",
        pool,
        n_steps=128,
        batch_size=256,
        n_epochs=4,
        policy_kwargs=pixel_policy(module),
        seed=arguments.seed,
        device="cpu",
    )
    never, curious = 1 << 30, Curious()
    learner.learn(arguments.warm, callback=curious, log_interval=never)
    measured = timed(
        lambda: learner.learn(arguments.steps, callback=curious, log_interval=never, reset_num_timesteps=False),
        arguments.steps,
    )
    checks = {
        "parameters": parameters(learner.policy),
        "updates": adam_steps(learner.policy.optimizer),
        "curiosity_parameters": sum(parameters(part) for part in (reward.encoder, reward.im, reward.fm)),
        "curiosity_updates": adam_steps(reward.encoder_opt),
        "steps": learner.num_timesteps,
        "return": episode_return(learner, frame_pool(arguments.frames, 4, 1000 + arguments.seed), 4),
    }
    packages = ("rllte-core", "stable-baselines3", "gymnasium", "torch", "numpy")
    return measured | {"checks": checks, "versions": versions(*packages)}


def env(arguments):
    """Gymnasium's CartPole with actions drawn before, in the three ways that its users step it."""
    import gymnasium

    draw = np.random.default_rng(arguments.seed)
    if arguments.how in ("make", "make_unchecked"):
        cartpole = gymnasium.make("CartPole-v1", disable_env_checker=arguments.how == "make_unchecked")
        actions = draw.integers(2, size=1 << 16).tolist()
        cartpole.reset(seed=arguments.seed)

        def run(steps):
            ended = 0
            for i in range(steps):
                _, _, terminated, truncated, _ = cartpole.step(actions[i & 0xFFFF])
                if terminated or truncated:
                    cartpole.reset()
                    ended += 1
            return steps, ended

    else:
        if arguments.how == "sync":
            from gymnasium.vector import SyncVectorEnv

            one = functools.partial(gymnasium.make, "CartPole-v1")
            group = SyncVectorEnv([one] * 64)
        else:
            from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv

            group = CartPoleVectorEnv(num_envs=64)
        actions = draw.integers(2, size=(1024, 64))
        group.reset(seed=arguments.seed)

        def run(steps):
            ended, rows = 0, -(-steps // 64)
            for i in range(rows):
                _, _, terminated, truncated, _ = group.step(actions[i & 1023])
                ended += int(np.count_nonzero(terminated | truncated))
            return rows * 64, ended

    run(arguments.warm)
    begun = time.perf_counter()
    steps, ended = run(arguments.steps)
    seconds = time.perf_counter() - begun
    return {
        "steps": steps,
        "seconds": seconds,
        "rate": steps / seconds,
        "checks": {"episode_length": steps / max(ended, 1)},
        "versions": versions("gymnasium", "numpy"),
    }


def asynchronous(arguments):
    """Gymnasium's AsyncVectorEnv, a process for each environment, with actions drawn before."""
    import gymnasium
    from gymnasium.vector import AsyncVectorEnv

    def make():
        if arguments.module:
            importlib.import_module(arguments.module)
        env = gymnasium.make(arguments.env, **json.loads(arguments.args))
        if arguments.module == "minigrid":
            # Without the mission's text, which cannot lie in the memory that its processes share.
            env = importlib.import_module("minigrid.wrappers").ImgObsWrapper(env)
        return env

    group = AsyncVectorEnv([make] * arguments.envs)
    group.action_space.seed(arguments.seed)
    actions = [group.action_space.sample() for _ in range(1024)]
    group.reset(seed=arguments.seed)

    def run(steps):
        for i in range(-(-steps // arguments.envs)):
            group.step(actions[i & 1023])

    run(arguments.steps // 10)
    measured = timed(lambda: run(arguments.steps), arguments.steps)
    group.close()
    return measured | {"checks": {"envs": arguments.envs}, "versions": versions("gymnasium", "numpy")}


def picture(arguments):
    """Pictures of Super Mario Bros. as Pathak et al. 2017 crop them, in grey, 42×42 by the mean of areas."""
    # As in picture.rs.
    index, y, x, colour = np.ogrid[0:16, 0:240, 0:256, 0:3]
    pool = ((x * y // 7 + 3 * x + 31 * index + 85 * colour) % 256).astype(np.uint8)

    if arguments.how == "opencv":
        import cv2

        cv2.setNumThreads(1)
        packages = ("opencv-python-headless", "numpy")

        def make(colours):
            grey = cv2.cvtColor(colours[24:-12, 8:-8], cv2.COLOR_RGB2GRAY)
            return cv2.resize(grey, (42, 42), interpolation=cv2.INTER_AREA)

    else:
        packages = ("numpy",)
        brightness = np.array([0.299, 0.587, 0.114], np.float32)

        def overlaps(long, short):
            """How much of each pixel of a long line lies in each of a short one, as a share of the latter."""
            scale = long / short
            begin, end = scale * np.arange(short)[:, None], scale * np.arange(1, short + 1)[:, None]
            inside = np.minimum(end, np.arange(1, long + 1)) - np.maximum(begin, np.arange(long))
            return (np.maximum(inside, 0) / scale).astype(np.float32)

        rows, columns = overlaps(204, 42), overlaps(240, 42).T.copy()

        def make(colours):
            grey = np.rint(colours[24:-12, 8:-8] @ brightness)
            return np.rint(rows @ grey @ columns).astype(np.uint8)

    def run(count):
        for i in range(count):
            shown = make(pool[i & 15])
        return shown

    run(arguments.warm)
    measured = timed(lambda: run(arguments.steps), arguments.steps)
    shown = np.stack([make(colours) for colours in pool])
    checks = {"pixels": shown[0].size, "brightness": round(float(shown.mean()), 1)}
    return measured | {"checks": checks, "versions": versions(*packages)}


def gan(arguments):
    """DCGAN in eager PyTorch: the networks of the row `gan`, one update of each a step, the fake batch used twice."""
    module = torch()
    nn = module.nn
    module.manual_seed(arguments.seed)

    def up(inputs, outputs):
        return nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, output_padding=1)

    def widened(inputs, outputs):
        return [up(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(True)]

    def narrowed(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 5, 2, 2), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, True)]

    generator = nn.Sequential(
        *(nn.Linear(100, 512 * 16), nn.Unflatten(1, (512, 4, 4)), nn.BatchNorm2d(512), nn.ReLU(True)),
        *(*widened(512, 256), *widened(256, 128), *widened(128, 64), up(64, 3), nn.Tanh()),
    )
    discriminator = nn.Sequential(
        *(nn.Conv2d(3, 64, 5, 2, 2), nn.LeakyReLU(0.2, True)),
        *(*narrowed(64, 128), *narrowed(128, 256), *narrowed(256, 512), nn.Flatten(), nn.Linear(512 * 16, 1)),
    )
    images = module.rand(256, 3, 64, 64) * 2 - 1
    channels_last = arguments.how == "bf16"  # as it is fastest: in 32 bits it makes no difference
    if channels_last:
        for network in (generator, discriminator):
            network.to(memory_format=module.channels_last)
        images = images.contiguous(memory_format=module.channels_last)
    adams = [module.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999)) for n in (generator, discriminator)]
    loss = nn.BCEWithLogitsLoss()
    one, zero = module.ones(64, 1), module.zeros(64, 1)

    def step():
        with module.autocast("cpu", module.bfloat16, enabled=arguments.how == "bf16"):
            real = images[module.randint(len(images), (64,))]
            fake = generator(module.rand(64, 100) * 2 - 1)
            adams[1].zero_grad()
            (loss(discriminator(real).float(), one) + loss(discriminator(fake.detach()).float(), zero)).backward()
            adams[1].step()
            # No gradient of the discriminator's weights is computed for the generator's update.
            for parameter in discriminator.parameters():
                parameter.requires_grad_(False)
            adams[0].zero_grad()
            loss(discriminator(fake).float(), one).backward()
            adams[0].step()
            for parameter in discriminator.parameters():
                parameter.requires_grad_(True)

    def run(count):
        for _ in range(count):
            step()

    run(arguments.warm)
    measured = timed(lambda: run(arguments.steps), 64 * arguments.steps)
    checks = {
        "generator_parameters": parameters(generator),
        "discriminator_parameters": parameters(discriminator),
    }
    return measured | {"checks": checks, "versions": versions("torch", "numpy")}


def main():
    workloads = {f.__name__: f for f in (ppo, gail, gail_trpo, hold, gan, env, asynchronous, pixels, icm, picture)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=workloads)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warm", type=int, default=0, help="steps before the clock starts")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--demos", help="a file that `imago record` wrote")
    parser.add_argument("--target", type=float, help="the return to hold")
    parser.add_argument("--frames", help="an .npy file, bytes [frames, 4, 42, 42]")
    parser.add_argument("--env", help="a Gymnasium id")
    parser.add_argument("--envs", type=int, help="how many of it")
    parser.add_argument("--module", help="what registers it")
    parser.add_argument("--args", default="{}", help="its arguments, as JSON")
    parser.add_argument("--how", choices=("make", "make_unchecked", "sync", "vector", "opencv", "numpy", "f32", "bf16"))
    arguments = parser.parse_args()
    result = workloads[arguments.workload](arguments)
    print(json.dumps(result | {"affinity": sorted(os.sched_getaffinity(0))}))


if __name__ == "__main__":
    main()
