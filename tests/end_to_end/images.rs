//! Image models: from a folder of images to a grid of new ones.

use crate::program::Place;
use imago::generative::grid;
use imago_envs::Frame;

/// Networks and images so small that a step takes milliseconds.
const SMALL: &str = "--set data.path=pictures --set data.size=32 --set data.held_out=4 --set learner.batch_size=8 \
                     --set learner.generator_width=4 --set learner.discriminator_width=4 --set learner.latent=8 \
                     --set run.total_steps=6 --set run.eval_every=2 --set run.log_every=1 --quiet";

/// A place with forty pictures of 40 × 48 in `pictures`, of two classes.
fn pictures() -> Place {
    let place = Place::new();
    for class in ["bright", "dark"] {
        std::fs::create_dir_all(place.path("pictures").join(class)).unwrap();
        for i in 0..20 {
            let level = if class == "bright" { 200 } else { 20 };
            let mut frame = Frame::filled(40, 48, [level, level, 5 * i as u8]);
            frame.line([5.0, 5.0], [35.0, 5.0 + i as f64], 3.0, [255, 0, 0]);
            let path = place.path("pictures").join(class).join(format!("{i}.png"));
            std::fs::write(path, grid::png(&frame).unwrap()).unwrap();
        }
    }
    place
}

#[test]
fn a_gan_trains_goes_on_to_the_bit_and_makes_images() {
    let place = pictures();
    place.ok(&format!("train dcgan/faces-modern {SMALL} --set data.label=folder --run-dir whole"));
    let train = format!("train dcgan/faces-modern {SMALL} --set data.label=folder --run-dir a");
    place.ok(&format!("{train} --stop-at 3"));
    place.ok("train a --resume --quiet");
    place.assert_same("whole", "a", 6);
    let summary = place.summary("a");
    assert_eq!((&summary["images"], &summary["images_seen"]), (&36.into(), &48.into()));
    assert!(summary["diversity"].as_f64().unwrap() > 0.0);
    assert!(place.metrics("a").iter().all(|line| line["gan/generator_loss"].is_f64()));

    let size = |file: &str| {
        let bytes = std::fs::read(place.path(file)).unwrap();
        // Width and height in a PNG's first chunk, big-endian.
        [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
    };
    let report = place.ok("generate grid a --to grid.png --count 6 --columns 3 --json").json();
    assert_eq!((&report["images"], &report["checkpoint"]), (&6.into(), &6.into()));
    assert_eq!(size("grid.png"), [3 * 32 + 2 * 2, 2 * 32 + 2]);
    place.refuses("generate grid a --to grid.png", &["grid.png exists", "--force"]);
    place.ok("generate samples a --to samples --count 3 --seed 5 --class dark");
    assert_eq!(size("samples/000007.png"), [32, 32]);
    // An image is its seed's, whatever others are made with it.
    place.ok("generate samples a --to one --count 1 --seed 7 --class dark");
    let bytes = |file: &str| std::fs::read(place.path(file)).unwrap();
    assert!(bytes("one/000007.png") == bytes("samples/000007.png"));
    place.ok("generate interpolation a --to way.gif --stops 3 --steps 4");
    assert!(bytes("way.gif").starts_with(b"GIF89a"));
    place.ok("generate interpolation a --to way.png --stops 3 --steps 4 --path linear");
    place.refuses("generate samples a --to more --class grey", &["no such class", "bright, dark"]);
    place.refuses("generate grid a --to grid.jpg", &[".png"]);
    place.refuses("watch a", &["is an image model", "imago generate"]);
}

#[test]
fn data_that_cannot_be_learnt_from_is_answered_with_one_clear_error() {
    let place = pictures();
    std::fs::create_dir(place.path("empty")).unwrap();
    let train = "train dcgan/faces --run-dir a";
    place.refuses(
        &format!("{train} --set data.path=empty"),
        &["empty", "expected a folder of images", "it is empty"],
    );
    place.refuses(&format!("{train} --set data.path=nowhere"), &["nowhere", "does not exist"]);
    place.refuses(
        &format!("{train} --set data.path=pictures --set data.held_out=0"),
        &["40 images in 2 class folders", "fewer than a batch of learner.batch_size = 64"],
    );
    place.refuses(&format!("{train} {SMALL} --set data.size=60"), &["multiple of 16", "take 64"]);
    place.refuses(&format!("{train} {SMALL} --set learner.r1=1"), &["learner.discriminator_norm"]);
    place.refuses("train ppo/cartpole --set data.path=pictures", &["image models"]);
    place.refuses("train dcgan/faces --set env.id=CartPole-v1", &["no environment"]);
    std::fs::write(place.path("pictures/dark/broken.png"), "no picture").unwrap();
    let info = place.ok("data info pictures --json").json();
    assert_eq!((&info["images"], &info["readable"]), (&41.into(), &40.into()));
    assert!(info["unreadable"][0]["file"].as_str().unwrap().ends_with("broken.png"));
    assert!(place.ok("data list").stdout.contains("faces-drawn"));
    place.refuses("data fetch faces", &["no set `faces`", "faces-drawn"]);
}
