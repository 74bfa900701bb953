//! The raw values of settings, and reading them.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::spec::{Bounds, Spec};
use crate::value::Value;

/// The raw value of each setting by name, and what turned out to be wrong with them.
#[derive(Debug)]
pub struct Values {
    pub(crate) raw: BTreeMap<String, String>,
    pub(crate) wrong: Vec<String>,
}

impl Values {
    /// The defaults, and in their place what the environment says. An empty variable, or a blank one,
    /// counts as not set: compose files write `${NAME:-}` for what is optional.
    pub(crate) fn new(
        specs: &[Spec],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let (mut given, mut wrong) = (Vec::new(), Vec::new());
        for (variable, raw) in environment {
            let Some(spec) = specs.iter().find(|spec| variable == *spec.variable()) else {
                continue;
            };
            match raw.into_string() {
                Ok(raw) if raw.trim().is_empty() => {}
                Ok(raw) => given.push((spec.variable(), raw)),
                Err(_) => wrong.push(format!("{}: not valid UTF-8", spec.variable())),
            }
        }
        let defaults = specs.iter();
        let defaults = defaults.map(|spec| (spec.name.to_owned(), spec.default.to_owned()));
        let mut raw: BTreeMap<String, String> = defaults.collect();
        // The names of variables in lower case, as envy gives them, are those of the settings.
        match envy::from_iter::<_, BTreeMap<String, String>>(given) {
            Ok(given) => raw.extend(given),
            Err(error) => wrong.push(error.to_string()),
        }
        Self { raw, wrong }
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
        let raw = self.raw.get(name).map_or("", |raw| raw.trim());
        let value = T::parse(raw).and_then(|value| check(&value).map(|()| value));
        value
            .map_err(|reason| {
                let shown = if T::SECRET { "***" } else { raw };
                self.wrong
                    .push(format!("{}={shown}: {reason}", name.to_uppercase()));
            })
            .ok()
    }
}
