//! Episodes to look at: films, and pictures in a terminal.

use crate::program::{Place, python};
use serde_json::json;
use std::path::Path;

/// A film as a viewer reads it: size, and delay in 1/100 s and pixels of each frame.
struct Film {
    size: (u16, u16),
    frames: Vec<(u16, Vec<u8>)>,
}

fn film(path: &Path) -> Film {
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(std::fs::File::open(path).unwrap()).unwrap();
    let size = (decoder.width(), decoder.height());
    let mut frames = Vec::new();
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        assert_eq!((frame.width, frame.height), size);
        frames.push((frame.delay, frame.buffer.to_vec()));
    }
    Film { size, frames }
}

/// A place with a short run on pixels, `a`.
fn with_run() -> Place {
    let place = Place::new();
    place.ok("train ppo/rooms-dense --set rollout.envs=4 --set rollout.group_size=4 --set rollout.steps=32 \
         --set run.total_steps=256 --set run.eval_every=0 --set run.eval_episodes=1 --threads 1 \
         --run-dir runs/a --quiet");
    place
}

#[test]
fn a_run_is_filmed() {
    let place = with_run();
    let report = place.ok("watch latest --episodes 2 --to x.gif --json").json();
    let lengths: Vec<u64> =
        report["episodes"].as_array().unwrap().iter().map(|e| e["length"].as_u64().unwrap()).collect();
    // The first moment of an episode, then one picture a step.
    let film = film(&place.path("x.gif"));
    assert_eq!(film.size, (296, 120));
    assert_eq!(film.frames.len() as u64, lengths[0] + 1 + lengths[1] + 1);
    assert_eq!(
        json!([report["frames"], report["width"], report["height"]]),
        json!([film.frames.len(), 296, 120])
    );
    // 20 pictures a second; the ends stay for a second.
    for (i, (delay, _)) in film.frames.iter().enumerate() {
        let last = [lengths[0], lengths[0] + lengths[1] + 1].contains(&(i as u64));
        assert_eq!(*delay, if last { 100 } else { 5 }, "picture {i}");
    }
    let grey = |rgba: &[u8]| (rgba[0] == rgba[1]) && (rgba[1] == rgba[2]);
    let first = &film.frames[0].1;
    assert!(first.chunks_exact(4).any(|pixel| !grey(pixel)), "no colours");
    assert!(film.frames.iter().any(|(_, picture)| picture != first), "nothing moves");

    // They are the episodes that `eval` measures.
    let measured = place.ok("eval latest --episodes 2 --json").json();
    let cells = measured["metrics"]["cells"].as_f64().unwrap();
    assert!((1.0..100.0).contains(&cells) && (2.0 * cells).fract() == 0.0, "{measured}");
    let mean = |field: &str| {
        let values = report["episodes"].as_array().unwrap().iter().map(|e| e[field].as_f64().unwrap());
        values.sum::<f64>() / 2.0
    };
    assert_eq!(measured["length_mean"].as_f64().unwrap(), mean("length"));
    assert!((measured["return_mean"].as_f64().unwrap() - mean("return")).abs() < 1e-9, "{measured}");
    assert_eq!(json!([report["checkpoint"], report["deterministic"]]), json!([256, true]));

    // The same question, the same film; another rate, other delays.
    place.ok("watch latest --episodes 2 --to y.gif");
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert!(bytes("x.gif") == bytes("y.gif"), "one seed, two films");
    let said = place.ok("watch latest --to y.gif --force --fps 10 --stochastic --seed 4").stdout;
    assert!(said.contains("episode 1: return") && said.contains("y.gif: "), "{said}");
    assert_eq!(self::film(&place.path("y.gif")).frames[0].0, 10);
    place.refuses("watch latest --to x.gif", &["x.gif exists", "--force"]);
}

#[test]
fn films_that_cannot_be_made() {
    let place = Place::new();
    let random = "watch --policy random --env CartPole-v1";
    place.refuses(random, &["no terminal", "--to FILE.gif"]);
    place.refuses(&format!("{random} --to x.mp4"), &["x.mp4", ".gif"]);
    place.refuses(&format!("{random} --to none/x.gif"), &["none/x.gif", "directory"]);
    place.refuses(&format!("{random} --to x.gif --episodes 0"), &["--episodes"]);
    place.refuses("watch nothere --to x.gif", &["nothere"]);
    place.refuses("watch --policy random --env Nope --to x.gif", &["`Nope`"]);
    // Toys without pictures say so, in Gymnasium's words.
    place.write(
        "toys.py",
        "import gymnasium as gym\nclass Toy(gym.Env):\n    observation_space = action_space = gym.spaces.Discrete(2)\n    \
         def reset(self, **_): return 0, {}\n    def step(self, action): return 0, 0.0, True, False, {}\n\
         gym.register('Toy-v0', Toy)\n",
    );
    let folder = place.folder().to_path_buf();
    let place = place.with("PYTHONPATH", &folder).with("PYTHONDONTWRITEBYTECODE", Path::new("1"));
    place.refuses("watch --policy random --env gym:toys:Toy-v0 --to x.gif", &["gym:toys:Toy-v0", "render"]);
    // Other spaces than the policy's.
    place.ok("train ppo/cartpole --set run.total_steps=2048 --set run.eval_episodes=1 --run-dir a --quiet");
    place.refuses("watch a --env Rooms-v0 --to x.gif", &["observations", "[4, 42, 42]"]);
}

#[test]
fn gymnasiums_pictures_are_filmed() {
    let place = Place::new();
    place.write(
        "toys.py",
        r#"
import gymnasium as gym, numpy as np
class Lamp(gym.Env):
    metadata = {"render_modes": ["rgb_array"]}
    observation_space = action_space = gym.spaces.Discrete(2)
    def __init__(self, render_mode=None): self.render_mode = render_mode
    def reset(self, seed=None, options=None):
        self.t = 0
        return 0, {}
    def step(self, action):
        self.t += 1
        return 0, 1.0, self.t == 5, False, {}
    def render(self): return np.full((8, 10, 3), 40 * self.t, np.uint8)
gym.register("Lamp-v0", Lamp)
"#,
    );
    let folder = place.folder().to_path_buf();
    let place = place.with("PYTHONPATH", &folder);
    let said = place.ok("watch --policy random --env gym:toys:Lamp-v0 --to x.gif").stdout;
    assert!(said.starts_with("episode 1: return 5.0000 in 5 steps, ended\n"), "{said}");
    let film = film(&place.path("x.gif"));
    assert_eq!(film.size, (10, 8));
    let levels: Vec<u8> = film.frames.iter().map(|(_, picture)| picture[0]).collect();
    assert_eq!(levels, [0, 40, 80, 120, 160, 200]);
}

/// Runs the program in a terminal of 60 columns and 20 rows; sends Ctrl-C after the first pictures. Prints the exit
/// code and what the terminal received.
const IN_A_TERMINAL: &str = r#"
import fcntl, os, pty, signal, struct, sys, termios
program, interrupt = sys.argv[1], sys.argv[2] == "interrupt"
pid, terminal = pty.fork()
if pid == 0:
    os.environ.update(TERM="xterm-256color", COLORTERM="truecolor" if interrupt else "")
    fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    episode = ["--fps", "1"] if interrupt else ["--fps", "50"]
    env = "Rooms-v0" if interrupt else "CartPole-v1"
    os.execv(program, [program, "watch", "--policy", "random", "--env", env, *episode])
seen = b""
while True:
    try: part = os.read(terminal, 65536)
    except OSError: break
    if not part: break
    seen += part
    if interrupt and b"step 1" in seen:
        os.write(terminal, b"\x03")
        interrupt = False
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status))
sys.stdout.write(seen.decode())
"#;

#[test]
fn a_terminal_shows_pictures_and_is_given_back() {
    let program = Path::new(env!("CARGO_BIN_EXE_imago"));
    for (how, colour) in [("interrupt", "\x1b[38;2;"), ("to the end", "\x1b[38;5;")] {
        let said = python(IN_A_TERMINAL, &[program, Path::new(how)]);
        let (code, seen) = said.split_once('\n').unwrap();
        assert_eq!(code, "0", "{how}: {seen:?}");
        // Its own screen without a cursor at first, everything back at the end.
        assert!(seen.starts_with("\x1b[?1049h\x1b[?25l"), "{seen:?}");
        let (pictures, after) = seen.split_once("\x1b[0m\x1b[?25h\x1b[?1049l").unwrap();
        assert!(pictures.contains(colour) && pictures.contains('▀'), "{how}: {pictures:?}");
        assert!(pictures.contains("episode 1 of 1 · step 1 · return"), "{how}: {pictures:?}");
        match how {
            "interrupt" => assert_eq!(after.replace("^C", ""), ""),
            _ => assert!(after.starts_with("episode 1: return"), "{after:?}"),
        }
        // Nothing is wider than the terminal.
        let first = pictures.split("\x1b[H").nth(1).unwrap();
        let widest = first.lines().map(|line| line.matches('▀').count()).max();
        assert!((30..=60).contains(&widest.unwrap()), "{widest:?}");
        assert!(first.lines().count() <= 20);
    }
}
