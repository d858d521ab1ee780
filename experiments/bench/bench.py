"""`make bench`: the speed of Imago beside that of its Python peers, on one core, with matched work.

Every measurement is a fresh process pinned to its core(s); the lines of a row take turns, round after round. Results
are kept in one JSON file for each row as they come, so that what was interrupted or failed goes on where it stopped;
a new build of the program, other settings or --fresh begin anew. README.md says what is matched.
"""

import argparse
import datetime
import hashlib
import json
import math
import os
import platform
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import venv
from collections import namedtuple
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORK = TARGET / "bench"
PEERS = ROOT / ".venv-bench"
# Gymnasium's latest, which the program itself uses; imitation needs an older one.
NEWEST = ROOT / ".venv"

MEGABYTES = 5_600  # of .venv-bench, measured; pip unpacks in the same place
PATIENCE = 3_600  # seconds; longer than any one process takes
TARGET_RETURN = 475
EVALUATE_EVERY = 16_384

# One thread for whoever asks the environment.
ENVIRONMENT = os.environ | {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


class Failed(Exception):
    """A measurement that gave no result, and why."""


def say(text):
    print(text, file=sys.stderr, flush=True)


# ---- set-up ---------------------------------------------------------------------------------------------------


def make_peers():
    """Makes .venv-bench from the pinned requirements, unless it is there."""
    lists = [HERE / "requirements.txt", HERE / "requirements-rllte.txt"]
    wanted = "".join(path.read_text() for path in lists)
    stamp = PEERS / ".ready"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    free = shutil.disk_usage(ROOT).free // 10**6
    if free < MEGABYTES * 1.2:
        sys.exit(f"bench: .venv-bench needs {MEGABYTES} MB of disk, and {free} MB are free")
    say(f"Making .venv-bench: {MEGABYTES / 1000:.1f} GB on disk, mostly PyTorch's full wheels; a few minutes.")
    stamp.unlink(missing_ok=True)
    venv.EnvBuilder(clear=True, with_pip=True).create(PEERS)
    pip = [PEERS / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    unpacked = PEERS / "tmp"  # on the disk that was checked, not in a small /tmp
    unpacked.mkdir()
    environment = os.environ | {"TMPDIR": str(unpacked), "PIP_USER": "0"}
    commands = [[*pip, "-r", lists[0]], [*pip, "--no-deps", "-r", lists[1]]]
    done = all(subprocess.run(command, env=environment).returncode == 0 for command in commands)
    shutil.rmtree(unpacked, ignore_errors=True)
    if not done:
        sys.exit("bench: pip failed (its own words are above); the next call begins anew")
    stamp.write_text(wanted)


def machine():
    facts = dict(
        re.findall(r"^(model name|flags)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    )
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "processor": facts.get("model name", platform.processor()),
        "instructions": [flag for flag in known if flag in facts.get("flags", "").split()],
        "cores": os.cpu_count(),
        "memory_gigabytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
    }


def commit():
    """Which source was measured, with a + where it was changed since. What this program writes is not source."""

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    ours = ":(exclude)experiments/bench"
    head, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain", "-uno", "--", ".", ours)
    return head and head + ("+" if changed else "")


def digest(paths):
    """Short checksum of some files."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]


# ---- one process ----------------------------------------------------------------------------------------------

IMAGO = TARGET / "release/imago"
FRAME_POOL = TARGET / "release/examples/bench_frame_pool"
PICTURE = TARGET / "release/examples/bench_picture"
GAN = TARGET / "release/examples/bench_gan"
VEC_ENV = TARGET / "release/examples/bench_vec_env"
WORKERS = TARGET / "release/examples/bench_workers"


def run(command, cores):
    """Runs `command` on `cores` alone. Its stdout, and how much of a core it had: where one thread has less than one,
    the machine had other work."""
    command = [str(part) for part in command]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), datetime.datetime.now()
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except BaseException as error:
        process.kill()
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Failed(f"not done after {PATIENCE} s: {' '.join(command)}") from None
        raise
    if process.returncode != 0:
        raise Failed(f"exit code {process.returncode}: {' '.join(command)}\n{err.strip()[-1500:]}")
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), (datetime.datetime.now() - begun).total_seconds()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return out, round(used / seconds, 3)


def last_json(text):
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"no result in: {text[-500:]!r}") from None


def peer(workload, cores, seed, *arguments, python=PEERS):
    out, share = run([python / "bin/python", HERE / "peers.py", workload, "--seed", seed, *arguments], cores)
    result = last_json(out)
    if result.pop("affinity") != sorted(cores):
        raise Failed(f"it was not pinned to {cores}")
    return result | {"core_share": share}


# ---- our side of training -------------------------------------------------------------------------------------


def safetensors(path):
    """Header of a checkpoint, and a function that gives the bytes of one of its tensors."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])

    def tensor(name):
        first, last = header[name]["data_offsets"]
        return data[8 + length + first : 8 + length + last]

    return header, tensor


def trained_parameters(tensor, scope):
    """How many parameters the optimiser moves: those whose first moment is not zero, as that of the flat buffer's gaps
    is, and that of units of a relu network which never fire."""
    moments = memoryview(tensor(f"train/{scope}adam/first_moment")).cast("f")
    return sum(moment != 0 for moment in moments)


def train(name, recipe, cores, seed, *arguments, binary=None):
    """A run of the program itself. Its directory's metrics, line by line, and what it has to show for it."""
    folder = WORK / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    threads = 0 if len(cores) == 1 else len(cores)
    command = [binary or IMAGO, "train", recipe, "--seed", seed, "--threads", threads, *arguments]
    out, share = run([*command, "--quiet", "--json", "--run-dir", folder], cores)
    summary = last_json(out)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    header, tensor = safetensors(max((folder / "checkpoints").glob("*.safetensors")))
    metadata = header["__metadata__"]
    checks = {"steps": summary["step"], "return": summary["returns"]["deterministic_mean"]}
    if "train/adam/step" in metadata:  # TRPO's policy is moved by no optimiser
        checks |= {"parameters": trained_parameters(tensor, ""), "updates": int(metadata["train/adam/step"])}
    discriminator = "signals/gail/signal/discriminator/"
    if f"train/{discriminator}adam/step" in metadata:
        checks["discriminator_parameters"] = trained_parameters(tensor, discriminator)
        checks["discriminator_updates"] = int(metadata[f"train/{discriminator}adam/step"])
    curiosity = "signals/curiosity/signal/"
    if f"train/{curiosity}adam/step" in metadata:
        checks["curiosity_parameters"] = trained_parameters(tensor, curiosity)
        checks["curiosity_updates"] = int(metadata[f"train/{curiosity}adam/step"])
    return lines, {"checks": checks, "core_share": share}


def rate(lines, warm, steps):
    """Steps a second between the log's lines after `warm` steps and after `steps` more: whole iterations, with all
    that the program does in them, its own logging included."""
    times = {line["step"]: line["time"] for line in lines}
    seconds = times[warm + steps] - times[warm]
    return {"steps": steps, "seconds": seconds, "rate": steps / seconds}


def training_rate(recipe, warm, steps, *arguments, binary=None):
    """A line of ours that measures speed. The last iteration, whose time contains the evaluation, is left out."""

    def measure(row, line, cores, seed):
        more = [part() if callable(part) else part for part in arguments]
        lines, result = train(f"{row}-{line}", HERE / recipe, cores, seed, *more, binary=binary)
        return rate(lines, warm, steps) | result

    return measure


def held(curve):
    """When the first evaluation at or above the target was made whose next one is there too. Whoever never gets there
    has not failed to be measured: it counts as slower than anything."""
    for (step, seconds, value), (_, _, following) in zip(curve, curve[1:]):
        if min(value, following) >= TARGET_RETURN:
            return {"curve": curve, "held": True, "steps": step, "seconds": seconds}
    return {"curve": curve, "held": False}


def hold_ours(row, line, cores, seed):
    sets = {
        "signal.gail.demos_episodes": 60,
        "signal.gail.demos_stride": 1,
        "run.eval_every": EVALUATE_EVERY,
        "run.eval_episodes": 20,
    }
    arguments = [argument for key, value in sets.items() for argument in ("--set", f"{key}={value}")]
    lines, result = train(f"{row}-{line}", "gail/cartpole", cores, seed, "--demos", demonstrations(), *arguments)
    curve, evaluating = [], 0.0
    for entry in lines:
        if "evaluation/return_deterministic" in entry:
            evaluating += entry["time/evaluation"]
            curve.append((entry["step"], entry["time"] - evaluating, entry["evaluation/return_deterministic"]))
    return held(curve) | result


def hold_peer(row, line, cores, seed):
    result = peer("hold", cores, seed, "--demos", demonstrations(), "--target", TARGET_RETURN, "--steps", 1_000_000)
    return result | held(result["curve"])


# ---- what the workloads read ----------------------------------------------------------------------------------


def demonstrations():
    """60 episodes of our own expert in seals/CartPole-v0, which both sides imitate."""
    path = WORK / "expert.demos"
    if not path.is_file():
        say("  first, an expert and 60 episodes of it")
        train("expert", "ppo/cartpole", os.sched_getaffinity(0), 0)
        arguments = ["--env", "seals/CartPole-v0", "--episodes", 60, "--to", path, "--json"]
        out, _ = run([IMAGO, "record", WORK / "runs/expert", *arguments], os.sched_getaffinity(0))
        score = last_json(out)["score"]["return_mean"]
        if score < 499:
            path.unlink()
            raise Failed(f"the expert only reaches {score} of 500")
    return path


POOL = """
import numpy, sys
random = numpy.random.default_rng(0)
rows, columns = numpy.mgrid[0:42, 0:42]
frames = numpy.empty((1024, 4, 42, 42), numpy.uint8)
for frame in frames:
    # Walls and a floor, as a renderer would draw them: bands of brightness, edges, a little noise.
    edges = numpy.sort(random.integers(0, 42, 5))
    wall = random.integers(60, 220, 6)[numpy.searchsorted(edges, columns, side="right")]
    horizon = 21 - random.integers(3, 15, 6)[numpy.searchsorted(edges, columns, side="right")]
    picture = numpy.where(rows < horizon, 30, numpy.where(rows > 42 - horizon, 90 + 2 * rows, wall))
    for channel in range(4):
        moved = numpy.roll(picture, channel, axis=1) + random.integers(-8, 9, (42, 42))
        frame[channel] = numpy.clip(moved, 0, 255)
numpy.save(sys.argv[1], frames)
"""


def frames():
    """1,024 frames of four 42×42 pictures, always the same ones."""
    path = WORK / "frames.npy"
    if not path.is_file():
        part = path.with_suffix(".part.npy")
        run([PEERS / "bin/python", "-c", POOL, part], os.sched_getaffinity(0))
        part.rename(path)
    return path


def frames_setting():
    return f"env.args.frames={json.dumps(str(frames()))}"


# ---- the rows -------------------------------------------------------------------------------------------------

# measure: (row, line, cores, seed) → {"rate" or "seconds", "checks", "core_share", …}. cores: how many.
Line = namedtuple("Line", "label measure cores", defaults=[1])
# expected: what the checks of every line of a training row must say. lower: seconds count, not steps a second.
Row = namedtuple("Row", "title reference lines expected lower goal", defaults=[{}, False, None])


def peer_rate(workload, warm, steps, *arguments):
    """A line of a peer that measures speed."""

    def measure(row, line, cores, seed):
        more = [part() if callable(part) else part for part in arguments]
        return peer(workload, cores, seed, "--warm", warm, "--steps", steps, *more)

    return measure


def gymnasium(how, steps, python=PEERS):
    def measure(row, line, cores, seed):
        return peer("env", cores, seed, "--how", how, "--warm", 10_000, "--steps", steps, python=python)

    return measure


def picture(row, line, cores, seed):
    out, share = run([PICTURE, "--warm", 2_000, "--steps", 50_000], cores)
    return last_json(out) | {"core_share": share}


def peer_picture(how, steps):
    def measure(row, line, cores, seed):
        return peer("picture", cores, seed, "--how", how, "--warm", 200, "--steps", steps)

    return measure


def workers(env, steps, *arguments):
    """A line of ours: environments in Python behind rollout workers."""

    def measure(row, line, cores, seed):
        out, share = run([WORKERS, env, "--steps", steps, *arguments], cores)
        return last_json(out) | {"core_share": share}

    return measure


def asynchronous(env, envs, steps, *arguments):
    """Gymnasium's AsyncVectorEnv in the project's own Python, where the games are."""

    def measure(row, line, cores, seed):
        return peer("asynchronous", cores, seed, "--env", env, "--envs", envs, "--steps", steps, *arguments, python=NEWEST)

    return measure


def vec_env(row, line, cores, seed):
    out, share = run([VEC_ENV, "--threads", len(cores)], cores)
    return last_json(out) | {"core_share": share}


def bf16(row, line, cores, seed):
    """Bytes in, bfloat16 products, 32-bit master weights: only where the program has it."""
    setting = ["--set", 'policy.precision="bf16"']
    try:
        run([FRAME_POOL, "train", HERE / "pixels.toml", "--set", frames_setting(), *setting, "--dry-run"], cores)
    except Failed as failure:
        if "policy.precision" in str(failure):
            return {"not_run": "this build has no policy.precision"}
        raise
    measure = training_rate("pixels.toml", 2_048, 8_192, "--set", frames_setting, *setting, binary=FRAME_POOL)
    return measure(row, line, cores, seed)


def gan(*arguments):
    """A line of ours that trains a DCGAN."""

    def measure(row, line, cores, seed):
        out, share = run([GAN, *arguments], cores)
        return last_json(out) | {"core_share": share}

    return measure


def peer_gan(*arguments):
    def measure(row, line, cores, seed):
        return peer("gan", cores, seed, "--warm", 2, "--steps", 8, *arguments)

    return measure


PPO_WORK = (2_048, 40_960)
GAIL_WORK = (16_384, 98_304)
PIXEL_WORK = (2_048, 8_192)
# Half of the environments for each of two workers.
TWO_GROUPS = ("--set", "rollout.group_size=4")
PIXELS = ("--set", frames_setting)
# Of carpedm20's networks.
GENERATOR, DISCRIMINATOR = 5_135_363, 4_316_545

MARIO = "SuperMarioBros-1-1"
DOOM = "Doom"  # its default is MyWayHome
DOOM_ARGUMENTS = json.dumps({"frame_skip": 4, "screen_resolution": "RES_160X120", "screen_format": "GRAY8"})
FOUR = ("--envs", 4, "--workers", 4)

ROWS = {
    "ppo": Row(
        "PPO, CartPole-v1, steps/s",
        "sb3",
        {
            "imago": Line("Imago", training_rate("ppo.toml", *PPO_WORK)),
            "sb3": Line("Stable-Baselines3", peer_rate("ppo", *PPO_WORK)),
            "imago2": Line("Imago, 2 cores", training_rate("ppo.toml", *PPO_WORK, *TWO_GROUPS), 2),
        },
        # 320 gradient steps for every 2,048 steps.
        {"parameters": 9_155, "steps_per_update": 2_048 / 320},
        goal=10,
    ),
    "gail": Row(
        "GAIL, seals/CartPole-v0, steps/s",
        "imitation",
        {
            "imago": Line("Imago", training_rate("gail.toml", *GAIL_WORK, "--demos", demonstrations)),
            "imitation": Line("imitation", peer_rate("gail", *GAIL_WORK, "--demos", demonstrations)),
            "imago2": Line(
                "Imago, 2 cores", training_rate("gail.toml", *GAIL_WORK, "--demos", demonstrations, *TWO_GROUPS), 2
            ),
        },
        # 5 epochs of 256 minibatches and 8 discriminator steps for every 16,384 steps.
        {"parameters": 9_155, "steps_per_update": 16_384 / 1_280, "steps_per_discriminator_update": 16_384 / 8},
        goal=10,
    ),
    "gail_trpo": Row(
        "GAIL by TRPO, seals/CartPole-v0, steps/s",
        "imitation",
        {
            "imago": Line("Imago", training_rate("gail_trpo.toml", *GAIL_WORK, "--demos", demonstrations)),
            "imitation": Line(
                "imitation with sb3-contrib", peer_rate("gail_trpo", *GAIL_WORK, "--demos", demonstrations)
            ),
            "imago2": Line(
                "Imago, 2 cores", training_rate("gail_trpo.toml", *GAIL_WORK, "--demos", demonstrations, *TWO_GROUPS), 2
            ),
        },
        # 8 discriminator steps for every 16,384 steps.
        {"steps_per_discriminator_update": 16_384 / 8},
    ),
    "hold": Row(
        f"GAIL from 60 demonstrations, seconds until a return of {TARGET_RETURN} holds",
        "imitation",
        {
            "imago": Line("Imago, gail/cartpole", hold_ours),
            "imitation": Line("imitation, first example", hold_peer),
            "imago2": Line("Imago, gail/cartpole, 2 cores", hold_ours, 2),
        },
        {"parameters": 9_155},
        lower=True,
        goal=20,
    ),
    "env": Row(
        "CartPole-v1 alone, 64 environments, steps/s",
        "gymnasium",
        {
            "imago": Line("Imago, VecEnv", vec_env),
            "gymnasium": Line("Gymnasium 0.29.1, gym.make in a loop", gymnasium("make", 400_000)),
            "newest": Line("Gymnasium 1.4.0, gym.make in a loop", gymnasium("make", 200_000, NEWEST)),
            "unchecked": Line(
                "Gymnasium 0.29.1, the same without its checker", gymnasium("make_unchecked", 400_000)
            ),
            "sync": Line("Gymnasium 0.29.1, SyncVectorEnv of 64", gymnasium("sync", 200_000)),
            "vector": Line(
                "Gymnasium 0.29.1, CartPoleVectorEnv of 64 (NumPy)", gymnasium("vector", 2_000_000)
            ),
            "imago2": Line("Imago, VecEnv, 2 cores", vec_env, 2),
        },
        # The length of a random policy's episodes.
        {"episode_length": 22.3},
        goal=60,
    ),
    "pixels": Row(
        "PPO, 4×42×42 pixels from a pool, steps/s",
        "sb3",
        {
            "imago": Line("Imago", training_rate("pixels.toml", *PIXEL_WORK, *PIXELS, binary=FRAME_POOL)),
            "sb3": Line("Stable-Baselines3", peer_rate("pixels", *PIXEL_WORK, "--frames", frames)),
            "bf16": Line("Imago, bf16", bf16),
            "imago2": Line(
                "Imago, 2 cores",
                training_rate(
                    *("pixels.toml", *PIXEL_WORK, *PIXELS, *TWO_GROUPS, "--set", "run.learner_threads=2"),
                    binary=FRAME_POOL,
                ),
                2,
            ),
        },
        # 4 epochs of 4 minibatches for every 1,024 steps.
        {"parameters": 104_197, "steps_per_update": 1_024 / 16},
        goal=1.3,
    ),
    "icm": Row(
        "PPO and curiosity (ICM), 4×42×42 pixels from a pool, steps/s",
        "rllte",
        {
            "imago": Line("Imago", training_rate("icm.toml", *PIXEL_WORK, *PIXELS, binary=FRAME_POOL)),
            "rllte": Line("Stable-Baselines3 with rllte", peer_rate("icm", *PIXEL_WORK, "--frames", frames)),
            "imago2": Line(
                "Imago, 2 cores",
                training_rate(
                    *("icm.toml", *PIXEL_WORK, *PIXELS, *TWO_GROUPS, "--set", "run.learner_threads=2"),
                    binary=FRAME_POOL,
                ),
                2,
            ),
        },
        # One pass over 1,024 pairs in minibatches of 256.
        {
            "parameters": 104_197,
            "curiosity_parameters": 367_876,
            "steps_per_update": 1_024 / 16,
            "steps_per_curiosity_update": 256,
        },
        goal=1.3,
    ),
    "picture": Row(
        "240×256 colours cropped, grey, 42×42 by areas, pictures/s",
        "opencv",
        {
            "imago": Line("Imago", picture),
            "opencv": Line("OpenCV, cvtColor and resize", peer_picture("opencv", 10_000)),
            "numpy": Line("NumPy, matrix products", peer_picture("numpy", 5_000)),
        },
        {"pixels": 42 * 42, "brightness": 127.4},
        goal=2,
    ),
    "gan": Row(
        "DCGAN, 64×64, gf = df = 64, batches of 64, images/s",
        "eager",
        {
            "imago": Line("Imago", gan("--precision", "f32")),
            "eager": Line("PyTorch, eager", peer_gan("--how", "f32")),
            "bf16": Line("Imago, bf16", gan("--precision", "bf16")),
            "eager_bf16": Line("PyTorch, eager, bf16 by autocast", peer_gan("--how", "bf16")),
        },
        {"generator_parameters": GENERATOR, "discriminator_parameters": DISCRIMINATOR},
        goal=1.0,
    ),
    "workers_cartpole": Row(
        "gym:CartPole-v1, 2 environments in 2 processes, steps/s",
        "gymnasium",
        {
            "imago": Line("Imago, with a policy", workers("gym:CartPole-v1", 150_000), 2),
            "gymnasium": Line("Gymnasium 1.4.0, AsyncVectorEnv", asynchronous("CartPole-v1", 2, 40_000), 2),
        },
        {"envs": 2},
        goal=5,
    ),
    "workers_minigrid": Row(
        "gym:MiniGrid-DoorKey-8x8-v0, 2 environments in 2 processes, steps/s",
        "gymnasium",
        {
            "imago": Line("Imago, with a policy", workers("gym:MiniGrid-DoorKey-8x8-v0", 25_000), 2),
            "gymnasium": Line(
                "Gymnasium 1.4.0, AsyncVectorEnv",
                asynchronous("MiniGrid-DoorKey-8x8-v0", 2, 12_000, "--module", "minigrid"),
                2,
            ),
        },
        {"envs": 2},
        goal=1.4,
    ),
    "workers_doom": Row(
        "VizDoom MyWayHome, 160×120 grey, repeat 4, 4 games, decisions/s",
        "gymnasium",
        {
            "imago": Line("Imago, with a policy, 4 threads", workers(DOOM, 20_000, *FOUR, "--threads"), 2),
            "processes": Line("Imago, with a policy, 4 processes", workers(DOOM, 20_000, *FOUR), 2),
            "gymnasium": Line(
                "Gymnasium 1.4.0, AsyncVectorEnv",
                asynchronous(
                    "VizdoomMyWayHome-v1", 4, 20_000, "--module", "vizdoom.gymnasium_wrapper", "--args", DOOM_ARGUMENTS
                ),
                2,
            ),
        },
        {"envs": 4},
        goal=1.5,
    ),
    "workers_mario": Row(
        "SuperMarioBros-1-1, repeat 6, decisions/s",
        "one",
        {
            "imago": Line("Imago, 2 workers", workers(MARIO, 1_500, "--threads"), 2),
            "processes": Line("Imago, 2 worker processes", workers(MARIO, 1_500), 2),
            "one": Line("Imago, 1 worker", workers(MARIO, 1_000, "--threads", "--workers", 1), 2),
        },
        {"envs": 2},
        goal=1.6,
    ),
}


def check(row, result):
    """Fails a measurement whose side did other work than the row says."""
    checks = result.get("checks", {})
    derived = dict(checks)
    for name in ("update", "discriminator_update", "curiosity_update"):
        if checks.get(f"{name}s"):
            derived[f"steps_per_{name}"] = checks["steps"] / checks[f"{name}s"]
    for name, wanted in row.expected.items():
        found = derived.get(name)
        # Of ours those parameters are counted that have moved: of a unit that has not yet fired they have not.
        allowed = {"episode_length": 0.08, "curiosity_parameters": 1e-4}.get(name, 0) * wanted
        if found is None or abs(found - wanted) > allowed:
            raise Failed(f"not the same work: {name} is {found}, not {wanted} ({checks})")


# ---- all of it ------------------------------------------------------------------------------------------------


def read(path):
    return json.loads(path.read_text()) if path.is_file() else {}


def store(path, value):
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    part.replace(path)


def value_of(row, result):
    """What the table shows of a measurement; nothing if there is none."""
    if result.get("held") is False:
        return math.inf
    return result.get("seconds" if row.lower else "rate")


def measured(row, line, name, key, cores, seed):
    """One measurement, checked."""
    if len(cores) < line.cores:
        return {"not_run": f"this process has no {line.cores} cores"}
    result = line.measure(name, key, cores, seed)
    if "not_run" not in result:
        check(row, result)
    return result


def measure_row(name, rounds, core, to, identity, fresh):
    """Does what is missing of a row. The row's file as it then stands."""
    row, path = ROWS[name], to / f"{name}.json"
    found = read(path) if not fresh else {}
    if {key: found.get(key) for key in identity} != identity:
        if found:
            say(f"{name}: what is in {path} is of another build, machine, core or settings; beginning anew")
        found = {"row": name, **identity, "lines": {}}
    found["commit"] = commit()
    others = sorted(os.sched_getaffinity(0) - {core})
    for round in range(rounds):
        for key, line in row.lines.items():
            entry = found["lines"].setdefault(key, {"label": line.label, "cores": line.cores, "rounds": []})
            if round == len(entry["rounds"]):
                entry["rounds"].append(None)
            done = entry["rounds"][round]
            if done and "error" not in done:
                continue
            cores = {core, *others[: line.cores - 1]}
            result = {"date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
            result |= {"cores": sorted(cores), "load_before": os.getloadavg()[0]}
            try:
                result |= measured(row, line, name, key, cores, round)
            except Exception as failure:  # whatever it is, the other lines and rows are to be measured
                result["error"] = f"{type(failure).__name__}: {failure}"
            entry["rounds"][round] = result
            store(path, found)
            unit = "s" if row.lower else "steps/s"
            said = result.get("error") or result.get("not_run")
            if not said:
                said = f"{figure(value_of(row, result))} {unit}"
                said += f", {result['core_share']:.0%} of a core, checks {result['checks']}"
            say(f"{name} round {round + 1}/{rounds}, {line.label}: {said}")
    return found


def limits(to, identity, core, fresh):
    path = to / "limits.json"
    found = read(path)
    identity = {"machine": identity["machine"], "core": core, "settings": digest([HERE / "limits.py"])}
    if fresh or {key: found.get(key) for key in identity} != identity:
        say("limits: how fast this core multiplies and copies")
        out, share = run([PEERS / "bin/python", HERE / "limits.py"], {core})
        found = {**identity, "core_share": share, **last_json(out)}
        store(path, found)
    return found


def figure(value):
    if value == math.inf:
        return "never"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(results, bounds):
    """Medians, ratios and limits as Markdown."""
    out = ["| | median | rounds | against the peer | of the arithmetic limit |", "| --- | ---: | --- | ---: | --- |"]
    noisy = False
    for name, result in results.items():
        row = ROWS[name]
        lines = result["lines"]
        values = {
            key: [value_of(row, one) for one in entry["rounds"] if one and value_of(row, one)]
            for key, entry in lines.items()
        }
        base = values.get(row.reference)
        goal = f" (asked for: {row.goal}×)" if row.goal else ""
        out.append(f"| **{row.title}**{goal} | | | | |")
        for key, entry in lines.items():
            rounds = [one for one in entry["rounds"] if one]
            if not values[key]:
                why = "not run" if any("not_run" in one for one in rounds) else "failed"
                out.append(f"| {entry['label']} | {why} | | | |")
                continue
            median = statistics.median(values[key])
            mark = ""
            if entry["cores"] == 1 and any(one["core_share"] < 0.95 for one in rounds if value_of(row, one)):
                mark, noisy = " †", True
            ratio = ""
            if base and key != row.reference:
                over = (lambda a, b: b / a) if row.lower else (lambda a, b: a / b)
                pairs = [
                    over(value_of(row, one), value_of(row, other))
                    for one, other in zip(entry["rounds"], lines[row.reference]["rounds"])
                    if one and other and value_of(row, one) and value_of(row, other)
                ]
                ratio = f"**{over(median, statistics.median(base)):.1f}×**"
                if pairs:
                    ratio += f" ({min(pairs):.1f}–{max(pairs):.1f})"
            each = " / ".join(figure(value) for value in values[key])
            if len(values[key]) < len(rounds):
                each += f" ({len(rounds) - len(values[key])} failed)"
            share = limit_share(name, median, rounds, bounds) if entry["cores"] == 1 and not row.lower else ""
            out.append(f"| {entry['label']}{mark} | {figure(median)} | {each} | {ratio} | {share} |")
    if noisy:
        out.append("\n† got less than 95 % of its core in some round: the machine had other work.")
    return "\n".join(out)


def env_limit(rounds, bounds):
    """Steps a second if CartPole were its sine, its cosine and its bytes."""
    trigonometry = [one["sine_and_cosine_ns"] for one in rounds if one and "sine_and_cosine_ns" in one]
    if not trigonometry:
        return None
    memory = bounds["rows"]["env"]["memory_steps_per_second"]
    return 1 / (min(trigonometry) * 1e-9 + 1 / memory)


def limit_share(name, median, rounds, bounds):
    if name == "env":
        limit = env_limit(rounds, bounds)
        return f"{median / limit:.0%} of {figure(limit)}" if limit else ""
    found = bounds["rows"].get(name)
    if not found:
        return ""
    peak, shaped = found["peak_steps_per_second"], found["shaped_steps_per_second"]
    return f"{median / peak:.1%} of {figure(peak)} ({median / shaped:.1%} of {figure(shaped)})"


def limit_lines(bounds, results):
    """The arithmetic of each row in words."""
    out = [
        f"One core multiplies 32-bit matrices at {bounds['peak_gflops']:.0f} GFLOP/s at best and copies "
        f"{bounds['copy_gigabytes_per_second']:.0f} GB/s (read and written). Steps/s are at most:",
        "",
    ]
    for name, row in bounds["rows"].items():
        if "flop_per_step" in row:
            line = (
                f"- `{name}`: {row['flop_per_step'] / 1e6:.3f} MFLOP a step ÷ {bounds['peak_gflops']:.0f} GFLOP/s: "
                f"{figure(row['peak_steps_per_second'])}; with every product at its own shape's rate "
                f"{figure(row['shaped_steps_per_second'])}"
            )
            if "bytes_per_step" in row:
                line += (
                    f"; {row['bytes_per_step'] / 1e6:.2f} MB a step through memory alone would allow "
                    f"{figure(row['memory_steps_per_second'])}"
                )
            out.append(line)
    rounds = results.get("env", {}).get("lines", {}).get("imago", {}).get("rounds", [])
    if limit := env_limit(rounds, bounds):
        nanoseconds = min(one["sine_and_cosine_ns"] for one in rounds if one and "sine_and_cosine_ns" in one)
        out.append(
            f"- `env`: a sine and a cosine ({nanoseconds:.1f} ns) and {bounds['rows']['env']['bytes_per_step']} bytes "
            f"through memory a step: {figure(limit)}"
        )
    return "\n".join(out)


def heading(results):
    """What was measured, where and when."""
    one = next(iter(results.values()))
    dates, versions = set(), {}
    for row in results.values():
        for entry in row["lines"].values():
            for result in filter(None, entry["rounds"]):
                dates.add(result["date"][:10])
                for package, version in result.get("versions", {}).items():
                    versions.setdefault(package, set()).add(version)
    place = one["machine"]
    packages = ", ".join(f"{package} {' and '.join(sorted(found))}" for package, found in sorted(versions.items()))
    days = " to ".join(sorted({min(dates), max(dates)}))
    return (
        f"{place['processor']}, {place['cores']} cores ({', '.join(place['instructions'])}), {place['system']}. "
        f"Imago {one['commit']}. {packages}. {days}."
    )


def write_between(path, marker, text):
    """Replaces what stands between `<!-- marker -->` and `<!-- /marker -->`."""
    whole = path.read_text()
    pattern = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)", re.DOTALL)
    changed, count = pattern.subn(lambda m: f"{m[1]}{text}\n{m[2]}", whole)
    if count != 1:
        sys.exit(f"bench: {path} has not exactly one place for {marker}")
    path.write_text(changed)


def main():
    results_folder = HERE / "results"
    allowed = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help=f"which rows, of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each row, and seeds: round k has seed k - 1")
    parser.add_argument("--core", type=int, default=allowed[-1], help="the core of one-core lines")
    where = "where the JSON goes; README.md is only changed when it goes to results/"
    parser.add_argument("--to", type=Path, default=results_folder, help=where)
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    arguments = parser.parse_args()
    rows = [row for row in re.split(r"[,\s]+", arguments.rows) if row]
    if unknown := [row for row in rows if row not in ROWS]:
        parser.error(f"unknown rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if arguments.rounds < 1 or not rows:
        parser.error("nothing to measure: at least one row and one round are needed")
    if arguments.core not in allowed:
        parser.error(f"core {arguments.core} is not one of this process's: {allowed}")
    make_peers()
    arguments.to.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    settings = [HERE / "bench.py", HERE / "peers.py", *sorted(HERE.glob("requirements*.txt")), *sorted(HERE.glob("*.toml"))]
    identity = {
        "machine": machine(),
        "core": arguments.core,
        "programs": digest([IMAGO, FRAME_POOL, GAN, PICTURE, VEC_ENV, WORKERS]),
        "settings": digest(settings),
    }
    for name in rows:
        measure_row(name, arguments.rounds, arguments.core, arguments.to, identity, arguments.fresh)
    bounds = limits(arguments.to, identity, arguments.core, arguments.fresh)
    # The table shows every row that was measured with this build, in this call or before.
    results = {}
    for name in ROWS:
        found = read(arguments.to / f"{name}.json")
        if found and {key: found.get(key) for key in identity} == identity:
            results[name] = found
    text = "\n\n".join([heading(results), table(results, bounds), limit_lines(bounds, results)])
    print(text)
    if arguments.to.resolve() == results_folder:
        write_between(HERE / "README.md", "results", text)
    everything = [one for name in rows for entry in results[name]["lines"].values() for one in entry["rounds"]]
    if failed := sum("error" in (one or {}) for one in everything):
        sys.exit(f"bench: {failed} measurements failed; the reasons are in {arguments.to}; run it again to repeat them")


if __name__ == "__main__":
    # So that an end from outside, too, takes the process along that is being measured.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except Failed as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit("bench: stopped; the next call goes on from here")
