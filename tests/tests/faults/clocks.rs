//! Clocks that are off. The database's clock alone says when a row expires.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::faults::{FaultWorld, OBJECT_TTL, Part};
use tests::servers::database::{replace_clock, set_clock_ahead};
use tokio::time::sleep;

tests::cases![
    clocks_of_hosts_five_minutes_off,
    the_clock_of_the_database_an_hour_ahead_and_back,
];

const OFFSETS: [(Part, &str); 4] = [
    (Part::Ingest, "+5m"),
    (Part::Fetcher, "+5m"),
    (Part::OtherFetcher, "-5m"),
    (Part::Janitor, "-5m"),
];

/// Each process is on a host of its own, and then the other way round.
async fn clocks_of_hosts_five_minutes_off(world: &mut FaultWorld) {
    let Some(library) = library() else {
        world.skipped = Some("libfaketime is not installed".to_owned());
        return;
    };
    for turned in [false, true] {
        for (part, offset) in OFFSETS {
            let offset = match (turned, offset) {
                (true, "+5m") => "-5m",
                (true, _) => "+5m",
                _ => offset,
            };
            world.stop(part).await;
            world.process(part).set_environment(clock(&library, offset));
            world.start(part).await;
        }
        world.back_at_work().await;
        for (part, _) in OFFSETS {
            assert_off(world, part);
        }
    }
}

/// What was stored while it was ahead is not kept for an hour.
async fn the_clock_of_the_database_an_hour_ahead_and_back(world: &mut FaultWorld) {
    let client = world.database().await;
    replace_clock(&client).await;
    for _ in 0..2 {
        set_clock_ahead(&client, "1 h").await;
        world.back_at_work().await;
        sleep(OBJECT_TTL + Duration::from_secs(1)).await;
        set_clock_ahead(&client, "0 s").await;
        world.back_at_work().await;
    }
}

fn clock(library: &Path, offset: &str) -> Vec<(String, String)> {
    let variables = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME", offset),
        // The time that is slept by belongs to no clock on the wall.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    owned.to_vec()
}

/// A library that was not loaded would go unnoticed otherwise.
fn assert_off(world: &mut FaultWorld, part: Part) {
    let log = world.process(part).log();
    let last = log.lines().next_back().unwrap().split('Z').next().unwrap();
    let format = &time::format_description::well_known::Rfc3339;
    let last = time::OffsetDateTime::parse(&format!("{last}Z"), format).unwrap();
    let off = (last - time::OffsetDateTime::now_utc()).abs();
    assert!(off > time::Duration::minutes(4), "{part:?} is off by {off}");
}

fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let paths = folders.flatten().map(|folder| folder.path());
    let mut paths = paths.map(|path| path.join("faketime/libfaketimeMT.so.1"));
    paths.find(|path| path.exists())
}
