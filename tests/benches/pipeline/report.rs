//! What a run has measured, kept in a folder of the run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tests::processes::Process;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::figure::Figure;
use crate::form::memory_limit;
use crate::plot::plot;
use crate::processors::Shares;
use crate::stage::Trial;
use crate::statistics::median;
use crate::table::{row, tables};

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

/// A line in a panel of the plot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Curve {
    pub(crate) panel: String,
    pub(crate) name: String,
    /// What the points are over.
    pub(crate) x: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Everything measured in a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) form: String,
    pub(crate) machine: String,
    /// Settings that are not the processes' own.
    pub(crate) tried: Vec<String>,
    pub(crate) figures: Vec<Figure>,
    /// What took the processors, by what was measured.
    pub(crate) processors: Vec<(String, Shares)>,
    /// What was followed over time.
    pub(crate) curves: Vec<Curve>,
    #[serde(skip)]
    folder: PathBuf,
}

impl Report {
    pub(crate) fn begin(form: &str, tried: &[Trial]) -> Self {
        let format = format_description!("[year]-[month]-[day]T[hour]-[minute]-[second]Z");
        let name = OffsetDateTime::now_utc().format(format).unwrap();
        Self {
            form: form.to_owned(),
            machine: machine(),
            tried: tried.iter().map(Trial::to_string).collect(),
            figures: Vec::new(),
            processors: Vec::new(),
            curves: Vec::new(),
            folder: runs().join(name),
        }
    }

    /// The report of a run that is kept in a folder.
    pub(crate) fn read(folder: &Path) -> Self {
        let path = folder.join("results.json");
        let numbers = fs::read(&path);
        let numbers = numbers.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&numbers).unwrap()
    }

    /// Adds a figure, and shows it. What could not be measured is left out.
    pub(crate) fn add(&mut self, figure: Figure) {
        println!("{}", row(&figure));
        if figure.value.is_finite() {
            self.figures.push(figure);
        }
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
    pub(crate) fn add_process(&mut self, measurement: &str, process: &str, used: Used) {
        let name = format!("memory of {process}, peak");
        let memory = Figure::new(measurement, name, used.memory, "MiB");
        self.add(memory.limit(memory_limit(process)));
        let name = format!("processor time of {process}");
        let unit = "s per million ids";
        self.add(Figure::new(measurement, name, used.processor_time, unit));
    }

    /// Adds what took the processors, and shows it.
    pub(crate) fn add_processors(&mut self, what: &str, shares: Shares) {
        println!("processors, {what}: {shares}");
        self.processors.push((what.to_owned(), shares));
    }

    /// Writes the files, with what has been measured so far.
    pub(crate) fn write(&self) {
        fs::create_dir_all(&self.folder).unwrap();
        let numbers = serde_json::to_string_pretty(self).unwrap();
        fs::write(self.folder.join("results.json"), numbers).unwrap();
        fs::write(self.folder.join("results.md"), tables(self)).unwrap();
        plot(self, &self.folder.join("results.svg"));
    }

    /// Prints the tables. Returns whether everything is reached that is to be.
    pub(crate) fn finish(self) -> bool {
        println!("\n{}", tables(&self));
        let folder = self.folder.display();
        println!("written: results.md, results.json and results.svg in {folder}");
        let mut reached = self.figures.iter().map(Figure::reached);
        reached.all(|reached| reached != Some(false))
    }
}

/// The folder that has a folder for each run: `bench` in cargo's target folder, below which this program
/// lies.
pub(crate) fn runs() -> PathBuf {
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
