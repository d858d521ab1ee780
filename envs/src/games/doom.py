"""VizDoom: the maze of the curiosity papers, every scenario of the package, and those of the user.

Read by games.rs. `vizdoom` (the extra `doom`) runs the game in a process of its own for each environment.
"""

import math
import os
import pathlib
import signal
import tempfile
import threading

import gymnasium
import numpy as np
import vizdoom
from gymnasium.spaces import Box, Discrete

# For whoever asks whether the game has changed.
__version__ = vizdoom.__version__

# What MyWayHome was played with in Pathak et al. 2017. (The cfg of today has two more buttons.)
MY_WAY_HOME = "my_way_home.cfg"
PAPER_ACTIONS = [[], ["MOVE_FORWARD"], ["TURN_RIGHT"], ["TURN_LEFT"]]

# Where MyWayHome begins. The scenario's script picks one of 17 spots (10 to 26) and an angle from 0 to 1 turns. The
# paper's own scenarios differ in this alone: spot 10 facing 0 to 0.01 turns, spot 15 facing 0.49 to 0.51. What is
# replaced in the compiled script: the pair (first spot, number of spots), and the nine bytes
# "push 0 twice, push 1.0, random".
SPOTS = (10).to_bytes(4, "little") + (17).to_bytes(4, "little")
ANGLE = bytes.fromhex("b0 00 00 03 00 00 01 00 39")
STARTS = {
    "sparse": (10, bytes.fromhex("b0 00 00 03 8f 02 00 00 39")),
    # "Push 0; random from 126 to 130; push 8; shift left; nothing": five angles from 177.2 to 182.8 degrees, of
    # standard deviation 1.99 (the paper's: 176.4 to 183.6, 2.08), since its two numbers do not fit in nine bytes.
    "very-sparse": (15, bytes.fromhex("a7 00 ae 7e 82 a7 08 4c 00")),
}

POSITION = (vizdoom.GameVariable.POSITION_X, vizdoom.GameVariable.POSITION_Y)

# Scenarios for several players crash the engine of a single one.
SEVERAL_PLAYERS = ("cig.cfg", "multi_duel.cfg")

# One engine starts at a time: see `Game.init`.
STARTING = threading.Lock()


class Game(vizdoom.DoomGame):
    """The engine, as a guest: it leaves no files behind and does not take what is meant for this program."""

    def __init__(self):
        super().__init__()
        # Its settings, which it would write into the current directory.
        self.set_doom_config_path(os.devnull)

    def init(self):
        with STARTING:
            # It makes an empty folder in the current directory.
            litter = pathlib.Path("_vizdoom").resolve()
            clean = not litter.exists()
            # Ctrl-C in a terminal reaches the engine's process, too, which would end at once. It inherits this
            # thread's mask.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            try:
                return super().init()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                if clean:
                    try:
                        litter.rmdir()
                    except OSError:
                        pass


# For the environments of the package itself (gym:Vizdoom…).
vizdoom.vizdoom.DoomGame = Game


def patched(wad, start):
    """The file of MyWayHome with another start: made once, whole or not at all."""
    spot, angle = STARTS[start]
    data = pathlib.Path(wad).read_bytes()
    if data.count(SPOTS) != 1 or data.count(ANGLE) != 1:
        raise ValueError(f"{wad} is not the my_way_home.wad of vizdoom 1.3.2: its script begins elsewhere")
    data = data.replace(SPOTS, spot.to_bytes(4, "little") + (1).to_bytes(4, "little")).replace(ANGLE, angle)
    name = f"my_way_home_{start}.wad"
    # Beside the package, or where that may not be written.
    beside = pathlib.Path(vizdoom.scenarios_path) / "imago"
    for folder in (beside, pathlib.Path(tempfile.gettempdir()) / f"imago-{os.getuid()}"):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            path = folder / name
            if not path.exists() or path.read_bytes() != data:
                with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
                    file.write(data)
                os.replace(file.name, path)
            return str(path)
        except OSError as error:
            failed = error
    raise failed


def find(name, folder, kind):
    """The file called so: a path, or in the recipe's `env.path`, or one of the package's."""
    places = [pathlib.Path(name), pathlib.Path(folder or ".") / name, pathlib.Path(vizdoom.scenarios_path) / name]
    for place in places:
        if place.is_file():
            return str(place.resolve())
    known = sorted(file.name for file in pathlib.Path(vizdoom.scenarios_path).glob(f"*.{kind}"))
    raise FileNotFoundError(f"no file {name!r}, here or among vizdoom's own: {', '.join(known)}")


def buttons(names):
    """Buttons by name, upper or lower case."""
    known = vizdoom.Button.__members__
    for name in names:
        if name.upper() not in known:
            raise ValueError(f"no button {name!r}; there are {', '.join(sorted(known))}")
    return [known[name.upper()] for name in names]


class Doom(gymnasium.Env):
    """One game.

    Observation: the screen, [height, width] of bytes in grey, or [height, width, 3] with `colour`. The engine draws
    nothing once an episode is over; the last picture of the episode stands for it.

    Action: one of `actions`, each a list of buttons that are held together for `repeat` tics of 1/35 s.

    Reward: the scenario's, summed over the tics. The episode is truncated at the scenario's timeout.

    Arguments:
        cfg: the scenario: a file, or one of vizdoom's
        wad: its map, if not the one that the cfg names
        start: where MyWayHome begins: "random", "sparse" or "very-sparse"
        actions: lists of buttons; none: nothing, and each button of the cfg by itself (in MyWayHome the four of the
            paper: nothing, forward, turn right, turn left)
        repeat: tics for which an action is held
        cells_every: tics between two looks at where the player is, for `cells` of info; none: once a decision, which
            misses what is passed in between
        max_of_two: show, pixel by pixel, the brighter of the last two frames
        noise: share of the screen's rows, from the top, that show random squares of 4 by 4 pixels in place of the game
        colour: RGB in place of grey (which is the engine's 0.21 R + 0.72 G + 0.07 B)
        resolution: "160x120" or another that the engine has
        living_reward: reward of each tic, if not the scenario's
        timeout: tics after which an episode is cut off, if not the scenario's
        skill: difficulty, 1 to 5, if not the scenario's
        map: name of the map, if not the scenario's
        folder: where files are looked for, too
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 9}
    # Closed, or not made for a wrong argument.
    game = None

    def __init__(
        self,
        cfg=MY_WAY_HOME,
        wad=None,
        start="random",
        actions=None,
        repeat=4,
        cells_every=None,
        max_of_two=False,
        noise=0.0,
        colour=False,
        resolution="160x120",
        living_reward=None,
        timeout=None,
        skill=None,
        map=None,
        folder=None,
        render_mode=None,
    ):
        if repeat < 1 or (max_of_two and repeat < 2):
            raise ValueError(f"repeat = {repeat}: expected at least 1 tic, and at least 2 with max_of_two")
        if cells_every is not None and cells_every < 1:
            raise ValueError(f"cells_every = {cells_every}: expected at least 1 tic")
        if not 0 <= noise <= 1:
            raise ValueError(f"noise = {noise}: expected a share from 0 to 1")
        game = Game()
        file = find(cfg, folder, "cfg")
        if pathlib.Path(file).name in SEVERAL_PLAYERS:
            raise ValueError(f"cfg = {cfg!r} is for several players")
        game.load_config(file)
        if wad is not None:
            game.set_doom_scenario_path(find(wad, folder, "wad"))
        if start != "random":
            if start not in STARTS:
                raise ValueError(f"start = {start!r}: expected one of random, {', '.join(STARTS)}")
            if pathlib.Path(file).name != MY_WAY_HOME or wad is not None:
                raise ValueError(f"start = {start!r} goes with cfg = {MY_WAY_HOME!r} and its own wad")
            game.set_doom_scenario_path(patched(game.get_doom_scenario_path(), start))
        if actions is None:
            own = [button.name for button in game.get_available_buttons()]
            actions = PAPER_ACTIONS if pathlib.Path(file).name == MY_WAY_HOME else [[]] + [[name] for name in own]
        if not actions or any(isinstance(action, str) for action in actions):
            raise ValueError("actions: expected lists of buttons, as in [[], ['MOVE_FORWARD'], ['TURN_LEFT', 'USE']]")
        pressed = list(dict.fromkeys(button for action in actions for button in buttons(action)))
        game.set_available_buttons(pressed)
        self.presses = [[float(button in buttons(action)) for button in pressed] for action in actions]
        modes = vizdoom.ScreenResolution.__members__
        if f"RES_{resolution.upper()}" not in modes:
            known = ", ".join(name[4:].lower() for name in modes)
            raise ValueError(f"resolution = {resolution!r}: expected one of {known}")
        game.set_screen_resolution(modes[f"RES_{resolution.upper()}"])
        game.set_screen_format(vizdoom.ScreenFormat.RGB24 if colour else vizdoom.ScreenFormat.GRAY8)
        game.set_available_game_variables([*POSITION, vizdoom.GameVariable.ANGLE])
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_mode(vizdoom.Mode.PLAYER)
        for value, change in ((living_reward, game.set_living_reward), (timeout, game.set_episode_timeout),
                              (skill, game.set_doom_skill), (map, game.set_doom_map)):
            if value is not None:
                change(value)
        self.game, self.repeat, self.max_of_two, self.render_mode = game, repeat, max_of_two, render_mode
        shape = (game.get_screen_height(), game.get_screen_width()) + ((3,) if colour else ())
        self.observation_space = Box(0, 255, shape, np.uint8)
        self.action_space = Discrete(len(actions))
        self.screen, self.info, self.cells = np.zeros(shape, np.uint8), {}, set()
        self.noisy_rows = round(noise * shape[0])
        self.cells_every = cells_every or repeat

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        # The engine's own generator, set anew for each episode.
        self.game.set_seed(int(self.np_random.integers(2**32)))
        if self.game.is_running():
            self.game.new_episode()
        else:
            self.game.init()
        self.cells = set()
        self._look()
        return self.screen, self.info

    def step(self, action):
        game, press = self.game, self.presses[action]
        if self.max_of_two:
            reward = self._advance(press, self.repeat - 1)
            before = game.get_state()
            if not game.is_episode_finished():
                reward += game.make_action(press, 1)
            self._look(before)
        else:
            reward = self._advance(press, self.repeat)
            self._look()
        ended = game.is_episode_finished()
        truncated = ended and game.is_episode_timeout_reached() and not game.is_player_dead()
        return self.screen, reward, ended and not truncated, truncated, self.info

    def _advance(self, press, tics):
        """Holds the buttons for so many tics; the reward."""
        game = self.game
        reward = game.make_action(press, min(tics, self.cells_every))
        for start in range(self.cells_every, tics, self.cells_every):
            if game.is_episode_finished():
                break
            x, y = (game.get_game_variable(position) for position in POSITION)
            self.cells.add((x // 64, y // 64))
            reward += game.make_action(press, min(tics - start, self.cells_every))
        return reward

    def _look(self, before=None):
        """Takes the picture and the place of this moment; at an end there is neither, and the last ones stay."""
        state = self.game.get_state()
        state, before = (before, None) if state is None else (state, before)
        if state is None:
            return
        x, y, angle = state.game_variables.tolist()
        # The state's arrays are copies of the engine's.
        self.screen = state.screen_buffer if before is None else np.maximum(state.screen_buffer, before.screen_buffer)
        if self.noisy_rows:
            rows, columns = -(-self.noisy_rows // 4), -(-self.screen.shape[1] // 4)
            squares = self.np_random.integers(256, size=(rows, columns) + self.screen.shape[2:], dtype=np.uint8)
            noise = squares.repeat(4, 0).repeat(4, 1)[: self.noisy_rows, : self.screen.shape[1]]
            self.screen[: self.noisy_rows] = noise
        # How many squares of 64 map units the episode has seen.
        self.cells.add((x // 64, y // 64))
        self.info = {"x": x, "y": y, "angle": angle, "cells": len(self.cells)}

    def render(self):
        return self.screen if self.screen.ndim == 3 else np.repeat(self.screen[..., None], 3, axis=2)

    def close(self):
        if self.game is not None:
            self.game.close()

    # An engine whose owner is gone would stay for ever.
    __del__ = close


gymnasium.register("imago/Doom-v0", Doom)
