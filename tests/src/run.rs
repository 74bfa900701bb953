//! Running a test in a world of its own.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Failed, Trial};
use tokio::runtime::Runtime;

use crate::servers::Servers;
use crate::world::World;

/// How long one test may take.
const TEST_BOUND: Duration = Duration::from_mins(3);

/// A test: a sentence, and what checks it.
pub struct Test {
    name: &'static str,
    body: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>,
    ignored: bool,
}

impl Test {
    /// Made by [`tests!`](crate::tests).
    #[must_use]
    pub fn new(
        name: &'static str,
        body: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>,
    ) -> Self {
        Self {
            name,
            body,
            ignored: false,
        }
    }

    /// The test, listed but not run if `condition` holds for its name.
    #[must_use]
    pub fn ignored_where(self, condition: impl Fn(&str) -> bool) -> Self {
        Self {
            ignored: condition(self.name),
            ..self
        }
    }

    /// The test as the runner takes it.
    #[must_use]
    pub fn trial(self, servers: Option<Arc<Servers>>) -> Trial {
        let Self {
            name,
            body,
            ignored,
        } = self;
        let name = name.strip_prefix("end_to_end::").unwrap_or(name);
        let trial = Trial::test(name, move || match servers {
            Some(servers) => run(&servers, body),
            None => Err(Failed::from("no servers")),
        });
        trial.with_ignored_flag(ignored)
    }
}

/// Lists the tests of a module as `pub fn tests()`.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        /// The tests of this module.
        pub fn tests() -> Vec<$crate::run::Test> {
            vec![$($crate::run::Test::new(
                concat!(module_path!(), "::", stringify!($name)),
                |world| Box::pin($name(world)),
            )),*]
        }
    };
}

fn run(
    servers: &Servers,
    body: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>,
) -> Result<(), Failed> {
    let runtime = Runtime::new().map_err(|error| Failed::from(error.to_string()))?;
    runtime.block_on(async {
        let mut world = World::create(servers).await.with_spool_in_memory();
        let bounded = tokio::time::timeout(TEST_BOUND, body(&mut world));
        let result = std::panic::AssertUnwindSafe(bounded).catch_unwind().await;
        world.destroy().await;
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Failed::from(format!("not done after {TEST_BOUND:?}"))),
            Err(panic) => Err(Failed::from(message(&*panic))),
        }
    })
}

pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic")
        .to_owned()
}
