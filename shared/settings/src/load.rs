//! Loading the settings of a binary from its flags and its environment.

use std::ffi::OsString;

use clap::{Arg, Args, Command};
use thiserror::Error;

use crate::group::Settings;
use crate::spec::Spec;
use crate::values::Values;

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
    /// The settings as they are.
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
    for name in specs.iter().flat_map(Spec::names) {
        if let Some(raw) = matches.remove_one::<String>(&name) {
            values.given.insert(name, raw);
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
    let flags = specs.iter().flat_map(|spec| {
        let help = format!(
            "{} [{}, default: {:?}{}{}]",
            spec.help,
            spec.variable(),
            spec.default,
            spec.bounds
                .map(|(least, most)| format!(", from {least} to {most}"))
                .unwrap_or_default(),
            if spec.is_secret { ", secret" } else { "" }
        );
        spec.names().map(move |name| {
            let flag = Arg::new(name.clone()).long(name.replace('_', "-"));
            // The help says once that there are twins.
            let flag = flag.hide(name != spec.name).help(help.clone());
            flag.value_name("VALUE").allow_hyphen_values(true)
        })
    });
    Command::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .args_override_self(true)
        .after_help(
            "Every setting can be given as the environment variable named with it; a flag wins. \
             A secret can be given in a file instead: add _FILE to the variable, or -file to the flag, \
             and give the name of the file.",
        )
        .args(flags)
}
