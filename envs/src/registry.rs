//! Environments by name.

use crate::env::{Each, Env, EnvSpec, VecEnv};
use crate::error::{Error, Result};
use crate::games::{self, Preset};
use crate::mujoco::{self, Mujoco};
use crate::wrappers;
use crate::{
    Acrobot, AcrobotVersion, CartPole, Gymnasium, GymnasiumVector, MountainCar, MountainCarContinuous,
    Orchard, Pendulum, Rooms, SealsCartPole, TMaze, TimeLimit,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::Table;

type MakeOne = dyn Fn(&Table, Option<u32>) -> Result<Box<dyn Env>> + Send + Sync;
type MakeGroup = dyn Fn(&EnvSpec, Option<u32>, usize) -> Result<Box<dyn VecEnv>> + Send + Sync;

#[derive(Clone)]
struct Entry {
    description: String,
    builtin: bool,
    /// The extra that it needs.
    extra: Option<&'static str>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    /// Written in Rust.
    Native { time_limit: Option<u32>, one: Arc<MakeOne>, group: Arc<MakeGroup> },
    /// A name for another environment with some keys filled in.
    Preset(Box<EnvSpec>),
}

/// The environments a program can make by name. Names with the prefix `gym:` go to Gymnasium and need no
/// entry. Clones share the constructors.
#[derive(Clone, Default)]
pub struct Registry {
    entries: BTreeMap<String, Entry>,
}

impl Registry {
    /// The native environments: every classic one of Gymnasium, in the version of today and in that of the GAIL
    /// paper, and those of fixed length from the seals package; the T-maze; and the games Rooms and Orchard.
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        for (version, limit, description) in [
            (AcrobotVersion::V0, 200, "Acrobot-v1 showing raw angles; the GAIL paper's; at most 200 steps"),
            (AcrobotVersion::V1, 500, "swing two linked rods up; Gymnasium's dynamics; at most 500 steps"),
        ] {
            let make = move |args: &Table| Acrobot::from_args(version, args);
            registry.register(Acrobot::id_of(version), description, Some(limit), make);
        }
        registry.register(
            CartPole::V0_ID,
            "CartPole-v1 with at most 200 steps; the GAIL paper's",
            Some(200),
            CartPole::v0_from_args,
        );
        registry.register(
            CartPole::ID,
            "keep a pole upright on a cart; Gymnasium's dynamics; at most 500 steps",
            Some(500),
            CartPole::from_args,
        );
        registry.register(
            MountainCar::ID,
            "rock a weak car out of a valley; Gymnasium's dynamics; at most 200 steps",
            Some(200),
            MountainCar::from_args,
        );
        registry.register(
            MountainCarContinuous::ID,
            "MountainCar with a stepless motor; Gymnasium's dynamics; at most 999 steps",
            Some(999),
            MountainCarContinuous::from_args,
        );
        registry.register(
            Orchard::ID,
            "gather drifting green fruit and keep away from red, through a small window, from pixels; 300 steps",
            Some(Orchard::LIMIT),
            Orchard::from_args,
        );
        registry.register(
            Pendulum::ID,
            "swing a pendulum up with a weak motor; Gymnasium's dynamics; 200 steps",
            Some(200),
            Pendulum::from_args,
        );
        registry.register(
            Rooms::ID,
            "find the armour in nine rooms, from pixels; laid out like VizDoom's MyWayHome; at most 525 steps",
            Some(Rooms::LIMIT),
            Rooms::from_args,
        );
        registry.register(
            TMaze::ID,
            "remember a sign until the fork at the end of a corridor; at most 100 steps",
            Some(100),
            TMaze::from_args,
        );
        registry.register(
            SealsCartPole::ID,
            "CartPole with episodes of always 500 steps, for imitation; as in the seals package",
            Some(500),
            SealsCartPole::from_args,
        );
        registry.register(
            MountainCar::SEALS_ID,
            "MountainCar with episodes of always 200 steps, for imitation; as in the seals package",
            Some(200),
            MountainCar::seals_from_args,
        );
        for robot in &mujoco::ROBOTS {
            let make = move |args: &Table| Mujoco::from_args(robot, args);
            registry.register(robot.id, robot.description, Some(mujoco::LIMIT), make);
            registry.needs(robot.id, "mujoco");
        }
        registry.entries.values_mut().for_each(|entry| entry.builtin = true);
        for Preset { id, description, extra, spec } in games::presets() {
            registry.preset(&id, &description, spec);
            registry.needs(&id, extra);
        }
        registry
    }

    /// Notes which extra an environment needs.
    fn needs(&mut self, id: &str, extra: &'static str) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.extra = Some(extra);
        }
    }

    /// Adds a name for the environment `spec`, which may be Gymnasium's, a native one or another preset. Keys that a
    /// recipe gives go before those of `spec`, argument by argument.
    ///
    /// # Panics
    /// If `id` starts with `gym:` or `vec:`, which belong to Gymnasium.
    pub fn preset(&mut self, id: &str, description: &str, spec: EnvSpec) {
        assert!(!is_gymnasiums(id), "`{id}`: names with `gym:` or `vec:` belong to Gymnasium");
        let kind = Kind::Preset(Box::new(spec));
        let description = description.into();
        self.entries.insert(id.into(), Entry { description, builtin: false, extra: None, kind });
    }

    /// `spec` with its presets filled in: an environment that is native, `gym:ID` or `vec:ID`, or unknown.
    pub fn resolve(&self, spec: &EnvSpec) -> EnvSpec {
        let mut filled = spec.clone();
        // As many as there are: presets of each other in a circle end as an unknown name.
        for _ in 0..=self.entries.len() {
            let Some(Entry { kind: Kind::Preset(spec), .. }) = self.entries.get(&filled.id) else {
                return filled;
            };
            filled = filled.over(spec);
        }
        filled
    }

    /// Whether Python runs the environment `id`: Gymnasium's, and presets of those.
    pub fn is_python(&self, id: &str) -> bool {
        is_gymnasiums(&self.resolve(&EnvSpec::new(id)).id)
    }

    /// The extra that the environment of this name needs, if any.
    pub fn extra(&self, id: &str) -> Option<&'static str> {
        self.entries.get(id)?.extra
    }

    /// What changes whenever an environment in Python may have; `None` for those of this program.
    ///
    /// # Errors
    /// It is not registered, or its module cannot be imported.
    pub fn version(&self, spec: &EnvSpec) -> Result<Option<String>> {
        let filled = self.resolve(spec);
        is_gymnasiums(&filled.id).then(|| Gymnasium::version(&filled, &spec.id)).transpose()
    }

    /// Adds an environment, or replaces the one of that name. `make` reads the recipe's arguments (see
    /// [`Arguments`](crate::Arguments)); `time_limit` holds where the recipe does not give another.
    ///
    /// # Panics
    /// If `id` starts with `gym:` or `vec:`, which belong to Gymnasium, or `time_limit` is 0.
    pub fn register<E: Env + 'static>(
        &mut self,
        id: &str,
        description: &str,
        time_limit: Option<u32>,
        make: impl Fn(&Table) -> Result<E> + Send + Sync + 'static,
    ) {
        assert!(!is_gymnasiums(id), "`{id}`: names with `gym:` or `vec:` belong to Gymnasium");
        assert!(time_limit != Some(0), "`{id}`: a time limit is at least one step");
        let make = Arc::new(make);
        let one = {
            let make = make.clone();
            move |args: &Table, limit| -> Result<Box<dyn Env>> {
                let env = make(args)?;
                Ok(match limit {
                    Some(limit) => Box::new(TimeLimit::new(env, limit)),
                    None => Box::new(env),
                })
            }
        };
        let group = move |spec: &EnvSpec, limit, count| -> Result<Box<dyn VecEnv>> {
            let (make, args) = (make.clone(), spec.args.clone());
            Ok(match limit {
                Some(limit) => {
                    let make = move || Ok(TimeLimit::new(make(&args)?, limit));
                    Box::new(Each::made_by(count, make)?.with_metrics(&spec.metrics))
                }
                None => Box::new(Each::made_by(count, move || make(&args))?.with_metrics(&spec.metrics)),
            })
        };
        let description = description.into();
        let (one, group) = (Arc::new(one), Arc::new(group));
        let kind = Kind::Native { time_limit, one, group };
        let entry = Entry { description, builtin: false, extra: None, kind };
        self.entries.insert(id.into(), entry);
    }

    /// Every registered environment, sorted: name and description.
    pub fn ids(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(id, entry)| (id.as_str(), entry.description.as_str()))
    }

    /// Whether `id` is an environment of this crate, not one that a program has registered or replaced.
    pub fn is_builtin(&self, id: &str) -> bool {
        self.entries.get(id).is_some_and(|entry| entry.builtin)
    }

    /// One environment, in the wrappers that `spec` asks for.
    pub fn make(&self, spec: &EnvSpec) -> Result<Box<dyn Env>> {
        check_limit(spec)?;
        let (id, spec) = (&spec.id, &self.resolve(spec));
        if spec.is_wrapped() {
            return self.make_wrapped(spec, id);
        }
        if spec.id.starts_with(Gymnasium::PREFIX) {
            return Ok(Box::new(Gymnasium::called(spec, id)?));
        }
        if spec.id.starts_with(GymnasiumVector::PREFIX) {
            return Ok(Box::new(GymnasiumVector::called(spec, id, 1)?));
        }
        let (time_limit, one, _) = self.native(&spec.id)?;
        one(&spec.args, spec.time_limit.or(time_limit))
    }

    /// One environment in wrappers. A limit of the recipe counts decisions, around all of them, and the environment
    /// then has none of its own: neither the registered one nor Gymnasium's, which `max_episode_steps = -1` leaves
    /// out.
    fn make_wrapped(&self, spec: &EnvSpec, id: &str) -> Result<Box<dyn Env>> {
        let inner = if spec.id.starts_with(Gymnasium::PREFIX) {
            let EnvSpec { args, path, check_bounds, .. } = spec.clone();
            let mut bare = EnvSpec { args, path, check_bounds, ..EnvSpec::new(&spec.id) };
            if spec.time_limit.is_some() {
                bare.args.insert("max_episode_steps".into(), (-1).into());
            }
            Box::new(Gymnasium::called(&bare, id)?)
        } else if spec.id.starts_with(GymnasiumVector::PREFIX) {
            return Err(Error::BadArgument {
                id: id.into(),
                argument: "wrappers".into(),
                message: "an engine that steps many environments at once takes none: give its own arguments"
                    .into(),
            });
        } else {
            let (time_limit, one, _) = self.native(&spec.id)?;
            one(&spec.args, time_limit.filter(|_| spec.time_limit.is_none()))?
        };
        let env = wrappers::wrap(inner, spec)?;
        Ok(match spec.time_limit {
            Some(limit) => Box::new(TimeLimit::new(env, limit)),
            None => env,
        })
    }

    /// One environment whose pictures are wanted: Gymnasium's are told so when they are made, and may be slower
    /// for it.
    pub fn make_rendering(&self, spec: &EnvSpec) -> Result<Box<dyn Env>> {
        let mut spec = spec.clone();
        if self.resolve(&spec).id.starts_with(Gymnasium::PREFIX) {
            spec.args.insert("render_mode".into(), "rgb_array".into());
        }
        self.make(&spec)
    }

    /// Whether several processes step it faster than as many threads: environments in Python, which share one lock,
    /// unless their engine gives it up while it works and gains by it (Super Mario Bros, MuJoCo's Humanoid; VizDoom gives it
    /// up, too, and is faster in processes all the same: see `make bench`).
    pub fn gains_from_processes(&self, spec: &EnvSpec) -> bool {
        let free = ["imago/SuperMarioBros", "Humanoid"];
        self.resolve(spec).id.strip_prefix(Gymnasium::PREFIX).is_some_and(|id| {
            let name = id.rsplit_once(':').map_or(id, |(_, name)| name);
            !free.iter().any(|free| name.starts_with(free))
        })
    }

    /// `count` environments of a kind, stepped one after another; without wrappers, without a virtual call between
    /// them; those of `vec:ID` by their own engine.
    pub fn make_group(&self, spec: &EnvSpec, count: usize) -> Result<Box<dyn VecEnv>> {
        check_limit(spec)?;
        if count == 0 {
            return Err(Error::BadArgument {
                id: spec.id.clone(),
                argument: "count".into(),
                message: "a group has at least one environment".into(),
            });
        }
        let (id, spec) = (&spec.id, &self.resolve(spec));
        if spec.is_wrapped() {
            let (registry, wrapped, id) = (self.clone(), spec.clone(), id.clone());
            let group = Each::made_by(count, move || registry.make_wrapped(&wrapped, &id))?;
            return Ok(Box::new(group.with_metrics(&spec.metrics)));
        }
        if spec.id.starts_with(Gymnasium::PREFIX) {
            let (inner, id) = (spec.clone(), id.clone());
            let group = Each::made_by(count, move || Gymnasium::called(&inner, &id))?;
            return Ok(Box::new(group.with_metrics(&spec.metrics)));
        }
        if spec.id.starts_with(GymnasiumVector::PREFIX) {
            return Ok(Box::new(GymnasiumVector::called(spec, id, count)?));
        }
        let (time_limit, _, group) = self.native(&spec.id)?;
        group(spec, spec.time_limit.or(time_limit), count)
    }

    fn native(&self, id: &str) -> Result<(Option<u32>, &MakeOne, &MakeGroup)> {
        match self.entries.get(id).map(|entry| &entry.kind) {
            Some(Kind::Native { time_limit, one, group }) => Ok((*time_limit, &**one, &**group)),
            _ => Err(Error::UnknownEnv { id: id.into(), hint: self.hint(id) }),
        }
    }

    /// The nearest known name, and the Gymnasium spelling where the name looks like one of theirs.
    fn hint(&self, id: &str) -> String {
        let (wanted, mut hint) = (id.to_lowercase(), String::new());
        let nearest = self
            .entries
            .keys()
            .map(|known| (strsim::jaro_winkler(&wanted, &known.to_lowercase()), known))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((_, known)) = nearest.filter(|(likeness, _)| *likeness > 0.8) {
            hint += &format!("; did you mean `{known}`?");
        }
        let version = id.rsplit_once("-v").map(|(_, version)| version);
        if version.is_some_and(|v| !v.is_empty() && v.bytes().all(|c| c.is_ascii_digit())) {
            hint += &format!("; if it is a Gymnasium environment, write `gym:{id}`");
        }
        hint
    }
}

/// Whether Gymnasium makes what has this name.
fn is_gymnasiums(id: &str) -> bool {
    id.starts_with(Gymnasium::PREFIX) || id.starts_with(GymnasiumVector::PREFIX)
}

fn check_limit(spec: &EnvSpec) -> Result<()> {
    match spec.time_limit {
        Some(0) => Err(Error::BadArgument {
            id: spec.id.clone(),
            argument: "time_limit".into(),
            message: "expected at least 1 step, found 0; leave it out for the environment's own limit".into(),
        }),
        _ => Ok(()),
    }
}
