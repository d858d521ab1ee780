"""What of an environment's contract only Python can see. Run by check/gymnasium.rs."""

import copy
import importlib
import pathlib
import re
import time
import warnings

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.utils.env_checker import check_env, data_equivalence

VIOLATION, WARNING = True, False
# What Gymnasium's own checker says goes under this name.
CHECKER = "gymnasium"


def spec(name):
    """What is registered as ID, or as module:ID."""
    module, _, name = name.rpartition(":")
    if module:
        importlib.import_module(module)
    return gymnasium.spec(name)


def nondeterministic(name):
    """Whether the environment declares that its episodes do not repeat."""
    return bool(spec(name).nondeterministic)


def version(name):
    """Changes when the environment's file does, or any file of the package it is in, or Gymnasium."""
    entry = spec(name).entry_point or spec(name).vector_entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    top = importlib.import_module(module.partition(".")[0])
    files = [pathlib.Path(top.__file__)] if getattr(top, "__file__", None) else []
    for folder in getattr(top, "__path__", []):
        files.extend(pathlib.Path(folder).rglob("*.py"))
    newest = max((file.stat().st_mtime_ns for file in files if file.exists()), default=0)
    return f"gymnasium {gymnasium.__version__}, {module} {getattr(top, '__version__', '')} {newest}"


def leaves(space, value, name=""):
    """The boxes in a space, with what an observation has there."""
    inner = lambda key: f"{name}/{key}" if name else str(key)
    if isinstance(space, Dict):
        for key, sub in space.spaces.items():
            yield from leaves(sub, value[key], inner(key))
    elif isinstance(space, Tuple):
        for i, (sub, part) in enumerate(zip(space.spaces, value)):
            yield from leaves(sub, part, inner(i))
    elif isinstance(space, Box):
        yield name, space, value


def mask_of(info):
    """The action mask, if the environment gives one."""
    return info.get("action_mask") if isinstance(info, dict) else None


def sample(space, info):
    """A random action that `info` allows."""
    mask = mask_of(info)
    if mask is None:
        return space.sample()
    flat = np.hstack([np.ravel(part) for part in mask]) if isinstance(mask, tuple) else np.ravel(mask)
    flat = (flat != 0).astype(np.int8)
    if isinstance(space, Discrete):
        return space.sample(mask=flat)
    if isinstance(space, MultiDiscrete):
        return space.sample(mask=tuple(np.split(flat, np.cumsum(space.nvec)[:-1])))
    if isinstance(space, MultiBinary):
        off, on = flat.reshape(-1, 2).T
        # Gymnasium's own notation: 0 and 1 are forced, 2 is free.
        return space.sample(mask=np.where(off & on, 2, on).astype(np.int8).reshape(space.shape))
    return space.sample()


def examine(env, seconds, whole):
    """Plays a little and closes. What was found: (is it a violation, rule, message)."""
    found = []
    # As returned, as it was then, by what.
    kept = []

    def see(observation, doing):
        for name, space, value in leaves(env.observation_space, observation):
            place = f"{doing}: " + (f"the field {name!r} of the observation" if name else "the observation")
            if not isinstance(value, (np.ndarray, np.generic)):
                found.append((WARNING, "type", f"{place} is a {type(value).__name__}, not an array"))
            elif value.dtype != space.dtype:
                found.append((WARNING, "type", f"{place} has type {value.dtype}, its space {space.dtype}"))
        # Enough to see a buffer that is used again; images are large.
        if len(kept) < 8:
            kept.append((observation, copy.deepcopy(observation), doing))

    until = time.monotonic() + seconds
    env.action_space.seed(0)
    observation, info = env.reset(seed=0)
    see(observation, "reset")
    for t in range(1, 1000):
        observation, reward, terminated, truncated, info = env.step(sample(env.action_space, info))
        see(observation, f"step {t}")
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            is_flag = isinstance(value, (bool, np.bool_)) or (
                isinstance(value, np.ndarray) and value.dtype == bool and value.shape == ()
            )
            if not is_flag:
                text = f"step {t}: `{name}` is {value!r} ({type(value).__name__}), not True or False: return bool(…)"
                found.append((VIOLATION, "flags", text))
        if terminated or truncated:
            observation, info = env.reset()
            see(observation, "the next reset")
        if t > 10 and time.monotonic() > until:
            break
    for observation, then, doing in kept:
        if not data_equivalence(observation, then, exact=True):
            text = (
                f"{doing}: the observation it returned was changed by a later call; return a copy (here each is "
                "copied at once, but others who keep them will see them change)"
            )
            found.append((WARNING, "aliasing", text))
            break
    # Gymnasium's checker knows nothing of masks: it would do what they forbid.
    if whole and mask_of(info) is None:
        found.extend(gymnasiums_own(env))
    for doing in ("close", "a second close"):
        try:
            env.close()
        except Exception as error:
            found.append((WARNING, "close", f"{doing} raised {type(error).__name__}: {error}"))
            break
    return found


def gymnasiums_own(env):
    """What `check_env` says about the environment without its wrappers, a line each."""
    failed = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            check_env(env.unwrapped, skip_render_check=True)
        except Exception as error:
            failed.append((VIOLATION, CHECKER, f"Gymnasium's checker: {type(error).__name__}: {line(error)}"))
    said = dict.fromkeys(line(warning.message) for warning in warned)
    return failed + [(WARNING, CHECKER, f"Gymnasium's checker: {text}") for text in said]


def line(message):
    """A message without colours and line breaks."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(message))
    return " ".join(plain.removeprefix("WARN: ").split())
