"""Your own reward signal in Python. A recipe asks for it with

    [signal.upright]
    kind = "python"
    path = "experiments/examples"
    target = "upright:Upright"
    args = { steepness = 10.0 }

and it is called once a rollout, with NumPy arrays of T steps of N environments: `observation`, `next_observation` (what
truly followed, also where an episode ended) and `action`, `[T, N, …]`; `reward`, `terminated`, `truncated` and `valid`,
`[T, N]`. Arrays are yours to keep or change. Of the methods only `reward` must be there.
"""

import json

import numpy as np


class Upright:
    """Pays for a pole that stands straighter than it has been standing so far."""

    def __init__(self, steepness=10.0):
        self.steepness = steepness
        self.usual = 0.1  # radians

    def reward(self, rollout):
        """A number for each step of each environment, `[T, N]`."""
        angle = np.abs(rollout["next_observation"][..., 2])
        return np.tanh(self.steepness * (self.usual - angle))

    def update(self, rollout):
        """Learns from the rollout, after the policy has. What is returned is logged under the signal's name."""
        angle = np.abs(rollout["next_observation"][..., 2])[rollout["valid"]]
        self.usual += 0.1 * (float(angle.mean()) - self.usual)
        return {"usual_angle": self.usual}

    def get_state(self):
        """Bytes for a checkpoint: with them a run that stopped goes on as if it had not."""
        return json.dumps(self.usual).encode()

    def set_state(self, state):
        self.usual = json.loads(state)
