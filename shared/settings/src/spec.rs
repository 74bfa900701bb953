//! The description of a setting.

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
    /// Whether its value must not be shown. It can be given in a file then.
    pub is_secret: bool,
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
            is_secret: false,
        }
    }

    /// The same for a setting whose values lie between two.
    #[must_use]
    pub fn within(self, bounds: Option<Bounds>) -> Self {
        Self { bounds, ..self }
    }

    /// The same for a secret, if `is_secret`.
    #[must_use]
    pub fn secret(self, is_secret: bool) -> Self {
        Self { is_secret, ..self }
    }

    /// The same with another default, if this is the setting `name`.
    #[must_use]
    pub fn with_default(self, name: &str, default: &'static str) -> Self {
        let is_meant = self.name == name;
        let default = if is_meant { default } else { self.default };
        Self { default, ..self }
    }

    /// Its name, and that of the setting that names a file with its value, if there is one.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let file = self.is_secret.then(|| file_twin(self.name));
        std::iter::once(self.name.to_owned()).chain(file)
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

/// Name of the setting that names a file with the value of the setting `name`.
pub(crate) fn file_twin(name: &str) -> String {
    format!("{name}_file")
}
