//! A port that is taken is given up, or named, before minutes of building.

use std::net::TcpListener;

use crate::sandbox::Sandbox;

/// An engine that has every image, runs nothing, and says with what ports compose is called.
const ENGINE: &str = r#"
case "$*" in
  ps*) ;;
  *' up '*) echo "ports: $INGEST_PORT $MANAGEMENT_PORT"; exit 1 ;;
esac"#;

/// A port that is taken for as long as the listener lives.
fn taken() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

#[test]
fn a_given_port_that_is_taken_is_named_before_anything_is_built() {
    for (engine, setting) in [
        ("none", "INGEST_PORT"),
        ("none", "POSTGRES_PORT"),
        ("docker", "INGEST_PORT"),
        ("docker", "ZIPKIN_PORT"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.fake("docker", ENGINE);
        let (_listener, port) = taken();
        let settings = [("ENGINE", engine), (setting, port.as_str())];
        let outcome = sandbox.run("scripts/up --detach", &settings);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(
            outcome.text.contains(&format!("port {port} is taken")),
            "{outcome:?}"
        );
        assert!(outcome.text.contains(setting), "{outcome:?}");
        let calls = sandbox.calls("cargo") + &sandbox.calls("docker");
        assert!(
            !calls.contains("build") && !calls.contains("pull"),
            "{calls}"
        );
    }
}

#[test]
fn a_usual_port_that_is_taken_gives_way() {
    let sandbox = Sandbox::new();
    sandbox.fake("docker", ENGINE);
    // Somebody has it, ourselves or another.
    let _held = TcpListener::bind("127.0.0.1:9090");
    let outcome = sandbox.run("scripts/up --detach", &[("ENGINE", "docker")]);
    assert!(outcome.text.contains("port 9090 is taken"), "{outcome:?}");
    let (_, ports) = outcome
        .text
        .split_once("ports: ")
        .expect("compose is called");
    let port = ports.split(' ').next().unwrap();
    assert!(port != "9090" && port.parse::<u16>().is_ok(), "{outcome:?}");
}

/// Another start, for instance with more replicas, does not move what runs.
#[test]
fn a_port_that_the_pipeline_itself_holds_is_kept() {
    let sandbox = Sandbox::new();
    let (_listener, port) = taken();
    let engine = format!(
        "case \"$*\" in ps*=ingest*) echo c0 ;; 'port c0 9090/tcp') echo 0.0.0.0:{port} ;; esac\n{ENGINE}"
    );
    sandbox.fake("docker", &engine);
    for settings in [&[][..], &[("INGEST_PORT", port.as_str())]] {
        let settings = [&[("ENGINE", "docker")], settings].concat();
        for script in ["up --detach", "compose up -d"] {
            let outcome = sandbox.run(&format!("scripts/{script}"), &settings);
            assert!(
                outcome.text.contains(&format!("ports: {port} ")),
                "{outcome:?}"
            );
        }
    }
}
