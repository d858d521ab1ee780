//! Pictures beside OpenCV, which has made `pictures/golden.json`, beside a second, slow computation, and by hand.
#![allow(clippy::unwrap_used)]

use imago_envs::wrappers::{Picture, PictureConfig, ResizeMethod};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    shape: [usize; 3],
    levels: u32,
    crop: [usize; 4],
    grayscale: bool,
    resize: Option<[usize; 2]>,
    method: ResizeMethod,
    /// Bytes in hexadecimal.
    opencv: String,
}

/// As in golden.py.
fn source(shape: [usize; 3], levels: u32) -> Vec<u8> {
    let mut state = 1u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 24) * levels / 256 * (256 / levels)) as u8
    };
    (0..shape.iter().product()).map(|_| byte()).collect()
}

fn make(config: &PictureConfig, shape: [usize; 3], from: &[u8]) -> Vec<u8> {
    let mut picture = Picture::new("test", config, shape).unwrap();
    let mut to = vec![77; picture.shape().iter().product()];
    picture.make(from, &mut to);
    to
}

/// The mean over the area of each pixel of a smaller picture, in 64-bit floats: each source pixel by how much of it
/// lies inside.
fn means(plane: &[u8], [height, width]: [usize; 2], [h, w]: [usize; 2]) -> Vec<f64> {
    let inside = |i: usize, source: usize, scale: f64| {
        let (start, end) = (i as f64 * scale, (i + 1) as f64 * scale);
        (end.min(source as f64 + 1.0) - start.max(source as f64)).max(0.0)
    };
    let (tall, wide) = (height as f64 / h as f64, width as f64 / w as f64);
    let mut means = Vec::new();
    for i in 0..h * w {
        let mut sum = 0.0;
        for (j, &value) in plane.iter().enumerate() {
            sum += inside(i / w, j / width, tall) * inside(i % w, j % width, wide) * f64::from(value);
        }
        means.push(sum / (tall * wide));
    }
    means
}

#[test]
fn pictures_are_opencvs() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("pictures/golden.json")).unwrap();
    let (mut halves, mut same, mut all) = (0, 0, 0);
    for (number, case) in cases.iter().enumerate() {
        let config = PictureConfig {
            crop: Some(case.crop),
            grayscale: case.grayscale,
            resize: case.resize,
            method: case.method,
        };
        let from = source(case.shape, case.levels);
        let ours = make(&config, case.shape, &from);
        let digits = |i| u8::from_str_radix(&case.opencv[2 * i..2 * i + 2], 16).unwrap();
        let theirs: Vec<u8> = (0..case.opencv.len() / 2).map(digits).collect();
        assert_eq!(ours.len(), theirs.len());
        let (different, equal): (Vec<usize>, Vec<usize>) =
            (0..ours.len()).partition(|&i| ours[i] != theirs[i]);
        (same, all) = (same + equal.len(), all + ours.len());
        if different.is_empty() {
            continue;
        }
        // Only means of areas may differ, by one, and only where the true mean is a half.
        assert_eq!(case.method, ResizeMethod::Area, "case {number}: {different:?}");
        let whole = make(&PictureConfig { resize: None, ..config.clone() }, case.shape, &from);
        let [top, bottom, left, right] = case.crop;
        let kept = [case.shape[0] - top - bottom, case.shape[1] - left - right];
        let means = means(&whole, kept, case.resize.unwrap());
        for i in different {
            let half = (means[i] - means[i].floor() - 0.5).abs() < 1e-9;
            assert!(half && ours[i].abs_diff(theirs[i]) == 1, "case {number}, pixel {i}: {}", means[i]);
            halves += 1;
        }
    }
    assert!(halves > 0, "a case has means that are halves, so that they are seen");
    assert!(same as f64 > 0.99 * f64::from(all as u32), "{same} of {all}");
}

#[test]
fn grey_is_computed_by_hand() {
    // 0.299 · 255 = 76.2, 0.587 · 255 = 149.7, 0.114 · 255 = 29.1; 0.299 · 10 + 0.587 · 20 + 0.114 · 30 = 18.15.
    let colours = [255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30];
    let config = PictureConfig { grayscale: true, ..Default::default() };
    assert_eq!(make(&config, [2, 3, 3], &colours), [255, 0, 76, 150, 29, 18]);
    assert_eq!(make(&config, [1, 2, 1], &[3, 4]), [3, 4], "what is grey stays");
}

#[test]
fn planes_and_crops_are_picked_by_hand() {
    let colours: Vec<u8> = (0..24).collect();
    let config = PictureConfig { crop: Some([1, 0, 1, 2]), ..Default::default() };
    // Of 2 × 4 pixels the second row's second: bytes 15, 16, 17.
    assert_eq!(make(&config, [2, 4, 3], &colours), [15, 16, 17]);
    let config = PictureConfig::default();
    assert_eq!(make(&config, [1, 3, 3], &colours[..9]), [0, 3, 6, 1, 4, 7, 2, 5, 8]);
    assert_eq!(make(&config, [1, 2, 4], &colours[..8]), [0, 4, 1, 5, 2, 6, 3, 7]);
}

#[test]
fn sizes_are_computed_by_hand() {
    let resize = |method, resize, shape, from: &[u8]| {
        make(&PictureConfig { resize: Some(resize), method, ..Default::default() }, shape, from)
    };
    // (0 + 90 / 2) / 1.5 and (90 / 2 + 180) / 1.5
    assert_eq!(resize(ResizeMethod::Area, [1, 2], [1, 3, 1], &[0, 90, 180]), [30, 150]);
    assert_eq!(resize(ResizeMethod::Area, [2, 1], [3, 1, 1], &[0, 90, 180]), [30, 150]);
    // A half goes to the even number, but up where it is the mean of four.
    assert_eq!(resize(ResizeMethod::Area, [1, 1], [1, 4, 1], &[0, 0, 1, 1]), [0]);
    assert_eq!(resize(ResizeMethod::Area, [1, 1], [1, 4, 1], &[1, 1, 2, 2]), [2]);
    assert_eq!(resize(ResizeMethod::Area, [1, 1], [2, 2, 1], &[0, 0, 1, 1]), [1]);
    assert_eq!(resize(ResizeMethod::Bilinear, [1, 1], [2, 2, 1], &[0, 0, 1, 1]), [1]);
    // At −0.25, 0.25, 0.75 and 1.25 between the middles of two pixels.
    assert_eq!(resize(ResizeMethod::Bilinear, [1, 4], [1, 2, 1], &[0, 100]), [0, 25, 75, 100]);
    assert_eq!(resize(ResizeMethod::Bilinear, [4, 1], [2, 1, 1], &[0, 100]), [0, 25, 75, 100]);
}

#[test]
fn what_does_not_fit_is_refused_with_its_key() {
    let message = |config: PictureConfig, shape| match Picture::new("test", &config, shape) {
        Ok(_) => panic!("{config:?} should be refused"),
        Err(error) => error.to_string(),
    };
    let none = PictureConfig::default;
    let crop = PictureConfig { crop: Some([3, 2, 0, 0]), ..none() };
    assert!(
        message(crop, [5, 9, 3]).contains("`crop`: [top, bottom, left, right] = [3, 2, 0, 0] leaves nothing")
    );
    let crop = PictureConfig { crop: Some([0, 0, usize::MAX, 1]), ..none() };
    assert!(message(crop, [5, 9, 3]).contains("`crop`"));
    let grey = PictureConfig { grayscale: true, ..none() };
    assert!(
        message(grey, [5, 9, 4])
            .contains("`grayscale`: expected red, green and blue, found 4 values a pixel")
    );
    let resize = |resize| PictureConfig { resize: Some(resize), ..none() };
    assert!(message(resize([0, 3]), [5, 9, 3]).contains("`resize`: expected at least 1 × 1 pixel"));
    assert!(message(resize([6, 3]), [5, 9, 3]).contains("resize_method = \"bilinear\""));
    assert!(message(resize([6, 3]), [5000, 5000, 1]).contains("16 million"));
}

proptest! {
    #[test]
    fn means_are_those_of_the_slow_way(
        (height, h) in (1usize..40).prop_flat_map(|n| (Just(n), 1..=n)),
        (width, w) in (1usize..40).prop_flat_map(|n| (Just(n), 1..=n)),
        levels in prop_oneof![Just(2), Just(256)],
    ) {
        let from = source([height, width, 1], levels);
        let config = PictureConfig { resize: Some([h, w]), ..Default::default() };
        let ours = make(&config, [height, width, 1], &from);
        for (ours, mean) in ours.iter().zip(means(&from, [height, width], [h, w])) {
            prop_assert!((f64::from(*ours) - mean).abs() < 0.5 + 1e-9, "{ours} for {mean}");
        }
    }

    #[test]
    fn one_colour_stays_and_nothing_leaves_the_range(
        shape in (1usize..50, 1usize..50, prop_oneof![Just(1usize), Just(3)]),
        resize in (1usize..60, 1usize..60),
        (low, high) in (0u8..=255).prop_flat_map(|low| (Just(low), low..=255)),
        grayscale: bool,
    ) {
        let shape = [shape.0, shape.1, shape.2];
        let fits = resize.0 <= shape[0] && resize.1 <= shape[1];
        let config = PictureConfig {
            crop: None,
            grayscale,
            resize: Some([resize.0, resize.1]),
            method: if fits { ResizeMethod::Area } else { ResizeMethod::Bilinear },
        };
        for method in [config.method, ResizeMethod::Bilinear] {
            let config = PictureConfig { method, ..config.clone() };
            let count: usize = shape.iter().product();
            prop_assert!(make(&config, shape, &vec![low; count]).iter().all(|&x| x == low));
            let between: Vec<u8> =
                source(shape, 256).into_iter().map(|x| low + (u32::from(x) * u32::from(high - low) / 255) as u8).collect();
            let made = make(&config, shape, &between);
            prop_assert!(made.iter().all(|x| (low..=high).contains(x)), "{low} to {high}: {made:?}");
        }
    }
}
