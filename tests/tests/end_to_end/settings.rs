//! Every setting, with values that make no sense: each is refused by name, or the process works.

use std::ffi::OsString;

use futures::future::join_all;
use process::{Ask, ProcessConfig};
use settings::{Spec, load};
use tests::processes::{Process, configure, output};
use tests::world::World;

use crate::binaries::{binaries, flags};

/// Ratios have theirs in their type, and of a seed any number is good.
const UNBOUNDED: [&str; 7] = [
    "listen_address",
    "admin_address",
    "trace_ratio",
    "error_ratio",
    "slow_ratio",
    "retry_delays",
    "seed",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_number_and_duration_has_bounds() {
    for (binary, specs) in binaries() {
        for spec in specs {
            let is_number = spec.default.starts_with(|c: char| c.is_ascii_digit());
            let is_bounded = spec.bounds.is_some() || UNBOUNDED.contains(&spec.name);
            assert!(!is_number || is_bounded, "{binary}: {}", spec.name);
        }
    }
}

const EXTREMES: [&str; 10] = [
    "0",
    "0s",
    "-1",
    "18446744073709551615",
    "18446744073709551616",
    "18446744073709551615GiB",
    "1000000000000s",
    "1e400",
    "nan",
    "amq.",
];

/// Why the binary does not take `value` for the setting, if it does not.
fn refusal(binary: &str, spec: &Spec, value: &str) -> Option<String> {
    let words = [binary.to_owned(), format!("--{}={value}", spec.flag())].map(OsString::from);
    let refused = match binary {
        "ingest" => load::<ingest::Config, Ask>("ingest", "", words, []).err(),
        "fetcher" => load::<fetcher::Config, Ask>("fetcher", "", words, []).err(),
        "janitor" => load::<janitor::Config, Ask>("janitor", "", words, []).err(),
        _ => load::<mock_client::Config, Ask>("mock-client", "", words, []).err(),
    };
    refused.map(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extreme_value_is_refused_by_name_or_taken() {
    for (binary, specs) in binaries() {
        for value in EXTREMES.into_iter().chain(["", " \t"]) {
            let mut refused = Vec::new();
            for spec in &specs {
                let Some(reason) = refusal(binary, spec, value) else {
                    continue;
                };
                let name = format!("{}=", spec.variable());
                assert!(reason.contains(&name), "{binary} {value:?}: {reason}");
                refused.push((format!("--{}={value}", spec.flag()), name));
            }
            let wrong: Vec<String> = refused.iter().map(|(flag, _)| flag.clone()).collect();
            let output = output(binary, &wrong, &[]).await;
            let shown = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{binary} {value:?}: {shown}");
            for (_, name) in refused {
                assert!(
                    shown.contains(&name),
                    "{binary} {value:?}: {name} in {shown}"
                );
            }
        }
    }
}

/// Starts the binary once for each bound, waits for it to be at work, and stops it.
async fn assert_works_at_bounds(world: &mut World, binary: &str, specs: Vec<Spec>, sign: &str) {
    const AT_ONCE: usize = 6;
    let mut runs = Vec::new();
    for spec in specs {
        let Some((least, most)) = spec.bounds else {
            continue;
        };
        for (value, is_least) in [(least, true), (most, false)] {
            let flag = format!("--{}={value}", spec.flag());
            let mut more = vec![flag.clone()];
            // What goes together with it.
            if spec.name == "chunk_size" {
                more.push("--ids-limit=1000".to_owned());
            } else if spec.name == "ids_limit" {
                more.push("--chunk-size=1000".to_owned());
            }
            if binary == "fetcher" {
                let more: Vec<&str> = more.iter().map(String::as_str).collect();
                let config = configure::<fetcher::Config>(world.flags(), &more);
                world.will_use(&fetcher::topology(&config));
            }
            let mut all = flags(world, binary);
            all.extend(more);
            // So short a time-out is right for no busy machine.
            let is_short = is_least && spec.name.ends_with("_timeout");
            runs.push((all, if is_short { "starting" } else { sign }));
        }
    }
    while !runs.is_empty() {
        let some = runs.split_off(runs.len().saturating_sub(AT_ONCE));
        join_all(some.into_iter().map(async |(flags, sign)| {
            let mut process = Process::started(binary, &flags);
            process.until_logged(sign).await;
            process.signal("TERM").await;
            let code = process.end().await;
            let log = process.lines.join("\n");
            assert!(!log.contains("panicked"), "{flags:?}: {log}");
            let is_short = flags.iter().any(|flag| flag == "--shutdown-timeout=100ms");
            assert!(code == Some(0) || is_short, "{flags:?}: {log}");
        }))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_works_at_each_bound_of_its_settings() {
    let world = &mut World::new().await;
    let specs = <ingest::Config as settings::Settings>::specs();
    assert_works_at_bounds(
        world,
        ingest::Config::NAME,
        specs,
        "dependency is up dependency=\"broker\"",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fetcher_works_at_each_bound_of_its_settings() {
    let world = &mut World::new().await;
    let specs = <fetcher::Config as settings::Settings>::specs();
    assert_works_at_bounds(world, fetcher::Config::NAME, specs, "broker (consuming)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn janitor_works_at_each_bound_of_its_settings() {
    let world = &mut World::new().await;
    let specs = <janitor::Config as settings::Settings>::specs();
    assert_works_at_bounds(world, janitor::Config::NAME, specs, "broker (consuming)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mock_client_works_at_each_bound_of_its_settings() {
    let world = &mut World::new().await;
    let specs = <mock_client::Config as settings::Settings>::specs();
    assert_works_at_bounds(world, mock_client::Config::NAME, specs, "starting").await;
}

async fn assert_refused(flags: &[&str], names: [&str; 2]) {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    let refused = output("ingest", &flags, &[]).await;
    let shown = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(names.iter().all(|name| shown.contains(name)), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_of_too_many_messages_is_refused() {
    let flags = ["--chunk-size=1", "--ids-limit=10001"];
    assert_refused(&flags, ["CHUNK_SIZE=1", "IDS_LIMIT"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_needs_proxies_that_are_trusted() {
    let flags = ["--proxy-protocol=true"];
    assert_refused(&flags, ["PROXY_PROTOCOL=true", "TRUSTED_PROXIES"]).await;
}
