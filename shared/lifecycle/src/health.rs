//! What the process depends on, and whether each of it is reachable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::metrics::{DEPENDENCY_UP, DependencyName};

/// Minimum time between two log lines about a dependency that stays down. While a server starts, each
/// attempt to reach it can fail for another reason.
const RELOG_INTERVAL: Duration = Duration::from_secs(30);

/// State of every dependency of the process.
#[derive(Clone, Debug, Default)]
pub struct Health {
    dependencies: Arc<Mutex<BTreeMap<&'static str, State>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Why it is down; `None` while it is up.
    down: Option<String>,
    /// When that was last logged.
    logged: Option<Instant>,
    need: Need,
}

/// What it means that a dependency is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Need {
    /// The process cannot do its work.
    #[default]
    Required,
    /// The process does its work as long as this or the other one is up.
    Either(&'static str),
    /// The work waits for it.
    Awaited,
}

impl Health {
    /// Adds a dependency without which the process is not ready. It is down until [`Dependency::up`].
    #[must_use]
    pub fn dependency(&self, name: &'static str) -> Dependency {
        self.add(name, Need::Required)
    }

    /// Adds a dependency that can take the place of `other`, which was added before: one of the two is
    /// enough.
    #[must_use]
    pub fn alternative(&self, name: &'static str, other: &'static str) -> Dependency {
        if let Some(state) = self.dependencies.lock().get_mut(other) {
            state.need = Need::Either(name);
        }
        self.add(name, Need::Either(other))
    }

    /// Adds a dependency that the work waits for. While it is down the process still counts as ready,
    /// because a restart would not help.
    #[must_use]
    pub fn awaited(&self, name: &'static str) -> Dependency {
        self.add(name, Need::Awaited)
    }

    fn add(&self, name: &'static str, need: Need) -> Dependency {
        let state = State {
            down: Some("not connected yet".to_owned()),
            logged: None,
            need,
        };
        self.dependencies.lock().insert(name, state);
        show(name, false);
        Dependency {
            name,
            place: None,
            health: self.clone(),
        }
    }

    /// Whether the process can do its work.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let dependencies = self.dependencies.lock();
        let is_up = |name| {
            dependencies
                .get(name)
                .is_some_and(|state| state.down.is_none())
        };
        dependencies.values().all(|state| {
            state.down.is_none()
                || match state.need {
                    Need::Required => false,
                    Need::Either(other) => is_up(other),
                    Need::Awaited => true,
                }
        })
    }

    /// The dependencies that are down, each with its reason.
    #[must_use]
    pub fn down(&self) -> Vec<(&'static str, String)> {
        self.dependencies
            .lock()
            .iter()
            .filter_map(|(name, state)| Some((*name, state.down.clone()?)))
            .collect()
    }

    /// One line for each dependency, as `/readyz` answers it.
    #[must_use]
    pub fn lines(&self) -> String {
        let line = |(name, state): (&&str, &State)| match &state.down {
            None => format!("{name}: ok\n"),
            Some(reason) => format!("{name}: down: {reason}\n"),
        };
        self.dependencies.lock().iter().map(line).collect()
    }
}

/// Says whether one dependency is up, and logs when that changes.
#[derive(Clone, Debug)]
pub struct Dependency {
    name: &'static str,
    /// Where it is, if that is known.
    place: Option<Arc<str>>,
    health: Health,
}

impl Dependency {
    /// The same, at `place`: a reason that does not name the place follows on it.
    #[must_use]
    pub fn at(mut self, place: &str) -> Self {
        self.place = Some(place.into());
        self
    }

    /// The dependency works.
    pub fn up(&self) {
        let mut dependencies = self.health.dependencies.lock();
        let state = dependencies.entry(self.name).or_default();
        state.logged = None;
        if state.down.take().is_some() {
            show(self.name, true);
            tracing::info!(dependency = self.name, "dependency is up");
        }
    }

    /// Whether it works.
    #[must_use]
    pub fn is_up(&self) -> bool {
        let dependencies = self.health.dependencies.lock();
        dependencies
            .get(self.name)
            .is_some_and(|state| state.down.is_none())
    }

    /// The dependency does not work, for this reason. It is logged when that begins, and later at
    /// intervals when the reason has changed.
    pub fn down(&self, reason: &dyn std::fmt::Display) {
        let mut reason = reason.to_string();
        if let Some(place) = self
            .place
            .as_deref()
            .filter(|place| !reason.contains(*place))
        {
            reason = format!("{place}: {reason}");
        }
        let mut dependencies = self.health.dependencies.lock();
        let state = dependencies.entry(self.name).or_default();
        let is_news = state.down.as_ref() != Some(&reason);
        let is_time = state
            .logged
            .is_none_or(|logged| logged.elapsed() >= RELOG_INTERVAL);
        if is_news && is_time {
            state.logged = Some(Instant::now());
            tracing::warn!(dependency = self.name, %reason, "dependency is down");
        }
        state.down = Some(reason);
        show(self.name, false);
    }
}

fn show(dependency: &'static str, up: bool) {
    let gauge = DEPENDENCY_UP.of(&DependencyName(dependency));
    gauge.set(f64::from(u8::from(up)));
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
        let broker = broker.at("host:5672");
        broker.down(&"refused");
        assert_eq!(health.lines(), "broker: down: host:5672: refused\n");
        broker.down(&"connecting to host:5672: refused");
        assert!(!health.lines().contains("host:5672: connecting"));
    }

    #[test]
    fn one_of_two_alternatives_is_enough_to_be_ready() {
        let health = Health::default();
        let broker = health.dependency("broker");
        let spool = health.alternative("spool", "broker");
        assert!(!health.is_ready());
        spool.up();
        assert!(health.is_ready());
        broker.up();
        spool.down(&"full");
        assert!(health.is_ready());
        broker.down(&"refused");
        assert!(!health.is_ready());
    }

    #[test]
    fn what_is_awaited_is_listed_but_not_needed() {
        let health = Health::default();
        let _client = health.awaited("client service");
        assert!(health.is_ready());
        assert_eq!(health.down().len(), 1);
    }
}
