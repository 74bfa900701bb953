//! Two runs, figure by figure.

use std::fs;
use std::path::PathBuf;

use crate::figure::Figure;
use crate::report::{Report, runs};
use crate::table::{name, number};

const HEAD: &str = "\
| measurement | what | A | B | B / A | |
| --- | --- | --- | --- | --- | --- |";

/// How much a figure may differ from one run to the next without a reason, as a share, on top of what its
/// rounds do.
const NOISE: f64 = 0.1;
/// The same for times, whose percentiles differ more.
const NOISE_OF_TIMES: f64 = 0.3;

/// Which way a figure is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

/// Prints the ratios of the figures of two runs, each the name of a folder among the kept runs, or its
/// path; the last two if none is named. Returns whether nothing got worse.
pub(crate) fn compare(named: &[String]) -> bool {
    let folders = match named {
        [] => last_two(),
        [a, b] => [a, b].map(|name| runs().join(name)),
        _ => panic!("name two runs, or none for the last two"),
    };
    let [a, b] = folders.each_ref().map(|folder| Report::read(folder));
    for (letter, folder, report) in [("A", &folders[0], &a), ("B", &folders[1], &b)] {
        let name = folder.file_name().unwrap_or_default().display();
        let tried = report.tried.join(", ");
        println!(
            "{letter}: {name}, {} form, on {} {tried}",
            report.form, report.machine
        );
    }
    println!("\n{HEAD}");
    let mut worse = 0;
    for before in &a.figures {
        let after = b.figures.iter().find(|figure| figure.is_like(before));
        if let Some(after) = after {
            let mark = mark(before, after);
            worse += usize::from(mark == WORSE);
            println!("{}", row(before, after, mark));
        }
    }
    println!("\n{worse} figures are worse beyond noise");
    worse == 0
}

const WORSE: &str = "**worse**";

fn row(before: &Figure, after: &Figure, mark: &str) -> String {
    let ratio = after.value / before.value;
    format!(
        "| {} | {} | {} | {} {} | {} | {mark} |",
        before.measurement,
        name(before),
        number(before.value),
        number(after.value),
        after.unit,
        // Of what there was none of, there is no ratio.
        if ratio.is_finite() {
            number(ratio)
        } else {
            String::new()
        }
    )
}

/// What is to be said of a figure that differs by more than noise.
fn mark(before: &Figure, after: &Figure) -> &'static str {
    let noise = match before.unit.as_str() {
        "ms" | "s" => NOISE_OF_TIMES,
        _ => NOISE,
    };
    let factor = 1.0 + noise + before.spread.max(after.spread);
    let (less, more) = match better(&before.unit) {
        None => return "",
        Some(Better::More) => (WORSE, "better"),
        Some(Better::Less) => ("better", WORSE),
    };
    // Both may be 0.
    if after.value > before.value * factor {
        more
    } else if after.value * factor < before.value {
        less
    } else {
        ""
    }
}

fn better(unit: &str) -> Option<Better> {
    match unit {
        "look-ups" => None,
        unit if unit.ends_with("/s") => Some(Better::More),
        "of all" => Some(Better::More),
        _ => Some(Better::Less),
    }
}

/// The folders of the last two runs: their names are in the order of their times.
fn last_two() -> [PathBuf; 2] {
    let entries = fs::read_dir(runs()).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    folders.retain(|folder| folder.join("results.json").exists());
    folders.sort_unstable();
    match folders.as_slice() {
        [.., a, b] => [a.clone(), b.clone()],
        _ => panic!("there are not two runs in {}", runs().display()),
    }
}
