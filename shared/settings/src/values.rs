//! The raw values of settings, and reading them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use crate::spec::{Bounds, Spec, file_twin};
use crate::value::Value;

/// The raw value of each setting by name, and what turned out to be wrong with them.
#[derive(Debug)]
pub struct Values {
    defaults: BTreeMap<&'static str, &'static str>,
    given: BTreeMap<String, String>,
    pub(crate) wrong: Vec<String>,
}

impl Values {
    /// The defaults, and what the environment says, and the flags in place of that. An empty variable counts as not
    /// set: compose files write `${NAME:-}` for what is optional. So does a blank one, if it is no secret.
    pub(crate) fn new(
        specs: &[Spec],
        flags: &BTreeMap<String, String>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let names = specs.iter().flat_map(Spec::names);
        let names: Vec<String> = names.map(|name| name.to_uppercase()).collect();
        let is_secret = |name: &str| {
            let mut secrets = specs.iter().filter(|spec| spec.is_secret);
            secrets.any(|spec| spec.variable() == name)
        };
        let (mut given, mut wrong) = (Vec::new(), Vec::new());
        for (variable, raw) in environment {
            let Some(name) = names.iter().find(|name| variable == *name.as_str()) else {
                continue;
            };
            match raw.into_string() {
                Ok(raw) if raw.is_empty() || raw.trim().is_empty() && !is_secret(name) => {}
                Ok(raw) => given.push((name.clone(), raw)),
                Err(_) => wrong.push(format!("{name}: not valid UTF-8")),
            }
        }
        // The names of variables in lower case, as envy gives them, are those of the settings.
        let given = envy::from_iter::<_, BTreeMap<String, String>>(given);
        let mut given = given.unwrap_or_else(|error| {
            wrong.push(error.to_string());
            BTreeMap::new()
        });
        given.extend(flags.clone());
        let defaults = specs.iter();
        Self {
            defaults: defaults.map(|spec| (spec.name, spec.default)).collect(),
            given,
            wrong,
        }
    }

    /// Reads one setting.
    pub fn read<T: Value>(&mut self, name: &'static str) -> Option<T> {
        self.read_if::<T>(name, |_| Ok(()))
    }

    /// Reads a setting whose value lies between two.
    pub fn read_within<T: Value + PartialOrd>(
        &mut self,
        name: &'static str,
        (least, most): Bounds,
    ) -> Option<T> {
        self.read_if::<T>(name, |value| {
            let is_within = T::parse(least).is_ok_and(|least| least <= *value)
                && T::parse(most).is_ok_and(|most| *value <= most);
            is_within
                .then_some(())
                .ok_or_else(|| format!("not from {least} to {most}"))
        })
    }

    fn read_if<T: Value>(
        &mut self,
        name: &'static str,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> Option<T> {
        let value = self.parse::<T>(name, check);
        value
            .map_err(|wrong| {
                // A setting of several groups is read several times.
                if !self.wrong.contains(&wrong) {
                    self.wrong.push(wrong);
                }
            })
            .ok()
    }

    fn parse<T: Value>(
        &self,
        name: &'static str,
        check: impl FnOnce(&T) -> Result<(), String>,
    ) -> Result<T, String> {
        let given = self.given.get(name).map(String::as_str);
        // A blank may be a part of a password.
        let given = given.map(|raw| if T::SECRET { raw } else { raw.trim() });
        let variable = name.to_uppercase();
        let file = self.given.get(&file_twin(name)).filter(|_| T::SECRET);
        if let Some(file) = file {
            if given.is_some() {
                return Err(format!(
                    "{variable} and {variable}_FILE: both are given; leave one of them out"
                ));
            }
            return parse_file(&variable, file.trim());
        }
        let raw = given.or(self.defaults.get(name).copied());
        let raw = raw.unwrap_or_default();
        let value = T::parse(raw).and_then(|value| check(&value).map(|()| value));
        value.map_err(|reason| {
            let shown = if T::SECRET { "***" } else { raw };
            format!("{variable}={shown}: {reason}")
        })
    }
}

fn parse_file<T: Value>(variable: &str, file: &str) -> Result<T, String> {
    let file = Path::new(file);
    T::parse_file(file).map_err(|reason| {
        // Else it may be the secret itself, given by mistake.
        let is_name = file.is_absolute() || file.exists();
        let shown = if is_name { file } else { Path::new("***") };
        format!("{variable}_FILE={}: {reason}", shown.display())
    })
}
