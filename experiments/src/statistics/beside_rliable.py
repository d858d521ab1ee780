"""Prints the constants of tests.rs: what rliable 1.2.0 makes of the same scores.

pip install rliable==1.2.0 into an environment of its own, then: python beside_rliable.py
"""

import numpy as np
from rliable import library, metrics

REPEATS = 50  # intervals of 2,000 resamples each: their mean and spread


def numbers(count, first):
    """Numbers without a pattern that Rust can make too: a linear congruential generator modulo 2^31."""
    out, x = [], first
    for _ in range(count):
        x = (1103515245 * x + 12345) % 2**31
        out.append(x / 2**31)
    return out


def scores(runs, tasks, first):
    return np.array(numbers(runs * tasks, first)).reshape(runs, tasks) * 1.4


def main():
    points = {
        "iqm": metrics.aggregate_iqm,
        "mean": metrics.aggregate_mean,
        "median": metrics.aggregate_median,
        "gap": metrics.aggregate_optimality_gap,
    }
    for runs, tasks in [(1, 1), (3, 1), (5, 1), (8, 1), (7, 3), (10, 6)]:
        values = [function(scores(runs, tasks, 1)) for function in points.values()]
        print(f"({runs}, {tasks}, [{', '.join(repr(float(x)) for x in values)}]),")

    print("probability of improvement")
    for runs_x, runs_y, tasks in [(5, 5, 1), (4, 7, 3), (10, 10, 6)]:
        # Rounded, so that there are ties.
        x, y = np.round(scores(runs_x, tasks, 1), 1), np.round(scores(runs_y, tasks, 2), 1)
        print(f"({runs_x}, {runs_y}, {tasks}, {float(metrics.probability_of_improvement(x, y))!r}),")

    print("intervals: mean and standard deviation of both ends over repeats")
    for runs, tasks in [(5, 1), (7, 3), (10, 6)]:
        for name, function in points.items():
            ends = []
            for seed in range(REPEATS):
                _, interval = library.get_interval_estimates(
                    {"x": scores(runs, tasks, 1)},
                    lambda x: np.array([function(x)]),
                    reps=2000,
                    random_state=np.random.RandomState(seed),
                )
                ends.append(interval["x"][:, 0])
            ends = np.array(ends)
            print(f'({runs}, {tasks}, "{name}", {ends.mean(0).tolist()}, {ends.std(0).tolist()}),')
    ends = []
    for seed in range(REPEATS):
        pair = np.round(scores(4, 3, 1), 1), np.round(scores(7, 3, 2), 1)
        _, interval = library.get_interval_estimates(
            {"x,y": pair},
            metrics.probability_of_improvement,
            reps=2000,
            random_state=np.random.RandomState(seed),
        )
        ends.append(np.ravel(interval["x,y"]))
    ends = np.array(ends)
    print(f'(4, 7, 3, "improvement", {ends.mean(0).tolist()}, {ends.std(0).tolist()}),')


main()
