//! What a script needs is looked for before anything is built, and what is missing is named with a way out.

use crate::sandbox::{Outcome, Sandbox};

/// The way that needs nothing but an engine.
const WAY_OUT: &str = "docker compose up --build";

/// It ended before anything was built, with words that have all of `parts`.
fn assert_refused(sandbox: &Sandbox, outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for part in parts {
        assert!(outcome.text.contains(part), "no {part:?}: {outcome:?}");
    }
    let built = sandbox.calls("cargo");
    assert!(!built.contains("build"), "{built}");
}

fn up(sandbox: &Sandbox, settings: &[(&str, &str)]) -> Outcome {
    let settings = [&[("ENGINE", "none")], settings].concat();
    sandbox.run("scripts/up --detach", &settings)
}

#[test]
fn programs_that_are_missing_are_named_all_at_once() {
    for missing in [
        &["flock"][..],
        &["timeout"],
        &["setsid"],
        &["flock", "setsid"],
    ] {
        let sandbox = Sandbox::new();
        for program in missing {
            sandbox.lacks(program);
        }
        let parts = [missing, &["missing", WAY_OUT]].concat();
        assert_refused(&sandbox, &up(&sandbox, &[]), &parts);
    }
}

#[test]
fn every_script_that_locks_says_that_it_cannot() {
    for script in ["up", "down", "status", "test", "dead-letters list"] {
        let sandbox = Sandbox::new();
        sandbox.lacks("flock");
        let outcome = sandbox.run(&format!("scripts/{script}"), &[("ENGINE", "none")]);
        assert_refused(&sandbox, &outcome, &["flock", WAY_OUT]);
        assert!(!outcome.text.contains("another script"), "{outcome:?}");
    }
}

/// dash knows no more than the oldest bash does.
#[test]
fn an_old_bash_is_told_so_in_words_that_it_can_read() {
    for version in ["3.2.57(1)-release", "4.3.48(1)-release"] {
        let sandbox = Sandbox::new();
        let outcome = sandbox.run(
            "exec env \"BASH_VERSION=$OLD\" dash scripts/lib/common.sh",
            &[("OLD", version)],
        );
        assert_refused(&sandbox, &outcome, &["bash 4.4", version, WAY_OUT]);
    }
}

#[test]
fn a_missing_compiler_is_named() {
    let sandbox = Sandbox::new();
    sandbox.lacks("cargo");
    let outcome = up(&sandbox, &[]);
    assert_refused(&sandbox, &outcome, &["rustup.rs", WAY_OUT]);
}

#[test]
fn a_broker_that_is_too_old_is_named() {
    for version in ["3.9.13", "3.8.9"] {
        let sandbox = Sandbox::new();
        let server = sandbox.write("old/rabbitmq-server", "#!/bin/sh\n");
        sandbox.write("old/rabbitmqctl", &format!("#!/bin/sh\necho {version}\n"));
        let server = server.to_str().unwrap();
        let outcome = up(&sandbox, &[("RABBITMQ_SERVER", server)]);
        assert_refused(&sandbox, &outcome, &["RabbitMQ", version, "3.10", WAY_OUT]);
    }
}

#[test]
fn a_database_that_is_too_old_is_named() {
    for version in ["13.14", "9.6.24"] {
        let sandbox = Sandbox::new();
        let say = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
        let server = sandbox.write("old/postgres", &say);
        sandbox.write("old/initdb", "#!/bin/sh\n");
        let folder = server.parent().unwrap().to_str().unwrap();
        let outcome = up(&sandbox, &[("POSTGRES_BIN", folder)]);
        assert_refused(&sandbox, &outcome, &["PostgreSQL", version, "14", WAY_OUT]);
    }
}

/// As on Ubuntu 22.04.
#[test]
fn a_package_that_is_too_old_is_not_installed() {
    let sandbox = Sandbox::new();
    sandbox.fake("apt-get", "exit 0");
    sandbox.fake("apt-cache", "echo '  Candidate: 3.9.13-1ubuntu0.22.04.2'");
    let outcome = up(
        &sandbox,
        &[("RABBITMQ_SERVER", "/nonexistent/rabbitmq-server")],
    );
    assert_refused(&sandbox, &outcome, &["RabbitMQ", "3.9.13", "3.10", WAY_OUT]);
    assert_eq!(sandbox.calls("apt-get"), "");
}
