"""What the arithmetic of each row costs at least: floating-point operations counted from the networks' shapes, over
the rate at which one core of this machine multiplies matrices. Prints JSON; bench.py calls it, pinned to its core.

Two limits for each row. `peak` takes the best rate of any matrix product measured here: nothing that multiplies in
32 bits can be faster. `shaped` adds up the products of the row, each at the rate of its own shape (thin matrices
multiply slowly), without the cost of calling the library. Not counted: tanh and exp, sampling, environments, Adam,
copies. So 100 % of a limit cannot be reached; the share of it says how much is left to gain.
"""

import json
import os
import time
from collections import Counter

import numpy as np
import torch

torch.set_num_threads(1)


def best_time(run, seconds=0.15):
    """Seconds of the fastest of many calls: what the core can do when nobody else is on it."""
    run()
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def product_rate(m, k, n):
    """FLOP/s of [m, k] × [k, n] in 32 bits, the better of libtorch's and NumPy's library. Small products are done
    many in one call, so that the call does not count."""
    batch = max(1, min(256, (1 << 19) // (m * k + k * n + m * n)))
    a, b = torch.randn(batch, m, k), torch.randn(batch, k, n)
    out = torch.empty(batch, m, n)
    seconds = best_time(lambda: torch.bmm(a, b, out=out))
    if batch == 1:
        x, y, z = a[0].numpy(), b[0].numpy(), out[0].numpy()
        seconds = min(seconds, best_time(lambda: np.matmul(x, y, out=z)))
    return 2 * batch * m * k * n / seconds


def peak_rate():
    return max(product_rate(size, size, size) for size in (256, 512, 1024))


def copy_rate():
    """Bytes/s read and written when copying what no cache holds."""
    a = np.ones(1 << 25, np.float32)
    b = np.empty_like(a)
    return 2 * a.nbytes / best_time(lambda: np.copyto(b, a), 0.5)


def forward(rows, layers):
    """The products (m, k, n) of one pass; layers are (sees the observation, positions, inputs, outputs): a linear
    layer has one position, a convolution one for each pixel it puts out."""
    return Counter((rows * p, i, o) for _, p, i, o in layers)


def backward(rows, layers):
    """Gradients of the weights of every layer, and of the inputs of all but those that see the observation."""
    weights = Counter((i, rows * p, o) for _, p, i, o in layers)
    inputs = Counter((rows * p, o, i) for first, p, i, o in layers if not first)
    return weights + inputs


def mlp(*widths):
    """The layers of a multi-layer perceptron."""
    return [(n == 0, 1, i, o) for n, (i, o) in enumerate(zip(widths, widths[1:]))]


def times(factor, products):
    return Counter({shape: factor * count for shape, count in products.items()})


def training(rows, layers):
    return forward(rows, layers) + backward(rows, layers)


# CartPole: separate policy and value networks, 9,155 parameters.
ACTOR_CRITIC = mlp(4, 64, 64, 2) + mlp(4, 64, 64, 1)
# Observation and one-hot action, 1,313 parameters.
DISCRIMINATOR = mlp(6, 32, 32, 1)
# 42 → 21 → 11 → 6 → 3, then 288 → 256, then 4 logits and 1 value; 104,197 parameters.
TORSO = [
    (True, 21 * 21, 4 * 9, 32),
    (False, 11 * 11, 32 * 9, 32),
    (False, 6 * 6, 32 * 9, 32),
    (False, 3 * 3, 32 * 9, 32),
    (False, 1, 288, 256),
    (False, 1, 256, 4),
    (False, 1, 256, 1),
]

# The products of one rollout of each row, in (m, k, n) → how many, and its environment steps.
ROWS = {
    "ppo": (2_048, times(10 * 2_048 // 64, training(64, ACTOR_CRITIC)) + times(256, forward(8, ACTOR_CRITIC))),
    "gail": (
        16_384,
        times(5 * 16_384 // 64, training(64, ACTOR_CRITIC))
        + times(2_048, forward(8, ACTOR_CRITIC))
        + times(8, training(2_048, DISCRIMINATOR))
        + forward(16_384, DISCRIMINATOR),
    ),
    "pixels": (1_024, times(4 * 1_024 // 256, training(256, TORSO)) + times(128, forward(8, TORSO))),
}

# Bytes that have to pass through memory, where caches cannot hold them, for each environment step.
# env: action read (8), observation (16), reward (4) and three flags written.
# pixels: a frame is collected (read and written), and in each of 4 epochs gathered (read, written), made f32 (read,
# written) and read by the first convolution and by its weight gradient; every activation is written, read by the
# next layer and by its own gradient, and its gradient written and read.
PIXEL_BYTES = 4 * 42 * 42
ACTIVATION_BYTES = 4 * sum(p * o for _, p, _, o in TORSO)
BYTES = {
    "env": 8 + 16 + 4 + 3,
    "pixels": 2 * PIXEL_BYTES + 4 * (3 * PIXEL_BYTES + 3 * 4 * PIXEL_BYTES + 5 * ACTIVATION_BYTES),
}


def main():
    peak, copied = peak_rate(), copy_rate()
    rates = {shape: product_rate(*shape) for _, products in ROWS.values() for shape in products}
    rows = {}
    for name, (steps, products) in ROWS.items():
        operations = sum(2 * m * k * n * count for (m, k, n), count in products.items())
        shaped = sum(2 * m * k * n * count / rates[m, k, n] for (m, k, n), count in products.items())
        rows[name] = {
            "flop_per_step": operations / steps,
            "peak_steps_per_second": peak / (operations / steps),
            "shaped_steps_per_second": steps / shaped,
        }
    for name, size in BYTES.items():
        row = rows.setdefault(name, {})
        row["bytes_per_step"] = size
        row["memory_steps_per_second"] = copied / size
    print(
        json.dumps(
            {
                "peak_gflops": peak / 1e9,
                "copy_gigabytes_per_second": copied / 1e9,
                "shapes_gflops": {"×".join(map(str, shape)): rate / 1e9 for shape, rate in rates.items()},
                "rows": rows,
                "torch": torch.__version__,
                "affinity": sorted(os.sched_getaffinity(0)),
            }
        )
    )


if __name__ == "__main__":
    main()
