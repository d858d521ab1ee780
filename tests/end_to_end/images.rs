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

/// As [`pictures`], but with labels: a bar that is a pair of glasses or a smile, or both, or neither.
fn faces() -> Place {
    let place = Place::new();
    let draw = |folder: &str, count: usize| {
        std::fs::create_dir_all(place.path(folder)).unwrap();
        let mut lines = String::new();
        for i in 0..count {
            let (glasses, smile) = (i % 2 == 1, i / 2 % 2 == 1);
            let mut frame = Frame::filled(32, 32, [200, 180, 5 * (i / 4 % 40) as u8]);
            frame.line([0.0, 16.0], [6.0, 16.0], 6.0, [0, 0, 0]);
            if glasses {
                frame.line([4.0, 9.0], [28.0, 9.0], 6.0, [0, 0, 0]);
            }
            if smile {
                frame.line([4.0, 25.0], [28.0, 25.0], 6.0, [255, 0, 0]);
            }
            std::fs::write(place.path(folder).join(format!("{i}.png")), grid::png(&frame).unwrap()).unwrap();
            let (mouth, glasses) =
                (["frown", "smile"][usize::from(smile)], ["none", "round"][usize::from(glasses)]);
            lines += &format!(
                "{{\"file\":\"{i}.png\",\"caption\":\"a face\",\"person\":\"{}\",\"mouth\":\"{mouth}\",\"glasses\":\"{glasses}\"}}\n",
                i / 4
            );
        }
        std::fs::write(place.path(folder).join("captions.jsonl"), lines).unwrap();
    };
    draw("pictures", 160);
    place
}

#[test]
fn faces_are_added_up_and_unknown_words_are_answered_with_the_known() {
    let place = faces();
    place.ok(&format!("train dcgan/faces-modern {SMALL} --set data.flip=true --run-dir a"));
    let size = |file: &str| {
        let bytes = std::fs::read(place.path(file)).unwrap();
        [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
    };
    // Seeds need no attribute: a sum whatever the generator has learnt.
    let report = place.ok("generate arithmetic a #1,#2,#3 --to sum.png --json").json();
    assert!(report["made"].as_str().unwrap().starts_with("#1,#2,#3:"), "{report}");
    // Three seeds and their mean; an empty row; three rows of results.
    assert_eq!(size("sum.png"), [4 * 32 + 3 * 2, 5 * 32 + 4 * 2]);
    // The classifier is trained once.
    let again = place.ok("generate arithmetic a #1,#2,#3 --to again.png");
    assert!(!again.stderr.contains("training"), "{again:?}");
    let bytes = |file: &str| std::fs::read(place.path(file)).unwrap();
    assert!(bytes("sum.png") == bytes("again.png"), "the same bits");
    place.refuses("generate arithmetic a hat --to x.png", &["`hat`", "glasses", "frown", "neutral"]);
    place.refuses("generate arithmetic a --add hat --to x.png", &["`hat`", "glasses"]);
    place.refuses("generate arithmetic a glasses --to x.gif", &[".png"]);
    // Data without labels.
    let bare = pictures();
    bare.ok(&format!("train dcgan/faces {SMALL} --set data.path=pictures/bright --run-dir b"));
    bare.refuses("generate arithmetic b glasses --to x.png", &["no labels", "captions.jsonl"]);
}
