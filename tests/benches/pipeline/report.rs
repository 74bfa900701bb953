//! The table and the raw numbers.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tests::processes::Process;

use crate::form::memory_limit;
use crate::stage::Trial;
use crate::statistics::median;

/// What a figure is to reach.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// Of the ratio to what it is held against.
    RatioAtLeast(f64),
    /// Of the ratio to what it is held against.
    RatioAtMost(f64),
    /// Of the figure itself.
    AtLeast(f64),
    /// Of the figure itself.
    AtMost(f64),
}

/// What a figure is held against.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// The figure as a share of it: a median of the rounds, if there are several.
    pub(crate) ratio: f64,
}

/// Something measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) measurement: &'static str,
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) beside: Option<Reference>,
    pub(crate) goal: Option<Goal>,
}

impl Figure {
    pub(crate) fn new(
        measurement: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self {
            measurement,
            name: name.into(),
            value,
            unit,
            beside: None,
            goal: None,
        }
    }

    /// Holds it against something of the same unit.
    pub(crate) fn beside(mut self, name: &str, value: f64) -> Self {
        self.beside = Some(Reference {
            name: name.to_owned(),
            value,
            ratio: self.value / value,
        });
        self
    }

    /// Puts the median of the ratios of several rounds in place of the ratio of the medians.
    pub(crate) fn with_ratio(mut self, ratio: f64) -> Self {
        if let Some(beside) = &mut self.beside {
            beside.ratio = ratio;
        }
        self
    }

    pub(crate) fn at_least(mut self, ratio: f64) -> Self {
        self.goal = Some(Goal::RatioAtLeast(ratio));
        self
    }

    pub(crate) fn at_most(mut self, ratio: f64) -> Self {
        self.goal = Some(Goal::RatioAtMost(ratio));
        self
    }

    pub(crate) fn no_less_than(mut self, value: f64) -> Self {
        self.goal = Some(Goal::AtLeast(value));
        self
    }

    pub(crate) fn limit(mut self, value: f64) -> Self {
        self.goal = Some(Goal::AtMost(value));
        self
    }

    /// Whether the goal is reached, where there is one.
    fn reached(&self) -> Option<bool> {
        let ratio = self.beside.as_ref().map_or(f64::NAN, |beside| beside.ratio);
        Some(match self.goal? {
            Goal::RatioAtLeast(goal) => ratio >= goal,
            Goal::RatioAtMost(goal) => ratio <= goal,
            Goal::AtLeast(goal) => self.value >= goal,
            Goal::AtMost(goal) => self.value <= goal,
        })
    }

    fn row(&self) -> String {
        let measured = format!("{} {}", number(self.value), self.unit);
        let beside = self.beside.as_ref();
        let reference = beside.map(|beside| format!("{} {}", beside.name, number(beside.value)));
        let ratio = beside.map(|beside| format!("{:.2}", beside.ratio));
        let goal = self.goal.map(|goal| match goal {
            Goal::RatioAtLeast(goal) => format!("at least {goal} of it"),
            Goal::RatioAtMost(goal) => format!("at most {goal} of it"),
            Goal::AtLeast(goal) => format!("at least {goal}"),
            Goal::AtMost(goal) => format!("at most {goal}"),
        });
        let reached = self
            .reached()
            .map(|reached| if reached { "yes" } else { "**no**" });
        format!(
            "| {} | {} | {measured} | {} | {} | {} | {} |",
            self.measurement,
            self.name,
            reference.unwrap_or_default(),
            ratio.unwrap_or_default(),
            goal.unwrap_or_default(),
            reached.unwrap_or_default()
        )
    }
}

/// With as many digits as mean something.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What a process took for its work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    /// Seconds for a million ids.
    pub(crate) processor_time: f64,
    /// The most at once, in MiB.
    pub(crate) memory: f64,
}

impl Used {
    /// By a process that had used `before` of the processors when it began, for so many ids.
    pub(crate) fn since(before: Duration, process: &Process, ids: f64) -> Self {
        let spent = process.processor_time().saturating_sub(before);
        Self {
            processor_time: 1e6 * spent.as_secs_f64() / ids,
            memory: process.peak_kib() as f64 / 1_024.0,
        }
    }

    /// What it took in the middle of several rounds.
    pub(crate) fn median(rounds: impl Iterator<Item = Self> + Clone) -> Self {
        Self {
            processor_time: median(rounds.clone().map(|used| used.processor_time)),
            memory: median(rounds.map(|used| used.memory)),
        }
    }
}

/// Everything measured in a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    form: &'static str,
    machine: String,
    /// Settings that are not the processes' own.
    tried: Vec<String>,
    figures: Vec<Figure>,
}

const HEAD: &str = "\
| measurement | what | measured | beside | ratio | to reach | reached |
| --- | --- | --- | --- | --- | --- | --- |";

impl Report {
    pub(crate) fn begin(form: &'static str, tried: &[Trial]) -> Self {
        Self {
            form,
            machine: machine(),
            tried: tried.iter().map(Trial::to_string).collect(),
            figures: Vec::new(),
        }
    }

    /// Adds a figure, and shows it.
    pub(crate) fn add(&mut self, figure: Figure) {
        println!("{}", figure.row());
        self.figures.push(figure);
    }

    /// Adds a rate and each of its ceilings, given with the median of the ratios to it. The goal is
    /// for the slowest of them.
    pub(crate) fn add_rate(&mut self, rate: &Figure, ceilings: &[(&str, f64, f64)], goal: f64) {
        let ratios = ceilings.iter().map(|(.., ratio)| *ratio);
        let slowest = ratios.fold(f64::MIN, f64::max);
        for (name, value, ratio) in ceilings {
            let figure = rate.clone().beside(name, *value).with_ratio(*ratio);
            self.add(if *ratio < slowest {
                figure
            } else {
                figure.at_least(goal)
            });
        }
    }

    /// Adds what a process took for its work.
    pub(crate) fn add_process(&mut self, measurement: &'static str, process: &str, used: Used) {
        let name = format!("memory of {process}, peak");
        let memory = Figure::new(measurement, name, used.memory, "MiB");
        self.add(memory.limit(memory_limit(process)));
        let name = format!("processor time of {process}");
        let unit = "s per million ids";
        self.add(Figure::new(measurement, name, used.processor_time, unit));
    }

    /// Writes the files, with what has been measured so far.
    pub(crate) fn write(&self) {
        let folder = folder();
        fs::create_dir_all(&folder).unwrap();
        let numbers = serde_json::to_string_pretty(self).unwrap();
        fs::write(folder.join("results.json"), numbers).unwrap();
        fs::write(folder.join("results.md"), self.table()).unwrap();
    }

    /// Prints the table. Returns whether everything is reached that is to be.
    pub(crate) fn finish(self) -> bool {
        println!("\n{}", self.table());
        let folder = folder();
        println!(
            "written: results.md and results.json in {}",
            folder.display()
        );
        self.figures
            .iter()
            .all(|figure| figure.reached() != Some(false))
    }

    fn table(&self) -> String {
        let mut table = format!("{} form, on {}\n", self.form, self.machine);
        if !self.tried.is_empty() {
            writeln!(table, "with {}", self.tried.join(", ")).unwrap();
        }
        writeln!(table, "\n{HEAD}").unwrap();
        for figure in &self.figures {
            writeln!(table, "{}", figure.row()).unwrap();
        }
        table
    }
}

/// `bench` in cargo's target folder, below which this program lies.
fn folder() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().join("bench")
}

/// What this was measured on.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |model| {
        model.trim_start_matches([' ', '\t', ':'])
    });
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{processors} processors ({model}), Linux {}", kernel.trim())
}
