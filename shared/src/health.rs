//! What the process depends on, and whether each of it is reachable.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// State of every dependency of the process.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Why each dependency is down; `None` for one that is up.
    dependencies: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

impl Health {
    /// Adds a dependency. It is down until it is said to be up.
    #[must_use]
    pub fn dependency(&self, name: &'static str) -> Dependency {
        let dependency = Dependency {
            name,
            health: self.clone(),
        };
        self.set(name, Some("not connected yet".to_owned()));
        dependency
    }

    /// The dependencies that are down, each with its reason.
    #[must_use]
    pub fn down(&self) -> Vec<(&'static str, String)> {
        let dependencies = self
            .dependencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        dependencies
            .iter()
            .filter_map(|(name, down)| Some((*name, down.clone()?)))
            .collect()
    }

    /// One line for each dependency, as `/readyz` answers it.
    #[must_use]
    pub fn lines(&self) -> String {
        let dependencies = self
            .dependencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        dependencies
            .iter()
            .map(|(name, down)| match down {
                None => format!("{name}: ok\n"),
                Some(reason) => format!("{name}: down: {reason}\n"),
            })
            .collect()
    }

    /// Sets a state and returns the one before.
    fn set(&self, name: &'static str, down: Option<String>) -> Option<String> {
        let mut dependencies = self
            .dependencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        dependencies.insert(name, down).flatten()
    }
}

/// Says whether one dependency is up, and logs when that changes.
#[derive(Clone, Debug)]
pub struct Dependency {
    name: &'static str,
    health: Health,
}

impl Dependency {
    /// The dependency works.
    pub fn up(&self) {
        if self.health.set(self.name, None).is_some() {
            tracing::info!(dependency = self.name, "dependency is up");
        }
    }

    /// The dependency does not work, and why. Logged once for as long as the reason stays the same.
    pub fn down(&self, reason: &dyn std::fmt::Display) {
        let reason = reason.to_string();
        if self.health.set(self.name, Some(reason.clone())).as_ref() != Some(&reason) {
            tracing::warn!(dependency = self.name, %reason, "dependency is down");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_down_until_it_is_up_and_names_its_reason() {
        let health = Health::default();
        let broker = health.dependency("broker");
        assert_eq!(health.down().len(), 1);
        broker.up();
        assert!(health.down().is_empty());
        broker.down(&"refused");
        assert_eq!(health.lines(), "broker: down: refused\n");
    }
}
