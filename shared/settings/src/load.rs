//! Loading the settings of a binary from its flags and its environment.

use std::collections::BTreeMap;
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

/// What the command line says. No setting is read yet.
#[derive(Debug)]
pub struct CommandLine<A> {
    /// The arguments besides the settings.
    pub arguments: A,
    /// All settings of the binary.
    specs: Vec<Spec>,
    flags: BTreeMap<String, String>,
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
    let given = parse::<C, A>(name, about, arguments)?;
    Ok(Loaded {
        settings: given.read(environment)?,
        arguments: given.arguments,
    })
}

/// Reads the command line of the binary `name`, whose settings are `C`.
///
/// # Errors
/// [`ConfigError::Usage`] for flags that do not exist and for `--help`.
pub fn parse<C: Settings, A: Args>(
    name: &'static str,
    about: &'static str,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<CommandLine<A>, ConfigError> {
    let specs = C::specs();
    // The arguments have documentation too, which is not that of the binary.
    let command = A::augment_args(command(name, &specs))
        .about(about)
        .long_about(None);
    let mut matches = command.try_get_matches_from(arguments)?;
    let names = specs.iter().flat_map(Spec::names);
    let flags = names.filter_map(|name| matches.remove_one::<String>(&name).map(|raw| (name, raw)));
    Ok(CommandLine {
        flags: flags.collect(),
        arguments: A::from_arg_matches_mut(&mut matches)?,
        specs,
    })
}

impl<A> CommandLine<A> {
    /// Reads `P`, which are all settings of the binary or a few of them, from these flags and `environment`.
    /// What is said of other settings does not matter.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all wrong settings at once.
    pub fn read<P: Settings>(
        &self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<P, ConfigError> {
        let wanted = P::specs();
        // The defaults are those of the binary.
        let specs = self.specs.iter();
        let specs = specs.filter(|spec| wanted.iter().any(|wanted| wanted.name == spec.name));
        let specs: Vec<Spec> = specs.cloned().collect();
        let mut values = Values::new(&specs, &self.flags, environment);
        match P::read(&mut values) {
            Some(settings) if values.wrong.is_empty() => {
                let checked = settings.check();
                checked.map_err(|wrong| ConfigError::Invalid(vec![wrong]))?;
                Ok(settings)
            }
            _ => Err(ConfigError::Invalid(values.wrong)),
        }
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
