"""The state of an environment as bytes, without pickles: whoever reads a file must not run what is in it.

Run by python_state.rs. A state is an archive of NumPy's: arrays by name, and the rest as JSON.
"""

import io
import json
import sys

import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

# What `gymnasium.make` puts around an environment. Of others nobody knows what they remember.
KNOWN = (OrderEnforcing, PassiveEnvChecker, TimeLimit)


def layers(env):
    """The wrappers, outermost first, and the environment."""
    wrappers = []
    while env is not env.unwrapped:
        wrappers.append(env)
        env = env.env
    return wrappers, env


def is_mujoco(env):
    """Whether it is one of Gymnasium's on MuJoCo. Asks only what is imported already."""
    module = sys.modules.get("gymnasium.envs.mujoco.mujoco_env")
    return module is not None and isinstance(env, module.MujocoEnv)


def has_own(env):
    return all(callable(getattr(type(env), name, None)) for name in ("get_state", "set_state"))


def can_save(env):
    wrappers, env = layers(env)
    return all(type(wrapper) in KNOWN for wrapper in wrappers) and (is_mujoco(env) or has_own(env))


def save(env):
    wrappers, env = layers(env)
    # Steps since the reset.
    said = {"elapsed": [w._elapsed_steps if isinstance(w, TimeLimit) else None for w in wrappers]}
    arrays = {}
    if is_mujoco(env):
        mujoco(env, said, arrays)
    else:
        arrays["own"] = np.frombuffer(env.get_state(), np.uint8)
    arrays["said"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def load(env, state):
    wrappers, env = layers(env)
    arrays = dict(np.load(io.BytesIO(state), allow_pickle=False))
    said = json.loads(arrays.pop("said").tobytes())
    elapsed = said["elapsed"]
    if len(elapsed) != len(wrappers):
        raise ValueError(f"it was saved in {len(elapsed)} wrappers, not {len(wrappers)}")
    if is_mujoco(env):
        restore_mujoco(env, said, arrays)
    else:
        env.set_state(arrays["own"].tobytes())
    for wrapper, steps in zip(wrappers, elapsed):
        if isinstance(wrapper, TimeLimit):
            wrapper._elapsed_steps = steps
        elif isinstance(wrapper, OrderEnforcing):
            wrapper._has_reset = True


# ---- MuJoCo

# Attributes of an environment that make it what it is, and so are the same in any other.
MADE = {"model", "data", "mujoco_renderer", "observation_space", "action_space", "metadata", "spec", "_np_random"}


def fields(data):
    """The arrays of fixed length in a simulation's data. Some environments read what the last step left in them."""
    for name in dir(data):
        # Contacts and constraints are as many as there are at the moment.
        if not name.startswith(("_", "efc_", "contact")):
            try:
                value = getattr(data, name)
            except Exception:
                continue
            if isinstance(value, np.ndarray) and value.flags.writeable and value.size:
                yield name, value


def plain(value):
    """Whether JSON holds it exactly."""
    return value is None or isinstance(value, (bool, int, float, str))


def mujoco(env, said, arrays):
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    physics = np.empty(mujoco.mj_stateSize(env.model, kind))
    mujoco.mj_getState(env.model, env.data, physics, kind)
    arrays["physics"] = physics
    arrays.update((f"data.{name}", value) for name, value in fields(env.data))
    if env._np_random is not None:
        said["random"] = env._np_random.bit_generator.state
    for name, value in vars(env).items():
        if name in MADE:
            continue
        if plain(value):
            said.setdefault("own", {})[name] = value
        elif isinstance(value, np.ndarray) and value.dtype != object:
            arrays[f"own.{name}"] = value


def restore_mujoco(env, said, arrays):
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    if arrays["physics"].shape != (mujoco.mj_stateSize(env.model, kind),):
        raise ValueError("it was saved in another model")
    mujoco.mj_setState(env.model, env.data, arrays["physics"], kind)
    # Lists of contacts and the like, whose lengths vary, come anew; the next step makes them anew in any case.
    mujoco.mj_forward(env.model, env.data)
    here, own = dict(fields(env.data)), vars(env).keys() - MADE
    for name, value in arrays.items():
        kind, _, name = name.partition(".")
        if kind == "data" and name in here and here[name].shape == value.shape:
            here[name][...] = value
        elif kind == "own" and name in own:
            setattr(env, name, value.copy())
    for name in own & said.get("own", {}).keys():
        setattr(env, name, said["own"][name])
    if "random" in said:
        env.np_random.bit_generator.state = said["random"]
