"""Super Mario Bros, any level: the game of the curiosity papers.

Read by games.rs. `gym_super_mario_bros` and its emulator `nes_py` (the extra `mario`) were written for the old gym and
for NumPy 1; what they need to run beside Gymnasium and NumPy 2 is done here.
"""

import importlib.metadata

import gymnasium
import gym_notices.notices
import numpy as np
from gymnasium.spaces import Box, Discrete

# `import gym` prints that nobody maintains it, which is known.
gym_notices.notices.notices.clear()

import nes_py.nes_env
from gym_super_mario_bros import SuperMarioBrosEnv
from nes_py._rom import ROM


# For whoever asks whether the game has changed.
__version__ = importlib.metadata.version("gym-super-mario-bros")


def in_python(property_name):
    """Sizes of the cartridge are products of bytes, which overflow as NumPy 2 multiplies them."""
    bytes_of = getattr(ROM, property_name).fget

    def size(self):
        self.raw_data, kept = self.raw_data.astype(np.int64), self.raw_data
        try:
            return int(bytes_of(self))
        finally:
            self.raw_data = kept

    setattr(ROM, property_name, property(size))


for name in ("prg_rom_size", "chr_rom_size", "prg_ram_size"):
    in_python(name)


class Ram:
    """The console's memory, read as Python's integers: sums and products of its bytes overflow in NumPy 2."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, index):
        value = self.array[index]
        return value if isinstance(index, slice) else int(value)

    def __setitem__(self, index, value):
        self.array[index] = value

    def __len__(self):
        return len(self.array)


class Console(SuperMarioBrosEnv):
    """The emulator with the game in it."""

    def _ram_buffer(self):
        return Ram(super()._ram_buffer())


# Bits of the joypad.
A, B, UP, DOWN, LEFT, RIGHT = 1, 2, 16, 32, 64, 128
# The 14 combinations of Pathak et al. 2017.
JOYPAD = (
    0, UP, DOWN,
    LEFT, LEFT | A, LEFT | B, LEFT | A | B,
    RIGHT, RIGHT | A, RIGHT | B, RIGHT | A | B,
    A, B, A | B,
)


class SuperMarioBros(gymnasium.Env):
    """One level. An episode is one life.

    Observation: the screen, [240, 256, 3] of bytes. Action: one of 14 joypad combinations: nothing, up, down, left,
    left + A, left + B, left + A + B, right, right + A, right + B, right + A + B, A, B, A + B. One step is one frame of
    1/60 s (`action_repeat` of the recipe repeats it; the paper's is 6).

    Reward: the package's, from -15 to 15: pixels to the right, less the ticks of the clock, less 25 for dying. The
    episode terminates at the flag, at death, and when the clock has run out.

    The game knows no chance: every episode begins in the same moment, whatever the seed.

    Arguments:
        world, stage: the level, 1 to 8 and 1 to 4
        rom: look of the game: "vanilla", "downsample", "pixel" or "rectangle"
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 60}
    observation_space = Box(0, 255, (240, 256, 3), np.uint8)
    action_space = Discrete(len(JOYPAD))

    # Closed, or not made for a wrong argument.
    console = None

    def __init__(self, world=1, stage=1, rom="vanilla", render_mode=None):
        self.console = Console(rom_mode=rom, target=(world, stage))
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.console.reset()
        return self._picture(), self._info()

    def step(self, action):
        _, reward, ended, _ = self.console.step(JOYPAD[action])
        return self._picture(), reward, ended, False, self._info()

    def _picture(self):
        # What the console has is a view of its own buffer, back to front.
        return np.ascontiguousarray(self.console.screen)

    def _info(self):
        console = self.console
        return {
            "x_pos": console._x_position,
            "y_pos": console._y_position,
            "life": console._life,
            "flag_get": int(console._flag_get),
            "world": console._world,
            "stage": console._stage,
            "score": console._score,
            "coins": console._coins,
            "time": console._time,
        }

    def render(self):
        return self._picture()

    def close(self):
        console, self.console = self.console, None
        if console is not None:
            console.close()

    # The emulator's memory is C++'s.
    __del__ = close


gymnasium.register("imago/SuperMarioBros-v0", SuperMarioBros)
