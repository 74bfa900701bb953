//! What a registry or an engine does while an image is pulled is told apart, and a failure is not for ever.

use crate::sandbox::{Outcome, Sandbox};

const OFFICIAL: &str = "chose rabbitmq:";
const STAND_IN: &str = "chose callback-pipeline/rabbitmq";

/// An engine that has no official image, and pulls as `pull` says. Stand-ins are there already.
fn sandbox(pull: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    set_pull(&sandbox, pull);
    sandbox
}

fn set_pull(sandbox: &Sandbox, pull: &str) {
    let engine = format!(
        "case \"$1 $2\" in 'image inspect') [[ $3 == callback-pipeline/* ]]; exit ;; esac\n\
         if [[ $1 == pull ]]; then\n{pull}\nfi"
    );
    sandbox.fake("docker", &engine);
}

fn choose(sandbox: &Sandbox, variables: &str) -> Outcome {
    let line = format!(
        "for lib in common packages build engine images; do . scripts/lib/$lib.sh; done\n\
         choose_images {variables}; echo \"chose $RABBITMQ_IMAGE\""
    );
    sandbox.run(&line, &[("PULL_PATIENCE", "2")])
}

fn pulls(sandbox: &Sandbox) -> usize {
    let calls = sandbox.calls("docker");
    calls
        .lines()
        .filter(|call| call.starts_with("pull "))
        .count()
}

#[test]
fn a_slow_pull_is_waited_for_whatever_the_engine_says() {
    for sign in [
        "4: Pulling from library/rabbitmq",
        "Getting image source signatures",
        "Copying blob sha256:0123",
        "0123456789ab: Pulling fs layer",
    ] {
        let sandbox = sandbox(&format!(
            "echo 'Trying to pull'; sleep 1; echo '{sign}'; sleep 4"
        ));
        let outcome = choose(&sandbox, "RABBITMQ_IMAGE");
        assert!(outcome.text.contains(OFFICIAL), "{sign}: {outcome:?}");
    }
}

#[test]
fn an_engine_that_says_something_from_time_to_time_is_waited_for() {
    let sandbox = sandbox("for try in 1 2 3 4; do sleep 1; echo \"try $try\"; done");
    let outcome = choose(&sandbox, "RABBITMQ_IMAGE");
    assert!(outcome.text.contains(OFFICIAL), "{outcome:?}");
}

#[test]
fn a_registry_that_does_not_answer_is_given_up_once() {
    let sandbox = sandbox("echo 'Trying to pull'; exec sleep 100");
    let outcome = choose(&sandbox, "POSTGRES_IMAGE RABBITMQ_IMAGE");
    assert!(outcome.text.contains(STAND_IN), "{outcome:?}");
    assert_eq!(pulls(&sandbox), 1);
}

const RATE_LIMIT: &str =
    "echo 'toomanyrequests: You have reached your unauthenticated pull rate limit.'; exit 1";

#[test]
fn a_failed_pull_is_tried_again_another_day() {
    for failure in [
        RATE_LIMIT,
        "echo 'dial tcp: lookup registry: no such host'; exit 1",
    ] {
        let sandbox = sandbox(failure);
        let first = choose(&sandbox, "RABBITMQ_IMAGE");
        assert!(first.text.contains(STAND_IN), "{first:?}");
        let same_day = choose(&sandbox, "RABBITMQ_IMAGE");
        assert!(same_day.text.contains(STAND_IN), "{same_day:?}");
        assert_eq!(pulls(&sandbox), 1, "the same day");
        sandbox.fake("date", "echo 2031-01-01");
        let still_down = choose(&sandbox, "RABBITMQ_IMAGE");
        assert!(still_down.text.contains(STAND_IN), "{still_down:?}");
        assert_eq!(pulls(&sandbox), 2, "another day");
        sandbox.fake("date", "echo 2031-01-02");
        set_pull(&sandbox, "echo 'Pulling from library/rabbitmq'");
        let works = choose(&sandbox, "RABBITMQ_IMAGE");
        assert!(works.text.contains(OFFICIAL), "{works:?}");
    }
}

#[test]
fn a_rate_limit_is_called_by_its_name() {
    let outcome = choose(&sandbox(RATE_LIMIT), "RABBITMQ_IMAGE");
    assert!(outcome.text.contains("rate limit"), "{outcome:?}");
    assert!(outcome.text.contains("docker login"), "{outcome:?}");
}

/// One that has no stand-in is left out, and not for ever.
#[test]
fn a_service_that_was_left_out_is_tried_again_another_day() {
    let sandbox = sandbox(RATE_LIMIT);
    let choose = || {
        let line = "for lib in common packages build engine images; do . scripts/lib/$lib.sh; done\n\
                    choose_profiles; echo \"profiles: $COMPOSE_PROFILES\"";
        sandbox.run(line, &[("COMPOSE_PROFILES", "zipkin")])
    };
    for _ in 0..2 {
        let outcome = choose();
        assert!(outcome.text.contains("Zipkin is left out"), "{outcome:?}");
        assert_eq!(pulls(&sandbox), 1);
    }
    sandbox.fake("date", "echo 2031-01-02");
    set_pull(&sandbox, "echo 'Pulling from openzipkin/zipkin'");
    let outcome = choose();
    assert!(outcome.text.contains("profiles: zipkin"), "{outcome:?}");
}
