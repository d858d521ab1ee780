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

    let size = |file: &str| png_size(&place, file);
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

/// Width and height in a PNG's first chunk, big-endian.
fn png_size(place: &Place, file: &str) -> [u32; 2] {
    let bytes = std::fs::read(place.path(file)).unwrap();
    [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
}

#[test]
fn tiles_are_cut_out_and_tiled_opens_them() {
    let place = pictures();
    std::fs::write(place.path("pictures/LICENCE.txt"), "Ours.").unwrap();
    let small = SMALL.replace("held_out=4", "held_out=8");
    place.ok(&format!("train dcgan/tiles {small} --set data.label=folder --run-dir a"));
    let tiles = "generate tiles a --count 6 --colours-per-tile 4 --features pixels --json";
    let report = place.ok(&format!("{tiles} --to assets")).json();
    assert_eq!((&report["screens"], &report["tiles"], &report["tile"]), (&6.into(), &24.into(), &16.into()));
    assert_eq!((&report["palette_colours"], &report["pixels_outside_palette"]), (&54.into(), &0.into()));
    // 32 images, four tiles each.
    assert_eq!((&report["training"]["tiles"], &report["licence"]), (&128.into(), &"Ours.".into()));
    let unique = report["unique"].as_u64().unwrap() as u32;
    let known = ["same", "alike"].map(|key| report["training"][key].as_u64().unwrap());
    let new = f64::from(unique - known.iter().sum::<u64>() as u32) / f64::from(unique);
    assert!((report["training"]["new"].as_f64().unwrap() - new).abs() < 1e-9);
    for key in ["kernel_distance", "shuffled_kernel_distance", "training_kernel_distance"] {
        assert!(report["scores"][key]["mean"].is_f64(), "{report}");
    }

    let map = tiled::Loader::new().load_tmx_map(place.path("assets/level.tmx")).unwrap();
    assert_eq!((map.width, map.height, map.tile_width, map.tile_height), (40, 22, 16, 16));
    let set = &map.tilesets()[0];
    assert_eq!((set.tilecount, set.tile_width, set.columns), (unique, 16, unique.min(16)));
    let image = set.image.as_ref().unwrap();
    assert_eq!([image.width as u32, image.height as u32], png_size(&place, "assets/sheet.png"));
    assert_eq!(image.width as u32, 16 * set.columns);
    assert_eq!(png_size(&place, "assets/level.png"), [640, 352]);
    // Six pairs, four in a row; each is two images of 32 pixels and a margin of 2.
    assert_eq!(png_size(&place, "assets/nearest.png"), [4 * 68, 2 * 36]);
    let layer = map.get_layer(0).unwrap().as_tile_layer().unwrap();
    for (x, y) in (0..22).flat_map(|y| (0..40).map(move |x| (x, y))) {
        assert!(layer.get_tile(x, y).unwrap().id() < unique);
    }
    assert_eq!(std::fs::read_to_string(place.path("assets/LICENCE.txt")).unwrap(), "Ours.");

    let sheet = std::fs::read(place.path("assets/sheet.png")).unwrap();
    place.refuses(&format!("{tiles} --to assets"), &["assets exists", "--force"]);
    place.ok(&format!("{tiles} --to assets --force"));
    assert!(std::fs::read(place.path("assets/sheet.png")).unwrap() == sheet);
    place.refuses(&format!("{tiles} --to pictures --force"), &["pictures holds something else than tiles"]);
    place.refuses("generate tiles a --to more --tile 64", &["have 32 pixels"]);
    place.refuses("generate tiles a --to more --palette gameboy", &["--palette is nes, data, or a file"]);
    place.ok("generate tiles a --to more --count 2 --palette data --tile 32");
    let colours = std::fs::read_to_string(place.path("more/palette.hex")).unwrap();
    assert!((2..=64).contains(&colours.lines().count()), "{colours}");

    place.ok("eval a --samples 8 --features pixels --nearest beside.png");
    // Eight pairs, four in a row.
    assert_eq!(png_size(&place, "beside.png"), [8 * 32 + 7 * 2, 2 * 32 + 2]);
}

#[test]
fn a_model_of_its_own_file_makes_the_images_of_its_run() {
    let place = pictures();
    place.ok(&format!("train dcgan/tiles {SMALL} --set data.label=folder --run-dir a"));
    place.ok("eval a --samples 8 --features pixels --json");
    std::fs::write(place.path("scores.json"), "{\"kernel_distance\": 1.5}").unwrap();
    let export = "export a --to x.safetensors --licence CC0 --scores scores.json";
    let report = place.ok(&format!("{export} --json")).json();
    assert!(report["bytes"].as_u64().unwrap() < 200_000, "{report}");
    place.refuses(export, &["x.safetensors exists", "--force"]);
    place.refuses("export a --to x.onnx", &[".safetensors"]);
    place.ok("generate samples a --to run --count 2");
    place.ok("generate samples x.safetensors --to file --count 2");
    assert_eq!(png_size(&place, "file/000001.png"), [32, 32]);
    assert_eq!(std::fs::read_to_string(place.path("file/LICENCE.txt")).unwrap(), "CC0");
    // The training images are not where the model says: nothing is compared, everything else is made.
    let report = place.ok("generate tiles x.safetensors --to assets --count 2 --json").json();
    assert!(report["training"].is_null() && !place.path("assets/nearest.png").exists(), "{report}");
    std::fs::write(place.path("y.safetensors"), "no model").unwrap();
    place.refuses("generate grid y.safetensors --to grid.png", &["y.safetensors"]);
    place.refuses("generate grid model:nothing --to grid.png", &["no built-in model `nothing`", "faces"]);

    place.ok("generate grid model:faces --count 4 --columns 2 --to faces.png");
    assert_eq!(png_size(&place, "faces.png"), [2 * 64 + 2, 2 * 64 + 2]);
    let report = place.ok("generate tiles model:tiles-crawl --count 2 --to tiles --json").json();
    assert_eq!((&report["tiles"], &report["pixels_outside_palette"]), (&8.into(), &0.into()), "{report}");
    let models = place.ok("models list");
    assert!(models.stdout.contains("model:faces") && models.stdout.contains("CC BY 4.0"), "{models:?}");
    assert!(models.stdout.contains("model:tiles-crawl"), "{models:?}");
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
    // A set that can be fetched is named with the command that does it.
    place.refuses(train, &["imago data fetch faces-drawn", "does not exist"]);
    place.refuses(
        "generate arithmetic model:faces --add glasses --to a.png",
        &["imago data fetch faces-drawn", "does not exist"],
    );
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
    // A file of the generator alone has no folder to keep classifiers in, and its images lie where fetched ones do.
    place.ok("export a --to model.safetensors");
    std::fs::create_dir(place.path("data")).unwrap();
    std::fs::rename(place.path("pictures"), place.path("data/pictures")).unwrap();
    place.ok("generate arithmetic model.safetensors #1,#2,#3 --to same.png");
    assert_eq!(size("same.png"), size("sum.png"));
    // Data without labels.
    let bare = pictures();
    bare.ok(&format!("train dcgan/faces {SMALL} --set data.path=pictures/bright --run-dir b"));
    bare.refuses("generate arithmetic b glasses --to x.png", &["no labels", "captions.jsonl"]);
}
