//! `imago export`: the part of a run that others use, in a file of its own.

use super::check_output;
use crate::problem::{Done, Outcome, failed};
use crate::program::{Program, Shared};
use crate::runs::{self, LoadedMaker};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Write a part of a run into a file.
#[derive(Args)]
pub struct Arguments {
    /// The run, e.g. `latest` or `runs/mine@5000`.
    run: String,
    /// Which part: of an image model what makes its images, averaged if there is an average, in 16 bits.
    #[arg(long, value_enum, default_value_t = Part::Generator)]
    part: Part,
    /// The file to write; `imago generate` takes it in place of a run.
    #[arg(long, value_name = "FILE.safetensors")]
    to: PathBuf,
    /// What it is, in a line, for `imago models list`.
    #[arg(long, value_name = "TEXT")]
    about: Option<String>,
    /// Terms under which its images lie; otherwise those of the images that it learnt from.
    #[arg(long, value_name = "TEXT")]
    licence: Option<String>,
    /// What `imago eval RUN --samples N --json` printed, to go with it.
    #[arg(long, value_name = "FILE.json")]
    scores: Option<PathBuf>,
}

/// Parts that can be exported.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// What makes images.
    Generator,
}

/// The model that is exported, everything else being right.
pub fn subject(program: &Program, arguments: &Arguments, shared: &Shared) -> Result<LoadedMaker> {
    let to = &arguments.to;
    ensure!(
        to.extension().is_some_and(|ending| ending == "safetensors"),
        "--to {}: this makes files that end in .safetensors",
        to.display()
    );
    check_output(to, shared.force)?;
    scores(arguments)?;
    runs::load_maker(program, &arguments.run)
}

fn scores(arguments: &Arguments) -> Result<Option<serde_json::Value>> {
    let Some(path) = &arguments.scores else { return Ok(None) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?))
}

/// Runs the command.
pub fn run(program: &Program, arguments: &Arguments, shared: &Shared) -> Outcome {
    let mut loaded = subject(program, arguments, shared)?;
    let Part::Generator = arguments.part;
    // Where the images lay on this machine is nobody's business: the name that `imago data fetch` gives their folder.
    if let Some(data) = &mut loaded.recipe.data {
        let name = Path::new(&data.path).file_name().unwrap_or_default();
        data.path = Path::new("data").join(name).to_string_lossy().into_owned();
    }
    let mut about = serde_json::Map::new();
    about.insert("recipe".into(), loaded.recipe.to_toml()?.into());
    about.insert("step".into(), loaded.step.into());
    let licence = arguments.licence.as_ref().or(loaded.licence.as_ref());
    for (key, text) in [("licence", licence), ("about", arguments.about.as_ref())] {
        about.extend(text.map(|text| (key.to_string(), text.as_str().into())));
    }
    about.extend(scores(arguments)?.map(|scores| ("scores".to_string(), scores)));
    loaded.maker.save(&arguments.to, &about).map_err(failed)?;
    let bytes = std::fs::metadata(&arguments.to).map_err(failed)?.len();
    if shared.json {
        let report = serde_json::json!({
            "format": 1,
            "run": loaded.path,
            "checkpoint": loaded.step,
            "to": arguments.to,
            "bytes": bytes,
            "licence": licence,
        });
        println!("{report}");
    } else {
        let terms =
            if licence.is_some() { "its licence is in it" } else { "no licence is known: give --licence" };
        println!(
            "{}: what makes the images of {} at step {}, {:.1} MB; {terms}",
            arguments.to.display(),
            loaded.path.display(),
            loaded.step,
            bytes as f64 / 1e6
        );
    }
    Ok(Done::Finished)
}
