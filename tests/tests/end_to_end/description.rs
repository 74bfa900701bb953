//! The service is what its `OpenAPI` description says, asked by a client that is made from nothing but
//! the description.

use http::{Method, StatusCode};
use serde_json::Value;
use tests::client::send;
use tests::servers::programs::say_skipped;
use tests::servers::variable;
use tests::world::World;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_published() {
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let answer = send(address, Method::GET, "/openapi.json", "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "application/json");
    let own: Value = serde_json::from_str(ingest::DESCRIPTION).unwrap();
    assert_eq!(answer.body, own);
    let head = send(address, Method::HEAD, "/openapi.json", "").await;
    assert_eq!((head.status, head.body), (StatusCode::OK, Value::Null));
    let post = send(address, Method::POST, "/openapi.json", "").await;
    assert_eq!(post.headers["allow"], "GET, HEAD, OPTIONS");
}

/// Corrects what the client cannot know.
const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis_hooks.py");

#[tokio::test(flavor = "multi_thread")]
async fn a_client_made_from_the_description_finds_nothing_else() {
    let Some(schemathesis) = variable("SCHEMATHESIS") else {
        say_skipped("schemathesis is not installed");
        return;
    };
    let world = &mut World::new().await;
    let address = world.ingest(&[]).await;
    let output = Command::new(schemathesis)
        .arg("run")
        .arg(format!("http://{address}/openapi.json"))
        // All checks, with data that the description allows and data that it does not.
        .args(["--checks=all", "--mode=all", "--continue-on-failure"])
        .args(["--phases=examples,coverage,fuzzing", "--max-examples=100"])
        // The same data each time, and nothing kept from one time to the next.
        .args(["--generation-deterministic"])
        .args(["--request-timeout=20", "--suppress-health-check=all", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", HOOKS)
        .env("NO_PROXY", "*")
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{shown}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let description: Value = serde_json::from_str(ingest::DESCRIPTION).unwrap();
    let paths = description["paths"].as_object().unwrap().values();
    let operations: usize = paths.map(|path| path.as_object().unwrap().len()).sum();
    // All but the one that it got the description from.
    let tested = format!("Tested: {}", operations - 1);
    assert!(shown.contains(&tested), "{tested} is not in\n{shown}");
}
