//! Settings: each exists once, typed, with its default and its help, and comes from the environment
//! or from the flag of the same name (`OBJECT_TTL=30s`, `--object-ttl 30s`), the flag winning.
//!
//! A group of settings is declared with [`settings!`](crate::settings!); the documentation of a field
//! is what `--help` prints. Each number and duration has bounds, within which the process can do its
//! work.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, Args, Command};
use thiserror::Error;

mod value;

pub use value::{ByteSize, DurationOrZero, ENCODE, Ratio, Value, mask_password, parse_url};

/// One setting, as `--help` and the README list it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name in snake case: `object_ttl`.
    pub name: &'static str,
    /// Its value if the user gives none, written as a user would write it.
    pub default: &'static str,
    /// What it does, and why a user would change it.
    pub help: String,
    /// Least and largest value, written as a user would write them.
    pub bounds: Option<Bounds>,
}

/// Least and largest value.
pub type Bounds = (&'static str, &'static str);

impl Spec {
    /// Describes a setting; `help` is its documentation, line by line.
    #[must_use]
    pub fn new(name: &'static str, default: &'static str, help: &[&str]) -> Self {
        let help = help
            .iter()
            .map(|line| line.trim())
            .collect::<Vec<_>>()
            .join(" ");
        Self {
            name,
            default,
            help,
            bounds: None,
        }
    }

    /// The same for a setting whose values lie between two.
    #[must_use]
    pub fn within(self, bounds: Option<Bounds>) -> Self {
        Self { bounds, ..self }
    }

    /// The same with another default, if this is the setting `name`.
    #[must_use]
    pub fn with_default(self, name: &str, default: &'static str) -> Self {
        let is_meant = self.name == name;
        let default = if is_meant { default } else { self.default };
        Self { default, ..self }
    }

    /// Name of the environment variable: `OBJECT_TTL`.
    #[must_use]
    pub fn variable(&self) -> String {
        self.name.to_uppercase()
    }

    /// Name of the flag, without its dashes: `object-ttl`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// A group of settings, made by [`settings!`](crate::settings!).
pub trait Settings: Sized {
    /// Every setting of the group, in the order of `--help`.
    fn specs() -> Vec<Spec>;

    /// Takes the group's values. `None` if one is wrong; `values` then holds the reason of each wrong
    /// setting.
    fn read(values: &mut Values) -> Option<Self>;

    /// Whether the values go together.
    ///
    /// # Errors
    /// Names the settings that do not go together, and says why.
    fn check(&self) -> Result<(), String>;

    /// Name and masked value of every setting in force.
    fn show(&self) -> Vec<(&'static str, String)>;
}

/// The raw value of each setting by name, and what turned out to be wrong with them.
#[derive(Debug)]
pub struct Values {
    raw: BTreeMap<String, String>,
    wrong: Vec<String>,
}

impl Values {
    /// The defaults, and in their place what the environment says. An empty variable, or a blank one,
    /// counts as not set: compose files write `${NAME:-}` for what is optional.
    fn new(specs: &[Spec], environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
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

/// Declares a group of settings as a struct with [`Settings`]; `in` gives the bounds of a value, `with`
/// names the groups that are included, `where` another default of a setting of such a group, and `check`
/// a function that says whether values go together.
///
/// ```
/// settings::settings! {
///     /// Settings of an example.
///     pub struct Example {
///         /// How many there are.
///         pub count: std::num::NonZeroUsize = "3" in "1"..="100",
///     } with {}
/// }
/// ```
#[macro_export]
macro_rules! settings {
    (@read $values:ident, $Type:ty, $name:expr) => {
        $values.read::<$Type>($name)
    };
    (@read $values:ident, $Type:ty, $name:expr, $least:literal, $most:literal) => {
        $values.read_within::<$Type>($name, ($least, $most))
    };
    (
        $(#[$meta:meta])*
        pub struct $Name:ident {
            $( $(#[doc = $help:literal])+ pub $field:ident : $Type:ty = $default:literal
                $(in $least:literal ..= $most:literal)?, )*
        } with {
            $( $(#[doc = $about:literal])+ pub $group:ident : $Group:ty
                $(where $setting:ident = $other:literal)?, )*
        } $(check $check:path)?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $Name {
            $( $(#[doc = $help])+ pub $field: $Type, )*
            $( $(#[doc = $about])+ pub $group: $Group, )*
        }

        impl $crate::Settings for $Name {
            fn specs() -> Vec<$crate::Spec> {
                let own = vec![
                    $( $crate::Spec::new(stringify!($field), $default, &[$($help),+])
                        .within(None $(.or(Some(($least, $most))))?), )*
                ];
                let groups: Vec<Vec<$crate::Spec>> = vec![$(
                    <$Group as $crate::Settings>::specs().into_iter()
                        $(.map(|spec| spec.with_default(stringify!($setting), $other)))?
                        .collect()
                ),*];
                own.into_iter().chain(groups.into_iter().flatten()).collect()
            }

            fn read(values: &mut $crate::Values) -> Option<Self> {
                // Every setting is read before the first `?`, so that all errors are found.
                $( let $field = $crate::settings!(
                    @read values, $Type, stringify!($field) $(, $least, $most)?
                ); )*
                $( let $group = <$Group as $crate::Settings>::read(values); )*
                Some(Self { $( $field: $field?, )* $( $group: $group?, )* })
            }

            fn check(&self) -> Result<(), String> {
                $( $crate::Settings::check(&self.$group)?; )*
                $( $check(self)?; )?
                Ok(())
            }

            fn show(&self) -> Vec<(&'static str, String)> {
                let own = vec![
                    $( (stringify!($field), $crate::Value::show(&self.$field)), )*
                ];
                let groups: Vec<Vec<(&'static str, String)>> =
                    vec![$( $crate::Settings::show(&self.$group) ),*];
                own.into_iter().chain(groups.into_iter().flatten()).collect()
            }
        }
    };
}

/// Why a process has no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The flags could not be understood, or were `--help` or `--version`.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// One line for each wrong setting, naming it.
    #[error("{} wrong setting(s):\n  {}", .0.len(), .0.join("\n  "))]
    Invalid(Vec<String>),
}

/// What the command line and the environment ask for.
#[derive(Debug)]
pub struct Loaded<C, A> {
    /// The settings in force.
    pub settings: C,
    /// The arguments besides the settings.
    pub arguments: A,
}

/// Reads the settings `C` and the arguments `A` of the binary `name` from `arguments` (program name
/// first) and `environment`.
///
/// # Errors
/// [`ConfigError::Usage`] for flags that do not exist and for `--help`;
/// [`ConfigError::Invalid`] with all wrong settings at once.
pub fn load<C: Settings, A: Args>(
    name: &'static str,
    about: &'static str,
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded<C, A>, ConfigError> {
    let specs = C::specs();
    let mut values = Values::new(&specs, environment);
    // The arguments have documentation too, which is not that of the binary.
    let command = A::augment_args(command(name, &specs))
        .about(about)
        .long_about(None);
    let mut matches = command.try_get_matches_from(arguments)?;
    for spec in &specs {
        if let Some(raw) = matches.remove_one::<String>(spec.name) {
            values.raw.insert(spec.name.to_owned(), raw);
        }
    }
    let arguments = A::from_arg_matches_mut(&mut matches)?;
    match C::read(&mut values) {
        Some(settings) if values.wrong.is_empty() => match settings.check() {
            Ok(()) => Ok(Loaded {
                settings,
                arguments,
            }),
            Err(wrong) => Err(ConfigError::Invalid(vec![wrong])),
        },
        _ => Err(ConfigError::Invalid(values.wrong)),
    }
}

fn command(name: &'static str, specs: &[Spec]) -> Command {
    let flags = specs.iter().map(|spec| {
        Arg::new(spec.name)
            .long(spec.flag())
            .value_name("VALUE")
            .allow_hyphen_values(true)
            .help(format!(
                "{} [{}, default: {:?}{}]",
                spec.help,
                spec.variable(),
                spec.default,
                spec.bounds
                    .map(|(least, most)| format!(", from {least} to {most}"))
                    .unwrap_or_default()
            ))
    });
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .args_override_self(true)
        .after_help(
            "Every setting can be given as the environment variable named with it; a flag wins.",
        )
        .args(flags)
}

#[cfg(test)]
mod tests;
