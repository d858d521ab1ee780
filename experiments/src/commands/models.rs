//! `imago models`: trained networks. Image models are built in; those of others, trained on what we do not have, are
//! fetched.

use crate::catalogue;
use crate::fetching::Script;
use crate::first_look::cache_folder;
use crate::problem::{Done, Outcome, failed};
use crate::program::Shared;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use imago::generative::features::EfficientNetLite0;
use imago::run::tensor_file;
use std::path::PathBuf;

/// A network that can be fetched.
struct Model {
    about: &'static str,
    licence: &'static str,
    script: Script,
}

/// Every network.
const MODELS: [Model; 1] = [Model {
    about: "what `imago eval RUN --samples` compares images by (ImageNet, 17 MB)",
    licence: "Apache-2.0",
    script: Script {
        name: "efficientnet-lite0",
        requirements: include_str!("../../data/efficientnet_lite0.txt"),
        text: include_str!("../../data/efficientnet_lite0.py"),
    },
}];

/// Trained networks.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// What is built in and what can be fetched.
    List,
    /// Fetch a network, once for all runs.
    Fetch {
        /// Its name in `imago models list`.
        name: String,
    },
}

/// Where a fetched network lies.
fn file(name: &str) -> Result<PathBuf> {
    Ok(cache_folder()?.join("models").join(format!("{name}.safetensors")))
}

fn model(name: &str) -> Result<&'static Model> {
    let names: Vec<&str> = MODELS.iter().map(|model| model.script.name).collect();
    match MODELS.iter().find(|model| model.script.name == name) {
        Some(model) => Ok(model),
        None => bail!("no network `{name}` (there are: {})", names.join(", ")),
    }
}

/// Whether the network that the command names is one that can be fetched.
pub fn wanted(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Some(Command::Fetch { name }) => model(name).map(drop),
        None | Some(Command::List) => Ok(()),
    }
}

/// EfficientNet-Lite0, fetched before.
///
/// # Errors
/// It was not; the command that does it is named.
pub fn efficientnet_lite0() -> Result<EfficientNetLite0> {
    let path = file("efficientnet-lite0")?;
    if !path.exists() {
        bail!(
            "EfficientNet-Lite0, by whose features images are compared, is not here yet: imago models fetch \
             efficientnet-lite0 (17 MB), or --features pixels"
        );
    }
    Ok(EfficientNetLite0::load(&path)?)
}

/// Runs the command.
pub fn run(arguments: &Arguments, shared: &Shared) -> Outcome {
    let name = match &arguments.command {
        Some(Command::Fetch { name }) => name,
        None | Some(Command::List) => return list(shared),
    };
    let model = model(name)?;
    let path = file(name)?;
    if !path.exists() {
        let folder = path.parent().context("no folder")?;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))
            .map_err(failed)?;
        let part = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        model.script.run(&[part.path().as_os_str()], shared.quiet).map_err(failed)?;
        EfficientNetLite0::load(part.path()).map_err(failed)?;
        part.persist(&path).map_err(failed)?;
    }
    if shared.json {
        println!(
            "{}",
            serde_json::json!({ "format": 1, "model": name, "file": path, "licence": model.licence })
        );
    } else {
        println!("{}: {}", path.display(), model.licence);
    }
    Ok(Done::Finished)
}

fn list(shared: &Shared) -> Outcome {
    for (name, bytes) in &catalogue::MODELS {
        let about = tensor_file::read_metadata(catalogue::unpack(bytes)?.path())?;
        let name = format!("model:{name}");
        if shared.json {
            let mut line = serde_json::json!({ "name": name, "bytes": bytes.len(), "built_in": true });
            for key in ["about", "licence", "recipe", "step", "scores"] {
                line[key] = about.get(key).cloned().unwrap_or_default();
            }
            println!("{line}");
        } else {
            let text = |key: &str| about.get(key).and_then(|value| value.as_str()).unwrap_or("unknown");
            let terms = text("licence").lines().next().unwrap_or_default();
            println!("{name:<20} {}; {terms}; built in, for `imago generate`", text("about"));
        }
    }
    for Model { about, licence, script } in &MODELS {
        let here = file(script.name)?.exists();
        if shared.json {
            let line = serde_json::json!({ "name": script.name, "built_in": false, "about": about, "licence": licence, "fetched": here });
            println!("{line}");
        } else {
            let here = if here { "fetched" } else { "not fetched" };
            println!("{:<20} {about}; {licence}; {here}", script.name);
        }
    }
    Ok(Done::Finished)
}
