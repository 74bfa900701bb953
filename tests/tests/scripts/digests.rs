//! Images are pinned to what their registries have, all of them or none.

use crate::sandbox::Sandbox;

/// Gives each image another digest, which ends in `end`.
fn set_digests(sandbox: &Sandbox, end: &str) {
    let skopeo =
        format!("printf 'sha256:%.62s%s\\n' \"$(printf %s \"${{@: -1}}\" | sha256sum)\" {end}");
    sandbox.fake("skopeo", &skopeo);
}

fn images(sandbox: &Sandbox) -> Vec<String> {
    let read = |file| std::fs::read_to_string(sandbox.path().join(file)).unwrap();
    let text = read("deploy/compose.yaml") + &read("deploy/Dockerfile");
    let text = text.replace("_IMAGE=", "_IMAGE:-");
    let images = text.split("_IMAGE:-").skip(1);
    let image = |text: &str| text.split(['}', '\n']).next().unwrap().to_owned();
    images.map(image).collect()
}

fn without_digest(image: &str) -> &str {
    image.split('@').next().unwrap()
}

#[test]
fn every_image_gets_its_digest_and_a_newer_one_later() {
    let sandbox = Sandbox::new();
    let before = images(&sandbox);
    assert!(before.len() >= 9, "{before:?}");
    for end in ["01", "02"] {
        set_digests(&sandbox, end);
        let outcome = sandbox.run("scripts/pin-images", &[]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let pinned = images(&sandbox);
        assert_eq!(pinned.len(), before.len());
        for (image, before) in pinned.iter().zip(&before) {
            assert_eq!(without_digest(image), without_digest(before));
            let (_, digest) = image.split_once("@sha256:").unwrap();
            assert!(digest.len() == 64 && digest.ends_with(end), "{image}");
            assert!(outcome.text.contains(image), "{image}: {outcome:?}");
        }
        // What is chosen is what is pinned.
        let line =
            ". scripts/lib/common.sh; . scripts/lib/images.sh; official_image POSTGRES_IMAGE";
        let chosen = sandbox.run(line, &[]).text;
        assert!(
            pinned.iter().any(|image| image == chosen.trim()),
            "{chosen}"
        );
    }
}

#[test]
fn nothing_is_written_if_an_image_cannot_be_looked_up() {
    let sandbox = Sandbox::new();
    let before = images(&sandbox);
    for failure in ["exit 1", "echo sha256:0123", "exit 0"] {
        sandbox.fake(
            "skopeo",
            &format!("case \"$*\" in *zipkin*) {failure} ;; *) printf 'sha256:%064d\\n' 7 ;; esac"),
        );
        let outcome = sandbox.run("scripts/pin-images", &[]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.text.contains("openzipkin/zipkin"), "{outcome:?}");
        assert_eq!(images(&sandbox), before);
    }
}
