//! Running a fault case in its world, and the table of all cases.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Completion, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::FaultWorld;
use super::ledger::Verdict;
use super::load::Answers;
use crate::servers::{Servers, variable};

/// How long a case may take, in addition to the time of random faults.
const CASE_BOUND: Duration = Duration::from_mins(4);

/// Back at work later than this is a failure, unless the case says why it takes longer.
const BACK_BOUND: Duration = Duration::from_secs(5);

const HEAD: &str = "\
| case | accepted | refused | stored | offline | gone | dead | parked | lost | early | never deleted | slowest 202 | back after |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

type Body = for<'a> fn(&'a mut FaultWorld) -> LocalBoxFuture<'a, ()>;

/// A case: a sentence, and the faults.
pub struct Case {
    name: &'static str,
    body: Body,
}

/// What may happen in a case, because the case itself causes it.
#[derive(Default)]
pub struct Allowed {
    refusals: bool,
    parking: bool,
    /// How late it may be back at work, and why.
    back: Option<(Duration, &'static str)>,
}

impl Allowed {
    /// Callbacks may be refused, because the case disturbs what accepts them.
    pub fn refuse(&mut self) {
        self.refusals = true;
    }

    /// Messages may wait for an operator, because the case deletes queues or the exchange.
    pub fn park(&mut self) {
        self.parking = true;
    }

    /// It may be back at work as late as this, for a reason.
    pub fn be_back_within(&mut self, bound: Duration, reason: &'static str) {
        self.back = Some((bound, reason));
    }

    /// What must not have happened in the case, and has.
    fn failures(
        &self,
        verdict: &Verdict,
        answers: &Answers,
        back: Option<Duration>,
    ) -> Vec<String> {
        let mut failures = verdict.failures();
        let Answers {
            callbacks,
            late,
            refused,
            ..
        } = answers;
        if *refused > 0 && !self.refusals {
            failures.push(format!("{refused} callbacks refused"));
        }
        // A machine that stands still for a moment may make a few late.
        if late * 50 > *callbacks && !self.refusals {
            failures.push(format!("{late} of {callbacks} callbacks answered late"));
        }
        if verdict.parked_messages > 0 && !self.parking {
            failures.push(format!("{} messages parked", verdict.parked_messages));
        }
        let (bound, reason) = self.back.unwrap_or((BACK_BOUND, "the aim"));
        if let Some(late) = back.filter(|back| *back > bound) {
            failures.push(format!("back after {late:?}, not {bound:?} ({reason})"));
        }
        failures
    }
}

/// The lines of the table, as cases end. Clones share one table.
#[derive(Clone, Default)]
pub struct Table(Arc<Mutex<Vec<String>>>);

impl Case {
    /// Made by [`cases!`](crate::cases).
    #[must_use]
    pub fn new(name: &'static str, body: Body) -> Self {
        let name = name.strip_prefix("faults::").unwrap_or(name);
        Self { name, body }
    }

    /// The case as the runner takes it.
    #[must_use]
    pub fn trial(self, servers: Option<&'static Servers>, table: Table) -> Trial {
        Trial::ignorable_test(self.name, move || match servers {
            Some(servers) => self.run(servers, &table),
            None => Err(Failed::from("no servers")),
        })
    }

    fn run(&self, servers: &'static Servers, table: &Table) -> Result<Completion, Failed> {
        let runtime = Runtime::new().map_err(|error| Failed::from(error.to_string()))?;
        runtime.block_on(async {
            let mut world = FaultWorld::create(servers).await;
            let result = self.run_in(&mut world, table).await;
            let result = result.map_err(|failure| format!("{failure}\n{}", world.logs()));
            if result.is_err() {
                world.repair().await;
            }
            let skipped = world.skipped.take();
            world.destroy().await;
            result?;
            Ok(skipped.map_or(Completion::Completed, Completion::ignored_with))
        })
    }

    async fn run_in(&self, world: &mut FaultWorld, table: &Table) -> Result<(), String> {
        let bounded = timeout(CASE_BOUND + duration(), (self.body)(world));
        let body = std::panic::AssertUnwindSafe(bounded).catch_unwind().await;
        let failure = match body {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some("not done in time".to_owned()),
            Err(panic) => Some(message(&*panic)),
        };
        if let Some(failure) = failure {
            return Err(failure);
        }
        if world.skipped.is_some() {
            return Ok(());
        }
        let settled = std::panic::AssertUnwindSafe(world.settle()).catch_unwind();
        let verdict = settled.await.map_err(|panic| message(&*panic))?;
        let (answers, back) = (world.load.answers(), world.back_after);
        table.add(self.name, &verdict, &answers, back, &world.notes);
        if world.ingest_was_started_again() {
            world.allowed.refuse();
        }
        let failures = world.allowed.failures(&verdict, &answers, back);
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures.join("\n"))
        }
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic")
        .to_owned()
}

impl Table {
    fn add(
        &self,
        case: &str,
        verdict: &Verdict,
        answers: &Answers,
        back: Option<Duration>,
        notes: &[String],
    ) {
        let Verdict {
            accepted,
            stored,
            offline,
            gone,
            dead,
            parked,
            lost,
            early,
            never_deleted,
            ..
        } = verdict;
        let case = case.rsplit("::").next().unwrap_or(case).replace('_', " ");
        let (refused, lost) = (answers.refused, lost.len());
        let back = back.map_or_else(|| "-".to_owned(), seconds);
        let slowest = seconds(answers.slowest);
        let mut line = format!(
            "| {case} | {accepted} | {refused} | {stored} | {offline} | {gone} | {dead} | {parked} \
             | {lost} | {early} | {never_deleted} | {slowest} | {back} |"
        );
        show(&line);
        for note in notes {
            show(note);
            write!(line, "\n{note}").unwrap_or_default();
        }
        self.0.lock().unwrap().push(line);
    }

    /// Prints all of it.
    pub fn print(&self) {
        let lines = self.0.lock().unwrap();
        if !lines.is_empty() {
            show(&format!("\n{HEAD}\n{}", lines.join("\n")));
        }
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[expect(clippy::print_stdout, reason = "the table is what the suite is for")]
fn show(text: &str) {
    println!("{text}");
}

/// How long random faults go on: `FAULTS_DURATION`.
#[must_use]
pub fn duration() -> Duration {
    let given = variable("FAULTS_DURATION");
    let given = given.map(|raw| <Duration as settings::Value>::parse(&raw));
    match given {
        Some(parsed) => parsed.unwrap_or_else(|error| panic!("FAULTS_DURATION: {error}")),
        None => Duration::from_secs(30),
    }
}

/// Lists the cases of a module as `pub fn cases()`.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// The cases of this module.
        pub fn cases() -> Vec<$crate::faults::Case> {
            vec![$($crate::faults::Case::new(
                concat!(module_path!(), "::", stringify!($name)),
                |world| Box::pin($name(world)),
            )),*]
        }
    };
}
