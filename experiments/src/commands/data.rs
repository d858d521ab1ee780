//! `imago data`: images to learn from.

use crate::assemble;
use crate::image_sets::{SETS, Set};
use crate::problem::{Done, Outcome, failed};
use crate::program::Shared;
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use imago::generative::data::{DataConfig, Found};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Images to learn from.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// What can be fetched.
    List,
    /// What is found at a path, and what of it can be read.
    Info {
        /// A folder, or a .npy or .safetensors file.
        path: PathBuf,
        /// The size in which to try them.
        #[arg(long, default_value_t = 64, value_name = "PIXELS")]
        size: i64,
    },
    /// Fetch a set, or draw it.
    Fetch(Fetch),
}

#[derive(Args)]
struct Fetch {
    /// Its name in `imago data list`.
    name: String,
    /// The folder; it must not exist yet.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// How many images, of sets that are drawn; at most so many of others.
    #[arg(long, default_value_t = 30_000, value_name = "N")]
    count: usize,
    /// Their side; otherwise the set's own.
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// People that are drawn four times, with and without smile and glasses, for tests of arithmetic on faces.
    #[arg(long, default_value_t = 200, value_name = "N")]
    counterfactuals: usize,
}

/// The set to fetch, and where to.
pub fn wanted(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Some(Command::Fetch(fetch)) => target(fetch).map(drop),
        _ => Ok(()),
    }
}

fn target(fetch: &Fetch) -> Result<(&'static Set, PathBuf)> {
    let Some(set) = SETS.iter().find(|set| set.script.name == fetch.name) else {
        let names: Vec<&str> = SETS.iter().map(|set| set.script.name).collect();
        bail!("no set `{}` (there are: {})", fetch.name, names.join(", "))
    };
    ensure!(
        fetch.count > 0 && fetch.size.is_none_or(|size| (8..=1024).contains(&size)),
        "--count begins at 1, --size lies between 8 and 1024"
    );
    let to = fetch.to.clone().unwrap_or_else(|| Path::new("data").join(set.script.name));
    ensure!(!to.exists(), "{} exists: remove it, or give another folder with --to", to.display());
    Ok((set, to))
}

/// Runs the command.
pub fn run(arguments: &Arguments, shared: &Shared) -> Outcome {
    match &arguments.command {
        None | Some(Command::List) => list(shared),
        Some(Command::Info { path, size }) => info(path, *size, shared),
        Some(Command::Fetch(arguments)) => fetch(arguments, shared),
    }
}

fn list(shared: &Shared) -> Outcome {
    for Set { about, licence, script, .. } in &SETS {
        let name = script.name;
        if shared.json {
            println!("{}", serde_json::json!({ "name": name, "about": about, "licence": licence }));
        } else {
            println!("{name:<14} {about}; {licence}");
        }
    }
    Ok(Done::Finished)
}

fn info(path: &Path, size: i64, shared: &Shared) -> Outcome {
    let config = DataConfig { path: path.to_string_lossy().into_owned(), size, ..DataConfig::default() };
    let set = assemble::images(&config)?;
    let (found, unreadable) = (&set.found, &set.unreadable);
    let labels: Vec<&String> =
        found.items.first().map(|item| item.labels.keys().collect()).unwrap_or_default();
    let captions = found.items.iter().filter(|item| item.caption.is_some()).count();
    if shared.json {
        let unreadable: Vec<_> =
            unreadable.iter().map(|(file, why)| serde_json::json!({ "file": file, "reason": why })).collect();
        let report = serde_json::json!({
            "format": 1,
            "path": path,
            "images": found.items.len(),
            "readable": set.training.len(),
            "unreadable": unreadable,
            "captions": captions,
            "labels": labels,
        });
        println!("{report}");
        return Ok(Done::Finished);
    }
    println!("found       {}", found.describe());
    println!("readable    {}", set.training.len());
    println!("captions    {captions}");
    let known: Vec<&str> = labels.iter().map(|label| label.as_str()).collect();
    println!("labels      {}", if known.is_empty() { "none".into() } else { known.join(", ") });
    for (file, reason) in unreadable {
        println!("unreadable  {}: {reason}", file.display());
    }
    Ok(Done::Finished)
}

fn fetch(arguments: &Fetch, shared: &Shared) -> Outcome {
    let (set, to) = target(arguments)?;
    let say = |text: String| {
        if !shared.quiet {
            eprintln!("{text}");
        }
    };
    let begun = Instant::now();
    // Under another name until it is whole.
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .with_context(|| format!("cannot create {}", parent.display()))
        .map_err(failed)?;
    let folder = tempfile::Builder::new().prefix(".drawing-").tempdir_in(parent).map_err(failed)?;
    say(format!("making {}", set.script.name));
    let size = arguments.size.unwrap_or(set.size);
    let numbers = [arguments.count, size, arguments.counterfactuals].map(|n| n.to_string());
    let mut with = vec![folder.path().as_os_str()];
    with.extend(numbers.iter().map(OsStr::new));
    set.script.run(&with, shared.quiet).map_err(failed)?;
    let count = Found::at(folder.path()).map_err(failed)?.items.len();
    let whole = folder.keep();
    std::fs::set_permissions(&whole, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    std::fs::rename(&whole, &to)
        .with_context(|| format!("cannot create {}", to.display()))
        .map_err(failed)?;
    let seconds = begun.elapsed().as_secs_f64();
    if shared.json {
        let report = serde_json::json!({
            "format": 1, "set": set.script.name, "to": to, "images": count, "licence": set.licence, "seconds": seconds,
        });
        println!("{report}");
    } else {
        println!("{}: {count} images in {seconds:.0} s; {}", to.display(), set.licence);
        if let Some(recipe) = set.recipe {
            println!("next: imago train {recipe} --set data.path={}", to.display());
        }
    }
    Ok(Done::Finished)
}
