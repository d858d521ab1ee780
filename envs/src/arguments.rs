//! Constructor arguments of native environments, read strictly.

use crate::error::{Error, Result};
use toml::{Table, Value};

/// The table [`EnvSpec::args`](crate::EnvSpec), read by name; whatever the environment does not take is
/// refused with the names that it takes.
pub struct Arguments<'a> {
    id: &'a str,
    table: &'a Table,
    valid: &'a [&'a str],
}

impl<'a> Arguments<'a> {
    /// Arguments of environment `id`, which takes those in `valid` and no other.
    pub fn new(id: &'a str, table: &'a Table, valid: &'a [&'a str]) -> Result<Self> {
        let arguments = Self { id, table, valid };
        match table.keys().find(|name| !valid.contains(&name.as_str())) {
            Some(name) => Err(arguments.refuse(name, "unknown".into())),
            None => Ok(arguments),
        }
    }

    /// A finite number; integers count as numbers. `default` where it is not given.
    pub fn number(&self, name: &str, default: f64) -> Result<f64> {
        let value = match self.table.get(name) {
            None => return Ok(default),
            Some(Value::Float(x)) if !x.is_finite() => {
                return Err(self.refuse(name, format!("expected a finite number, found {x}")));
            }
            Some(value) => value,
        };
        match value {
            Value::Float(x) => Ok(*x),
            Value::Integer(x) => Ok(*x as f64),
            other => Err(self.wrong_type(name, "a number", other)),
        }
    }

    /// `true` or `false`; `default` where it is not given.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.table.get(name) {
            None => Ok(default),
            Some(Value::Boolean(x)) => Ok(*x),
            Some(other) => Err(self.wrong_type(name, "true or false", other)),
        }
    }

    /// A number of things, a positive integer; `default` where it is not given.
    pub fn count(&self, name: &str, default: usize) -> Result<usize> {
        match self.table.get(name) {
            None => Ok(default),
            Some(Value::Integer(x)) => match usize::try_from(*x) {
                Ok(x) if x > 0 => Ok(x),
                _ => Err(self.refuse(name, format!("expected at least 1, found {x}"))),
            },
            Some(other) => Err(self.wrong_type(name, "an integer", other)),
        }
    }

    /// One of the named values in `choices`; `default` where it is not given.
    pub fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)], default: T) -> Result<T> {
        let names = || choices.iter().map(|(name, _)| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        match self.table.get(name) {
            None => Ok(default),
            Some(Value::String(text)) => match choices.iter().find(|(name, _)| name == text) {
                Some((_, value)) => Ok(*value),
                None => Err(self.refuse(name, format!("expected one of {}, found \"{text}\"", names()))),
            },
            Some(other) => Err(self.wrong_type(name, &format!("one of {}", names()), other)),
        }
    }

    fn wrong_type(&self, name: &str, expected: &str, found: &Value) -> Error {
        self.refuse(name, format!("expected {expected}, found {found} ({})", found.type_str()))
    }

    fn refuse(&self, name: &str, what: String) -> Error {
        let valid: Vec<_> = self.valid.iter().map(|name| format!("`{name}`")).collect();
        let takes = if valid.is_empty() { "no arguments".into() } else { valid.join(", ") };
        Error::BadArgument {
            id: self.id.into(),
            argument: name.into(),
            message: format!("{what}; this environment takes {takes}"),
        }
    }
}
