//! Animated pictures that appear whole or not at all.

use anyhow::{Context, Result, ensure};
use gif::{Encoder, Repeat};
use imago_envs::Frame;
use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// How carefully a frame's 256 colours are chosen: 1 best to 30 fastest.
const SPEED: i32 = 10;

/// A GIF being written, under a temporary name until it is finished.
pub struct GifFile {
    path: PathBuf,
    encoder: Option<Encoder<BufWriter<NamedTempFile>>>,
    size: [u16; 2],
    /// Frames written.
    pub frames: usize,
}

impl GifFile {
    /// Begins a film of frames as large as `first`, which is not written yet.
    ///
    /// # Errors
    /// A directory that cannot be written to; frames too large for the format.
    pub fn create(path: &Path, first: &Frame) -> Result<Self> {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let side = |x: usize| u16::try_from(x).ok().filter(|&x| x > 0);
        let size = side(first.width).zip(side(first.height)).with_context(|| {
            format!(
                "a GIF has 1 to 65,535 pixels a side, these frames have {} × {}",
                first.width, first.height
            )
        })?;
        let cannot = || format!("cannot write {}", path.display());
        let file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .with_context(cannot)?;
        let mut encoder = Encoder::new(BufWriter::new(file), size.0, size.1, &[]).with_context(cannot)?;
        encoder.set_repeat(Repeat::Infinite).with_context(cannot)?;
        Ok(Self { path: path.into(), encoder: Some(encoder), size: [size.0, size.1], frames: 0 })
    }

    /// Adds `frame`, to be shown for `seconds`, in its own best 256 colours.
    ///
    /// # Errors
    /// A full disk; a frame of another size than the first.
    pub fn add(&mut self, frame: &Frame, seconds: f64) -> Result<()> {
        let [width, height] = self.size;
        ensure!(
            frame.width == usize::from(width) && frame.height == usize::from(height),
            "{}: the pictures change their size from {width} × {height} to {} × {}",
            self.path.display(),
            frame.width,
            frame.height
        );
        let mut picture = gif::Frame::from_rgb_speed(width, height, frame.pixels.as_flattened(), SPEED);
        picture.delay = (seconds * 100.0).round() as u16;
        let encoder = self.encoder.as_mut().context("the film is finished")?;
        encoder.write_frame(&picture).with_context(|| format!("cannot write {}", self.path.display()))?;
        self.frames += 1;
        Ok(())
    }

    /// Ends the film and gives it its name; an earlier file of that name is replaced if `force` says so. Its size
    /// in bytes.
    ///
    /// # Errors
    /// A full disk, a file that has come into being meanwhile; the temporary file is removed.
    pub fn finish(&mut self, force: bool) -> Result<u64> {
        let cannot = || format!("cannot write {}", self.path.display());
        let encoder = self.encoder.take().context("the film is finished")?;
        let mut buffer = encoder.into_inner().with_context(cannot)?;
        buffer.flush().with_context(cannot)?;
        let file = buffer.into_inner().map_err(|error| error.into_error()).with_context(cannot)?;
        file.as_file().sync_all().with_context(cannot)?;
        let bytes = file.as_file().metadata().with_context(cannot)?.len();
        match force {
            true => file.persist(&self.path).map(drop),
            false => file.persist_noclobber(&self.path).map(drop),
        }
        .map_err(|error| error.error)
        .with_context(cannot)?;
        Ok(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_film_comes_back_in_its_colours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gif");
        let frames = [[200, 30, 20], [10, 40, 250]].map(|colour| {
            let mut frame = Frame::filled(7, 5, colour);
            frame.set(3, 2, [255; 3]);
            frame
        });
        let mut file = GifFile::create(&path, &frames[0]).unwrap();
        file.add(&frames[0], 0.05).unwrap();
        file.add(&frames[1], 1.0).unwrap();
        let refused = file.add(&Frame::filled(5, 7, [0; 3]), 1.0).unwrap_err().to_string();
        assert!(refused.contains("from 7 × 5 to 5 × 7"), "{refused}");
        assert!(!path.exists(), "it has its name before its end");
        let bytes = file.finish(false).unwrap();
        assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(std::fs::File::open(&path).unwrap()).unwrap();
        for (frame, delay) in frames.iter().zip([5, 100]) {
            let read = decoder.read_next_frame().unwrap().unwrap();
            assert_eq!((read.width, read.height, read.delay), (7, 5, delay));
            let pixels: Vec<[u8; 3]> =
                read.buffer.as_chunks().0.iter().map(|&[r, g, b, _]| [r, g, b]).collect();
            assert_eq!(pixels, frame.pixels);
        }
        assert!(decoder.read_next_frame().unwrap().is_none());
    }

    #[test]
    fn a_file_that_came_meanwhile_is_kept_and_an_unfinished_film_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gif");
        let frame = Frame::filled(2, 2, [9; 3]);
        let mut file = GifFile::create(&path, &frame).unwrap();
        file.add(&frame, 0.1).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(file.finish(false).unwrap_err().to_string().contains("x.gif"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        drop(GifFile::create(&path, &frame).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
