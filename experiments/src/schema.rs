//! What a recipe may hold, as data: type, default and meaning of every key, taken from the structs that recipes are
//! read into. One source for `imago recipes keys`, the JSON Schema and the answers to wrong values.

use crate::nearest::nearest;
use crate::recipe::{
    BUILTIN_SIGNALS, DemosConfig, EvalConfig, FORMAT, PolicyConfig, RolloutConfig, RunConfig, StackConfig,
};
use crate::strict::{excerpt, keys_of};
use anyhow::{Context, Result};
use imago::generative::data::DataConfig;
use imago::generative::gan::DcganConfig;
use imago::nn::TorsoKind;
use imago_agents::{
    A2cConfig, BcConfig, DacConfig, DisagreementConfig, E3bConfig, GailConfig, IcmConfig, PpoConfig,
    PythonSignalConfig, ReplayConfig, RndConfig, SacConfig, Td3Config, TrpoConfig,
};
use imago_envs::EnvSpec;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Signals are called as the user likes.
pub const SIGNAL: &str = "signal.NAME";

/// One key of a section.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub name: String,
    /// What it may be, as JSON Schema without references. `x-default` says in words what holds where no value
    /// does.
    pub schema: Value,
    /// Whether it must be there.
    pub required: bool,
}

impl Key {
    /// What it means; for a choice also what each one means.
    pub fn about(&self) -> String {
        let mut about = text(&self.schema, "description");
        let choices: Vec<String> = choices(&self.schema)
            .filter_map(|choice| {
                let meaning = choice.get("description")?.as_str()?.replace('\n', " ");
                Some(format!("{}: {}", choice["const"], meaning.trim_end_matches('.')))
            })
            .collect();
        if !choices.is_empty() {
            about = format!("{about} {}.", choices.join("; "));
        }
        about
    }

    /// Its type in words.
    pub fn kind(&self) -> String {
        words(&self.schema, false)
    }

    /// What holds if it is absent: a value as recipes write it, or words.
    pub fn default(&self) -> String {
        match (self.schema.get("x-default"), self.schema.get("default")) {
            _ if self.required => "required".into(),
            (Some(words), _) => words.as_str().unwrap_or_default().into(),
            (None, Some(value)) => as_toml(value),
            (None, None) => String::new(),
        }
    }
}

/// A section, or what a section holds if it is of one `kind`.
#[derive(Clone, Debug)]
pub struct Section {
    /// "run"; "signal.NAME" for signals.
    pub name: &'static str,
    /// The `kind` to which this belongs.
    pub kind: Option<&'static str>,
    /// What it is for.
    pub about: String,
    /// Its keys in the order of the code.
    pub keys: Vec<Key>,
}

impl Section {
    fn of<T: JsonSchema + DeserializeOwned>(name: &'static str) -> Self {
        let root = object_of::<T>();
        Self { name, kind: None, about: text(&root, "description"), keys: keys::<T>() }
    }

    /// "learner, kind = "bc"".
    pub fn title(&self) -> String {
        match self.kind {
            Some(kind) => format!("[{}] with kind = \"{kind}\"", self.name),
            None => format!("[{}]", self.name),
        }
    }

    /// Its name in recipes: a signal is called as its kind here.
    pub fn path(&self) -> String {
        match (self.name, self.kind) {
            (SIGNAL, Some(kind)) => format!("signal.{kind}"),
            (name, _) => name.into(),
        }
    }
}

/// A section as JSON Schema.
fn object(about: &str, keys: &[Key]) -> Value {
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name.as_str()).collect();
    let properties: Map<String, Value> =
        keys.iter().map(|key| (key.name.clone(), key.schema.clone())).collect();
    let mut schema = json!({
        "type": "object", "description": about, "properties": properties, "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

/// The schema of `T`, references resolved.
fn object_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// The keys of a section that is read into `T`.
pub fn keys<T: JsonSchema + DeserializeOwned>() -> Vec<Key> {
    let mut root = object_of::<T>();
    let required = root.get("required").cloned().unwrap_or_default();
    let mut properties = match root.get_mut("properties").map(Value::take) {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    };
    let key = |name: String| {
        let mut schema = properties.remove(&name)?;
        tidy(&mut schema);
        let required = required.as_array().is_some_and(|all| all.iter().any(|other| *other == *name));
        Some(Key { name, schema, required })
    };
    // serde knows the order of the code, JSON objects here are sorted.
    keys_of::<T>().into_iter().filter_map(key).collect()
}

/// The key that says which of several things a section is.
fn kind_key(mut schema: Value, default: Option<&str>, about: &str) -> Key {
    schema["type"] = "string".into();
    schema["description"] = about.into();
    if let Some(default) = default {
        schema["x-default"] = default.into();
    }
    Key { name: "kind".into(), schema, required: default.is_none() }
}

/// Every section with every key.
///
/// # Errors
/// None but a torso that this file cannot read from its own schema.
pub fn sections() -> Result<Vec<Section>> {
    let mut policy = Section::of::<PolicyConfig>("policy");
    describe_torsos(&mut policy.keys)?;
    let learner = |kind: &'static str, default, about: &str, keys: Vec<Key>| {
        let first = kind_key(
            json!({ "const": kind }),
            default,
            "Which learner: \"ppo\", \"a2c\", \"trpo\", \"sac\", \"td3\", \"bc\" or \"dcgan\".",
        );
        let keys = std::iter::once(first).chain(keys).collect();
        Section { name: "learner", kind: Some(kind), about: about.into(), keys }
    };
    let which = "Which signal: \"extrinsic\" (the environment's own reward), \"gail\", \"dac\", \"icm\", \"rnd\", \
                 \"disagreement\", \"e3b\", \"python\", or a kind that your program registers.";
    let mut signal = Section::of::<StackConfig>(SIGNAL);
    signal.keys.insert(0, kind_key(json!({}), Some("NAME"), which));
    let gail = Section {
        name: SIGNAL,
        kind: Some("gail"),
        about: "Generative adversarial imitation: pays for being taken for the expert. These keys besides those of \
                every signal."
            .into(),
        keys: [keys::<DemosConfig>(), keys::<GailConfig>()].concat(),
    };
    let dac = Section {
        name: SIGNAL,
        kind: Some("dac"),
        about: "Discriminator-actor-critic: as \"gail\", for off-policy learners, from whose replay it learns. These keys \
                besides those of every signal."
            .into(),
        keys: [keys::<DemosConfig>(), keys::<DacConfig>()].concat(),
    };
    let signal_of = |kind: &'static str, about: &str, keys: Vec<Key>| Section {
        name: SIGNAL,
        kind: Some(kind),
        about: format!("{about} These keys besides those of every signal."),
        keys,
    };
    Ok(vec![
        Section::of::<RunConfig>("run"),
        Section::of::<EnvSpec>("env"),
        Section::of::<DataConfig>("data"),
        Section::of::<RolloutConfig>("rollout"),
        policy,
        learner("ppo", Some("\"ppo\""), "Proximal policy optimisation.", keys::<PpoConfig>()),
        learner(
            "a2c",
            None,
            "Advantage actor-critic: one step for each rollout, or one for each environment of it. Rollouts are short then: \
             rollout.steps of 5 to 20.",
            keys::<A2cConfig>(),
        ),
        learner("trpo", None, "Trust region policy optimisation.", keys::<TrpoConfig>()),
        learner(
            "sac",
            None,
            "Soft actor-critic: off-policy, for continuous actions within bounds.",
            [keys::<ReplayConfig>(), keys::<SacConfig>()].concat(),
        ),
        learner(
            "td3",
            None,
            "Twin delayed deterministic policy gradient: off-policy, for continuous actions within bounds.",
            [keys::<ReplayConfig>(), keys::<Td3Config>()].concat(),
        ),
        learner(
            "bc",
            None,
            "Behaviour cloning: maximum likelihood of the demonstrated actions.",
            [keys::<DemosConfig>(), keys::<BcConfig>()].concat(),
        ),
        learner(
            "dcgan",
            None,
            "Deep convolutional GAN: learns to make images like those of [data].",
            keys::<DcganConfig>(),
        ),
        signal,
        gail,
        dac,
        signal_of(
            "icm",
            "The intrinsic curiosity module: pays for what its forward model cannot predict yet.",
            keys::<IcmConfig>(),
        ),
        signal_of(
            "rnd",
            "Random network distillation: pays for observations on which a network has not learnt yet what a fixed random \
             one gives.",
            keys::<RndConfig>(),
        ),
        signal_of(
            "disagreement",
            "Several forward models: pays for where they disagree.",
            keys::<DisagreementConfig>(),
        ),
        signal_of(
            "e3b",
            "Elliptical episodic bonuses: pays for features that are far from all that the episode has shown.",
            keys::<E3bConfig>(),
        ),
        signal_of(
            "python",
            "A class of yours in Python, called once a rollout.",
            keys::<PythonSignalConfig>(),
        ),
        Section::of::<EvalConfig>("eval"),
    ])
}

/// What absent keys of `[policy]` are depends on the torso.
fn describe_torsos(keys: &mut [Key]) -> Result<()> {
    let torso = keys.iter().find(|key| key.name == "torso").context("[policy] has no torso")?;
    let torsos: Vec<TorsoKind> = choices(&torso.schema)
        .map(|choice| serde_json::from_value(choice["const"].clone()))
        .collect::<Result<_, _>>()?;
    let mut completed = Vec::new();
    for torso in torsos {
        let mut policy = PolicyConfig { torso, ..PolicyConfig::default() };
        policy.complete();
        completed.push((serde_json::to_value(torso)?, serde_json::to_value(policy)?));
    }
    let told = |key: &&mut Key| ["default", "x-default"].iter().any(|name| key.schema.get(name).is_some());
    for key in keys.iter_mut().filter(|key| !told(key)) {
        let each = completed.iter().map(|(torso, policy)| {
            format!("{} for {}", as_toml(&policy[&key.name]), torso.as_str().unwrap_or_default())
        });
        key.schema["x-default"] = each.collect::<Vec<_>>().join(", ").into();
    }
    Ok(())
}

/// JSON Schema (2020-12) of whole recipes. Arguments of environments and keys of signals that a user's program
/// registers are open.
///
/// # Errors
/// As for [`sections`].
pub fn json_schema() -> Result<Value> {
    let sections = sections()?;
    let stack: Vec<Key> = sections
        .iter()
        .filter(|section| section.name == SIGNAL && section.kind.is_none())
        .flat_map(|section| section.keys.iter().filter(|key| key.name != "kind").cloned())
        .collect();
    let (mut definitions, mut others) = (Map::new(), Map::new());
    let mut signal = |kind: &str, own: &[Key], about: &str| {
        let kind_is = kind_key(json!({ "const": kind }), Some("NAME"), "Which signal.");
        let keys: Vec<Key> = std::iter::once(kind_is).chain(stack.iter().chain(own).cloned()).collect();
        definitions.insert(format!("signal-{kind}"), object(about, &keys));
    };
    signal("extrinsic", &[], "The environment's own reward.");
    for section in &sections {
        match (section.name, section.kind) {
            (SIGNAL, Some(kind)) => signal(kind, &section.keys, &section.about),
            (SIGNAL, None) => {}
            (name, kind) => {
                let name = kind.map_or(name.into(), |kind| format!("{name}-{kind}"));
                others.insert(name, object(&section.about, &section.keys));
            }
        }
    }
    let builtin = BUILTIN_SIGNALS;
    let mut registered =
        object("A kind of signal that a user's program registers, with its own keys.", &stack);
    registered["properties"]["kind"] = json!({ "type": "string", "not": { "enum": builtin } });
    registered["additionalProperties"] = true.into();
    definitions.insert("signal-registered".into(), registered);
    definitions.extend(others);

    let refer = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    let chosen = |name: &str| json!({ "allOf": [refer(name), { "required": ["kind"] }] });
    // A section that is called as a built-in kind is of that kind unless it says otherwise.
    let called = |name: &str| {
        let others = builtin.iter().filter(|other| **other != name);
        let mut all = vec![refer(&format!("signal-{name}"))];
        all.extend(others.map(|other| chosen(&format!("signal-{other}"))));
        all.push(chosen("signal-registered"));
        json!({ "anyOf": all })
    };
    let mut any: Vec<Value> = builtin.iter().map(|kind| chosen(&format!("signal-{kind}"))).collect();
    any.push(refer("signal-registered"));
    let mut properties = Map::new();
    properties
        .insert("format".into(), json!({ "const": FORMAT, "description": "Version of the recipe format." }));
    for name in ["run", "env", "data", "rollout", "policy", "eval"] {
        properties.insert(name.into(), refer(name));
    }
    let others = ["a2c", "trpo", "sac", "td3", "bc", "dcgan"].map(|kind| chosen(&format!("learner-{kind}")));
    let learners: Vec<Value> = std::iter::once(refer("learner-ppo")).chain(others).collect();
    properties.insert("learner".into(), json!({ "oneOf": learners }));
    let named: Map<String, Value> = builtin.iter().map(|kind| ((*kind).into(), called(kind))).collect();
    properties.insert(
        "signal".into(),
        json!({
            "type": "object",
            "description": "Reward signals under names of your choice.",
            "properties": named,
            "additionalProperties": { "anyOf": any },
        }),
    );
    Ok(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Imago recipe",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": definitions,
    }))
}

/// Removes what TOML cannot hold (null) and spells out what integer formats mean.
fn tidy(schema: &mut Value) {
    let null = json!({ "type": "null" });
    let Some(map) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            map["type"] = only.clone();
        }
    }
    if map.get("default").is_some_and(|default| default.is_null() || map.contains_key("x-default")) {
        map.remove("default");
    }
    let limits = match map.remove("format").as_ref().and_then(Value::as_str) {
        Some("int32") => Some((i64::from(i32::MIN), i64::from(i32::MAX))),
        Some("uint32") => Some((0, i64::from(u32::MAX))),
        _ => None,
    };
    if let Some((low, high)) = limits {
        map.entry("minimum").or_insert(low.into());
        map.entry("maximum").or_insert(high.into());
    }
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    for alternatives in ["anyOf", "oneOf"] {
        let Some(Value::Array(all)) = map.get_mut(alternatives) else { continue };
        all.retain(|one| *one != null);
        all.iter_mut().for_each(tidy);
        if let [only] = all.as_mut_slice() {
            let only = only.take();
            map.remove(alternatives);
            if let Value::Object(only) = only {
                for (key, value) in only {
                    map.entry(key).or_insert(value);
                }
            }
        }
    }
    if let Some(items) = map.get_mut("items") {
        tidy(items);
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
}

/// A value as recipes write it.
fn as_toml(value: &Value) -> String {
    toml::Value::try_from(value).map_or(value.to_string(), |value| value.to_string())
}

fn text(schema: &Value, key: &str) -> String {
    schema.get(key).and_then(Value::as_str).unwrap_or_default().replace('\n', " ")
}

/// The named choices of an enumeration.
pub fn choices(schema: &Value) -> impl Iterator<Item = &Value> {
    let all = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    all.filter(|choice| choice.get("const").is_some())
}

/// What a schema allows, in words that stand after "expected".
pub fn words(schema: &Value, plural: bool) -> String {
    let alternatives = |all: &[Value]| {
        let all: Vec<String> = all.iter().map(|one| words(one, plural)).collect();
        match all.as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
            _ => all.join(""),
        }
    };
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(Value::Array(all)) = schema.get("oneOf").or(schema.get("anyOf")) {
        return alternatives(all);
    }
    let noun = |one: &str, many: &str| if plural { many.to_string() } else { one.to_string() };
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => noun("a whole number", "whole numbers") + &range(schema),
        Some("number") => noun("a number", "numbers") + &range(schema),
        Some("boolean") => "true or false".into(),
        Some("string") => noun("a string", "strings"),
        Some("array") => {
            let items = schema.get("items").map_or("values".into(), |items| words(items, true));
            let count = length(schema).map_or(String::new(), |count| format!("{count} "));
            noun("a list of ", "lists of ") + &count + &items
        }
        _ => match schema.get("properties").and_then(Value::as_object) {
            Some(properties) => {
                let parts: Vec<String> = properties.keys().map(|key| format!("{key} = …")).collect();
                format!("{{ {} }}", parts.join(", "))
            }
            None => noun("a table", "tables"),
        },
    }
}

fn range(schema: &Value) -> String {
    let bound = |key: &str| schema.get(key).filter(|bound| bound.is_number()).map(short);
    let low = bound("minimum");
    match (&low, bound("exclusiveMinimum"), bound("maximum"), bound("exclusiveMaximum")) {
        (Some(low), _, Some(high), _) => format!(" in [{low}, {high}]"),
        (Some(low), _, None, Some(high)) => format!(" in [{low}, {high})"),
        (None, Some(low), None, None) => format!(" above {low}"),
        (Some(low), None, None, None) => format!(" of at least {low}"),
        _ => String::new(),
    }
}

/// How many items a list has, where only one number is right.
fn length(schema: &Value) -> Option<u64> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    bound("minItems").filter(|_| bound("minItems") == bound("maxItems"))
}

/// 1.0 as 1.
fn short(number: &Value) -> String {
    number
        .as_f64()
        .filter(|x| x.fract() == 0.0 && x.abs() < 1e15)
        .map_or(number.to_string(), |x| format!("{x:.0}"))
}

fn one_line(value: &toml::Value) -> String {
    value.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What is wrong with `value` under `schema`: where within it, and the whole answer. `None` if nothing is.
pub fn complaint(schema: &Value, value: &toml::Value) -> Option<(String, String)> {
    let wrong = || {
        let found = match value {
            toml::Value::String(text) => excerpt(&format!("the string {text:?}")),
            toml::Value::Array(_) => excerpt(&format!("the list {}", one_line(value))),
            toml::Value::Table(_) => excerpt(&format!("the table {}", one_line(value))),
            other => other.to_string(),
        };
        let near = value
            .as_str()
            .and_then(|text| nearest(text, choices(schema).filter_map(|x| x["const"].as_str())));
        let hint = near.map_or(String::new(), |near| format!("; did you mean {near:?}?"));
        Some((String::new(), format!("expected {}, found {found}{hint}", words(schema, false))))
    };
    if let Some(constant) = schema.get("const") {
        return if value.as_str() == constant.as_str() { None } else { wrong() };
    }
    if let Some(Value::Array(all)) = schema.get("oneOf").or(schema.get("anyOf")) {
        return if all.iter().any(|one| complaint(one, value).is_none()) { None } else { wrong() };
    }
    let kind = schema.get("type").and_then(Value::as_str);
    let number = match (kind, value) {
        (Some("integer"), toml::Value::Integer(x)) => *x as f64,
        (Some("number"), toml::Value::Integer(x)) => *x as f64,
        (Some("number"), toml::Value::Float(x)) if x.is_finite() => *x,
        (Some("number"), toml::Value::Float(x)) => {
            return Some((String::new(), format!("expected a finite number, found {x}")));
        }
        (Some("boolean"), toml::Value::Boolean(_)) | (Some("string"), toml::Value::String(_)) => return None,
        (Some("array"), toml::Value::Array(values)) => {
            if length(schema).is_some_and(|count| count != values.len() as u64) {
                return wrong();
            }
            let items = schema.get("items")?;
            return values.iter().any(|value| complaint(items, value).is_some()).then(wrong).flatten();
        }
        (Some("object"), toml::Value::Table(table)) => return table_complaint(schema, table),
        (None, _) => return None,
        _ => return wrong(),
    };
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let inside = bound("minimum").is_none_or(|low| number >= low)
        && bound("exclusiveMinimum").is_none_or(|low| number > low)
        && bound("maximum").is_none_or(|high| number <= high)
        && bound("exclusiveMaximum").is_none_or(|high| number < high);
    if inside { None } else { wrong() }
}

fn table_complaint(schema: &Value, table: &toml::Table) -> Option<(String, String)> {
    let properties = schema.get("properties").and_then(Value::as_object)?;
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    if let Some(missing) = required.filter_map(Value::as_str).find(|key| !table.contains_key(*key)) {
        return Some((String::new(), format!("`{missing}` is missing")));
    }
    table.iter().find_map(|(key, value)| match properties.get(key) {
        Some(schema) => {
            let (path, message) = complaint(schema, value)?;
            Some((if path.is_empty() { key.clone() } else { format!("{key}.{path}") }, message))
        }
        None => Some((key.clone(), "unknown key".into())),
    })
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalogue::RECIPES;
    use crate::recipe::Recipe;

    #[test]
    fn the_committed_schema_is_what_the_code_says() {
        let committed: Value = serde_json::from_str(include_str!("../recipes/schema.json")).unwrap();
        assert!(
            committed == json_schema().unwrap(),
            "recipes have other keys than experiments/recipes/schema.json says; write it anew with\n    cargo run \
             --release --bin imago -- recipes keys --schema > schema.json && mv schema.json experiments/recipes/"
        );
    }

    /// Whether `value` meets `schema`, a part of the whole schema `root`: the keywords of JSON Schema that occur.
    fn meets(root: &Value, schema: &Value, value: &Value) -> bool {
        let all = |schemas: &Value| {
            schemas.as_array().unwrap().iter().map(|s| meets(root, s, value)).collect::<Vec<_>>()
        };
        let number = value.as_f64();
        let keywords = schema.as_object().unwrap();
        keywords.iter().all(|(keyword, rule)| match keyword.as_str() {
            "$ref" => meets(root, root.pointer(&rule.as_str().unwrap()[1..]).unwrap(), value),
            "allOf" => all(rule).iter().all(|met| *met),
            "anyOf" => all(rule).iter().any(|met| *met),
            "oneOf" => all(rule).iter().filter(|met| **met).count() == 1,
            "not" => !meets(root, rule, value),
            "const" => rule == value,
            "enum" => rule.as_array().unwrap().contains(value),
            "type" => match rule.as_str().unwrap() {
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                other => panic!("type {other}"),
            },
            "minimum" => number.is_none_or(|x| x >= rule.as_f64().unwrap()),
            "maximum" => number.is_none_or(|x| x <= rule.as_f64().unwrap()),
            "exclusiveMinimum" => number.is_none_or(|x| x > rule.as_f64().unwrap()),
            "exclusiveMaximum" => number.is_none_or(|x| x < rule.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
            "items" => value.as_array().is_none_or(|items| items.iter().all(|item| meets(root, rule, item))),
            "required" => value.as_object().is_none_or(|map| {
                rule.as_array().unwrap().iter().all(|key| map.contains_key(key.as_str().unwrap()))
            }),
            "properties" => value.as_object().is_none_or(|map| {
                map.iter().all(|(key, value)| rule.get(key).is_none_or(|schema| meets(root, schema, value)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|map| {
                let known = &schema["properties"];
                map.iter().filter(|(key, _)| known.get(key).is_none()).all(|(_, value)| match rule {
                    Value::Bool(allowed) => *allowed,
                    schema => meets(root, schema, value),
                })
            }),
            "$schema" | "$defs" | "title" | "description" | "default" | "x-default" => true,
            other => panic!("this test does not know the keyword {other}"),
        })
    }

    /// Whether the schema takes this recipe.
    pub fn is_valid(recipe: &str) -> bool {
        thread_local!(static SCHEMA: Value = json_schema().unwrap());
        let value = serde_json::to_value(toml::from_str::<toml::Table>(recipe).unwrap()).unwrap();
        SCHEMA.with(|schema| meets(schema, schema, &value))
    }

    #[test]
    fn built_in_recipes_meet_the_schema_as_written_and_as_resolved() {
        for (name, text) in RECIPES {
            let resolved = Recipe::parse(name, text, &[], None, &[]).unwrap().to_toml().unwrap();
            assert!(is_valid(text), "{name}");
            assert!(is_valid(&resolved), "{name}, resolved");
        }
    }

    #[test]
    fn the_schema_refuses_what_the_program_refuses() {
        let good = "[env]\nid = \"CartPole-v1\"\n";
        assert!(is_valid(good));
        for more in [
            "[signal.gail]\ndemos = \"x\"",
            "[signal.a]\nkind = \"gail\"\nreward = \"logit\"",
            "[signal.mine]\nscale = 2\nweight = 0.5",
            "[signal.gail]\nkind = \"extrinsic\"",
            "[learner]\nkind = \"bc\"\npatience = 3",
            "actions = [0, [1, 2], 0.5]\nnoop_max = 30\nsticky_actions = 0.25\naction_repeat = 4\nrepeat_max = true",
            "life_as_episode = true\ncrop = [1, 2, 3, 4]\ngrayscale = true\nresize = [42, 42]\nframe_stack = 4",
        ] {
            assert!(is_valid(&format!("{good}{more}")), "{more}");
        }
        for bad in [
            "[run]\ntotal_steps = 0",
            "[run]\nsteps = 1",
            "[enw]\nid = 1",
            "[policy]\ntorso = \"cnn\"",
            "[policy]\nhidden = [0]",
            "[learner]\nkind = \"bc\"\nclip = 0.1",
            "[learner]\npatience = 3",
            "[learner]\ndiscount = 1.5",
            "[learner]\nlearning_rate = 0.0",
            "[signal.gail]\nrewards = \"logit\"",
            "[signal.gail]\nlabel_smoothing = 0.5",
            "[signal.a]\nkind = \"extrinsic\"\nscale = 2",
            "[signal.a]\nkind = \"mine\"\nscale = 2\nweight = \"x\"",
            "crop = [1, 2, 3]",
            "resize = [0, 42]",
            "actions = [\"left\"]",
            "sticky_actions = 1.5",
            "resize_method = \"cubic\"",
        ] {
            assert!(!is_valid(&format!("{good}{bad}")), "{bad}");
            let refused = Recipe::parse("r", &format!("{good}{bad}"), &[], None, &["mine"]);
            assert!(refused.is_err(), "{bad}");
        }
    }

    #[test]
    fn every_key_has_a_meaning_a_type_and_a_default() {
        for section in sections().unwrap() {
            assert!(!section.about.is_empty() && !section.keys.is_empty(), "{}", section.title());
            for key in &section.keys {
                for word in [key.about(), key.kind(), key.default()] {
                    assert!(!word.is_empty(), "{} {}", section.title(), key.name);
                }
            }
        }
    }

    #[test]
    fn types_in_words() {
        let of = |name: &str| {
            let sections = sections().unwrap();
            let mut keys = sections.iter().flat_map(|section| {
                section.keys.iter().map(|key| (format!("{}.{}", section.path(), key.name), key.clone()))
            });
            keys.find(|(path, _)| path == name).unwrap().1
        };
        assert_eq!(of("run.total_steps").kind(), "a whole number of at least 1");
        assert_eq!(of("learner.discount").kind(), "a number in [0, 1]");
        assert_eq!(of("learner.learning_rate").kind(), "a number above 0");
        assert_eq!(of("policy.hidden").kind(), "a list of whole numbers in [1, 65536]");
        assert_eq!(of("policy.hidden").default(), "[64, 64] for mlp, [512] for nature, [256] for icm");
        assert_eq!(of("policy.torso").kind(), "\"mlp\", \"nature\" or \"icm\"");
        assert_eq!(of("signal.NAME.weight").kind(), "a number or { from = …, to = … }");
        assert_eq!(of("signal.gail.hidden").default(), "[64, 64]");
        assert_eq!(of("env.id").default(), "required");
        assert_eq!(of("env.crop").kind(), "a list of 4 whole numbers in [0, 4294967295]");
        assert_eq!(of("env.actions").kind(), "a list of numbers or lists of numbers");
        assert_eq!(of("env.sticky_actions").kind(), "a number in [0, 1]");
        assert_eq!(of("env.resize_method").kind(), "\"area\" or \"bilinear\"");
        assert_eq!(of("env.frame_stack").default(), "1");
    }
}
