//! How a process lives: what it depends on and whether that is reachable ([`Health`]), how it is told to stop ([`Shutdown`]),
//! and tasks without which it cannot go on ([`VitalTask`]).

mod health;
mod metrics;
mod shutdown;

pub use crate::metrics::{DEPENDENCY_UP, DependencyName};
pub use health::{Dependency, Health};
pub use shutdown::{Shutdown, VitalTask};
