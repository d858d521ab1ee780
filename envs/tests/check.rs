//! What a check finds in environments that break one rule each.
#![allow(clippy::unwrap_used)]

mod single;

use imago_envs::check::{Effort, Report, Severity, check};
use imago_envs::{Dtype, Env, EnvSpec, Leaf, LeafMut, Registry, Result, Space, Step};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A walk of twenty steps whose place is drawn anew in each; `breaks` names the rule it breaks.
struct Walk {
    breaks: String,
    observation: Space,
    action: Space,
    rng: ChaCha8Rng,
    t: u32,
}

/// How many walks there have been.
static WALKS: AtomicU32 = AtomicU32::new(0);

impl Walk {
    fn from_args(args: &toml::Table) -> Result<Self> {
        let breaks = args["breaks"].as_str().unwrap().to_string();
        let action = match breaks.as_str() {
            "unbounded" => Space::floats(&[2], f64::NEG_INFINITY, f64::INFINITY),
            "powerful" => Space::floats(&[2], -20.0, 20.0),
            "unequal" => Space::floats(&[2], -0.1, 1.0),
            "positive" => Space::floats(&[2], 0.0, 1.0),
            "no choice" => Space::discrete(0),
            "reversed" => Space::floats(&[2], 1.0, -1.0),
            "stuck" => Space::floats(&[2], 0.5, 0.5),
            _ => Space::discrete(3),
        };
        let observation = match breaks.as_str() {
            "lengths" => {
                Space::Box { shape: vec![3], dtype: Dtype::F32, low: vec![0.0; 2], high: vec![1.0; 2] }
            }
            "choice" => Space::discrete(4),
            _ => Space::floats(&[2], 0.0, 1.0),
        };
        WALKS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { breaks, observation, action, rng: ChaCha8Rng::seed_from_u64(0), t: 0 })
    }

    fn observe(&mut self, mut observation: LeafMut) {
        let [a, b]: [f32; 2] = self.rng.random();
        match self.breaks.as_str() {
            "choice" => observation.i64()[0] = 4,
            "unwritten" => observation.f32()[0] = a,
            "bounds" => observation.f32().copy_from_slice(&[a, -b - 0.01]),
            "finite" => observation.f32().copy_from_slice(&[a, f32::NEG_INFINITY]),
            "length" => observation.f32().copy_from_slice(&[a, b, a]),
            "panic" if self.t == 5 => panic!("the floor gave way"),
            _ => observation.f32().copy_from_slice(&[a, b]),
        }
    }
}

impl Env for Walk {
    fn observation_space(&self) -> &Space {
        &self.observation
    }
    fn action_space(&self) -> &Space {
        &self.action
    }
    fn reset(&mut self, seed: u64, observation: LeafMut) -> Result<()> {
        match self.breaks.as_str() {
            "instances" => self.rng = ChaCha8Rng::seed_from_u64(u64::from(WALKS.load(Ordering::Relaxed))),
            "seeds" => self.rng = ChaCha8Rng::seed_from_u64(1),
            "leftover" => {}
            _ => self.rng = ChaCha8Rng::seed_from_u64(seed),
        }
        if self.breaks != "late leftover" {
            self.t = 0;
        }
        self.observe(observation);
        Ok(())
    }
    fn step(&mut self, _: Leaf, observation: LeafMut) -> Result<Step> {
        self.t += 1;
        self.observe(observation);
        if self.breaks == "memory" {
            std::hint::black_box(vec![1u8; 1 << 14].leak());
        }
        let reward = match self.breaks.as_str() {
            "reward" => f64::NAN,
            "late leftover" => f64::from(self.t),
            _ => 1.0,
        };
        let terminated = self.t.is_multiple_of(20) && self.breaks != "endless";
        Ok(Step { reward, terminated, truncated: false })
    }
    fn save(&self) -> Option<Vec<u8>> {
        let position = u64::try_from(self.rng.get_word_pos()).unwrap().to_le_bytes();
        let state = self.rng.get_seed().into_iter().chain(position).chain(self.t.to_le_bytes()).collect();
        matches!(self.breaks.as_str(), "nothing" | "forgets" | "cannot load").then_some(state)
    }
    fn load(&mut self, state: &[u8]) -> Result<()> {
        if self.breaks == "cannot load" {
            return Err(imago_envs::Error::CannotRestore { id: "Walk".into(), message: "too tired".into() });
        }
        let (seed, rest) = state.split_first_chunk::<32>().unwrap();
        let (position, t) = rest.split_first_chunk::<8>().unwrap();
        self.rng = ChaCha8Rng::from_seed(*seed);
        if self.breaks != "forgets" {
            self.rng.set_word_pos(u64::from_le_bytes(*position).into());
        }
        self.t = u32::from_le_bytes(t.try_into().unwrap());
        Ok(())
    }
}

fn registry() -> Registry {
    let mut registry = Registry::builtin();
    registry.register("Walk", "a toy", None, Walk::from_args);
    registry
}

fn walk(breaks: &str, effort: &Effort) -> Report {
    let mut spec = EnvSpec::new("Walk");
    spec.args.insert("breaks".into(), breaks.into());
    check(&registry(), &spec, effort).unwrap()
}

/// Enough for an environment that takes no time.
fn short() -> Effort {
    Effort { time: Duration::from_millis(200), ..Effort::brief() }
}

#[test]
fn what_keeps_the_contract_passes() {
    let report = walk("nothing", &Effort::whole(Duration::from_millis(300)));
    assert!(report.passes() && report.findings.is_empty(), "{:?}", report.findings);
    assert!(report.saves);
    let lengths = report.episodes.unwrap();
    assert_eq!((lengths.shortest, lengths.median, lengths.longest), (20, 20, 20));
    assert!(report.steps > 1000 && lengths.count > 10);
    assert!(report.steps_per_second.unwrap() > 1e4 && report.group_steps_per_second.unwrap() > 1e4);
    assert!((1e-9..0.01).contains(&report.reset_seconds.unwrap()));
    assert_eq!(report.group_size, 8);
    let brief = walk("nothing", &short());
    assert!((brief.steps_per_second, brief.group_steps_per_second) == (None, None) && brief.passes());
    assert!((10_000..10_100).contains(&brief.steps), "{} steps", brief.steps);
}

#[test]
fn every_native_environment_passes() {
    let registry = Registry::builtin();
    for (id, _) in registry.ids().filter(|(id, _)| registry.extra(id).is_none()) {
        assert!(registry.is_builtin(id));
        let report = check(&registry, &EnvSpec::new(id), &short()).unwrap();
        // Memory is the process's, and other tests run in it.
        let rules = report.findings.iter().map(|finding| finding.rule);
        let rules: Vec<_> = rules.filter(|&rule| rule != "memory").collect();
        // Its torque goes up to 2.
        let expected: &[&str] = if id == "Pendulum-v1" { &["action bounds"] } else { &[] };
        assert_eq!(rules, expected, "{id}: {:?}", report.findings);
        assert!(report.passes() && report.saves, "{id}");
    }
}

#[test]
fn each_rule_is_found_broken() {
    let violation = Severity::Violation;
    for (breaks, severity, rule, words) in [
        ("unwritten", violation, "finite", "NaN at 1, or nothing was written there (in the first reset)"),
        ("bounds", violation, "bounds", "outside its space's 0 to 1: clip it"),
        ("finite", violation, "finite", "-inf at 1"),
        ("choice", violation, "bounds", "the choice 4, not one of 0 to 3"),
        ("length", violation, "panic", "it panicked: "),
        ("panic", violation, "panic", "it panicked: the floor gave way (in step 5 of the check)"),
        ("reward", violation, "reward", "the reward is NaN (in step 1 of the check)"),
        (
            "instances",
            violation,
            "determinism",
            "two instances with the same seed and actions differ in the first",
        ),
        (
            "leftover",
            violation,
            "determinism",
            "after another episode, the same seed and actions differ in the first",
        ),
        ("late leftover", Severity::Warning, "determinism", "differ in the reward of step 1"),
        ("forgets", violation, "restore", "after `save` and `load` in the same instance, step 1"),
        ("cannot load", violation, "restore", "too tired"),
        ("no choice", violation, "spaces", "action space Discrete(0): a choice needs at least one"),
        ("reversed", violation, "spaces", "value 0 has bounds from 1 to -1"),
        ("lengths", violation, "spaces", "3 values by its shape, 2 and 2 by its bounds"),
        ("stuck", Severity::Warning, "spaces", "value 0 can only be 0.5"),
        ("unbounded", Severity::Warning, "action bounds", "action 0 has bounds from -inf to inf"),
        ("powerful", Severity::Warning, "action bounds", "action 0 lies in -20 to 20, not in -1 to 1"),
        ("unequal", Severity::Warning, "action bounds", "action 0 lies in -0.1 to 1, not in"),
        ("seeds", Severity::Warning, "seeds", "different seeds gave the same beginning of an episode"),
        ("endless", Severity::Warning, "endless", "no episode ended in 10000 steps of random actions"),
        ("memory", Severity::Warning, "memory", "a million steps would need"),
    ] {
        // Time enough for its 10,000 steps on a busy machine.
        let report = walk(breaks, &Effort::brief());
        let rules: Vec<_> = report.of(severity).map(|finding| finding.rule).collect();
        let found = report.of(severity).find(|finding| finding.rule == rule);
        assert!(
            found.is_some_and(|finding| finding.message.contains(words)),
            "{breaks}: {:?}",
            report.findings
        );
        assert_eq!(rules.iter().filter(|other| **other == rule).count(), 1, "{breaks}: said twice");
        assert_eq!(report.passes(), severity == Severity::Warning, "{breaks}: {:?}", report.findings);
    }
    assert!(walk("positive", &short()).findings.is_empty());
}

#[test]
fn what_cannot_be_made_is_an_error() {
    assert!(!registry().is_builtin("Walk") && !registry().is_builtin("gym:CartPole-v1"));
    let message = check(&registry(), &EnvSpec::new("Wlak"), &short()).unwrap_err().to_string();
    assert!(message.contains("did you mean `Walk`"), "{message}");
}

#[test]
fn a_report_is_plain_data() {
    let json = serde_json::to_value(walk("bounds", &short())).unwrap();
    assert_eq!(json["env"]["id"], "Walk");
    assert_eq!(json["findings"][0]["severity"], "violation");
    assert_eq!(json["findings"][0]["rule"], "bounds");
    assert_eq!(json["action_space"], serde_json::json!({"discrete": {"n": 3, "start": 0}}));
    assert!(json["steps_per_second"].is_null());
}

#[test]
fn arguments_follow_the_name() {
    let parse = |text: &str| EnvSpec::parse(text);
    assert_eq!(parse("CartPole-v1").unwrap(), EnvSpec::new("CartPole-v1"));
    let expected =
        single::spec("gym:a.b:X-v0", "g = 9.81\non = true\nname = \"maze\"\nwalls = [1, 2]\nn = 3", None);
    assert_eq!(parse("gym:a.b:X-v0?g=9.81&on=true&name=maze&walls=[1,2]&n=3").unwrap(), expected);
    let message = parse("X?g").unwrap_err().to_string();
    assert_eq!(message, "environment `X`: argument `g`: expected g=VALUE");
}
