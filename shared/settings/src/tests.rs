#![allow(unreachable_pub)]

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use super::*;

#[derive(Args, Debug)]
struct Arguments {}

crate::settings! {
    /// Settings of the tests.
    pub struct Inner {
        /// A period.
        pub period: Duration = "30s" in "10ms"..="1h",
    } with {}
}

crate::settings! {
    /// Settings of the tests, with a group.
    pub struct Outer {
        /// How many,
        /// at the most.
        pub count: NonZeroUsize = "3" in "1"..="100",
        /// A size.
        pub size: ByteSize = "1MiB",
        /// A word.
        pub word: Word = "none",
        /// A key.
        pub key: Secret<Password> = "",
    } with {
        /// A group.
        pub inner: Inner where period = "20s",
    } check sizes
}

crate::settings! {
    /// Settings of the tests, with a group that is in two of its groups.
    pub struct Twice {
    } with {
        /// A group.
        pub one: Outer,
        /// A part of that group.
        pub other: Inner,
    }
}

/// Anything.
#[derive(Clone, Debug)]
pub struct Word(String);

impl Value for Word {
    fn parse(raw: &str) -> Result<Self, String> {
        Ok(Self(raw.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

fn sizes(settings: &Outer) -> Result<(), String> {
    let is_enough = settings.size.bytes() >= settings.count.get();
    is_enough
        .then_some(())
        .ok_or_else(|| "SIZE: less than COUNT".to_owned())
}

fn load_from(
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Loaded<Outer, Arguments>, ConfigError> {
    let arguments = std::iter::once("test")
        .chain(arguments.iter().copied())
        .map(OsString::from);
    let environment = environment
        .iter()
        .map(|(name, raw)| (name.into(), raw.into()));
    load("test", "A test.", arguments, environment)
}

#[test]
fn a_flag_wins_over_the_environment_which_wins_over_the_default() {
    let settings = load_from(&["--count", "5"], &[("COUNT", "4"), ("PERIOD", "250ms")])
        .unwrap()
        .settings;
    assert_eq!(settings.count.get(), 5);
    assert_eq!(settings.inner.period, Duration::from_millis(250));
    assert_eq!(settings.size.bytes(), 1 << 20);
}

#[test]
fn a_group_can_have_another_default_where_it_is_included() {
    assert_eq!(Inner::specs()[0].default, "30s");
    let settings = load_from(&[], &[]).unwrap().settings;
    assert_eq!(settings.inner.period, Duration::from_secs(20));
    let help = load_from(&["--help"], &[]).unwrap_err().to_string();
    assert!(help.contains("default: \"20s\""), "{help}");
}

#[test]
fn a_setting_of_several_groups_is_one_setting() {
    let load = |flag: &str| {
        let arguments = ["test", flag].map(OsString::from);
        load::<Twice, Arguments>("test", "A test.", arguments, [])
    };
    let settings = load("--period=3s").unwrap().settings;
    assert_eq!(settings.one.inner.period, settings.other.period);
    let shown = settings.show();
    let shown = shown.iter().filter(|(name, _)| *name == "period");
    assert_eq!(shown.count(), 1);
    let message = load("--period=1us").unwrap_err().to_string();
    assert_eq!(message.matches("PERIOD").count(), 1, "{message}");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    for blank in ["", " ", "\t\n"] {
        let settings = load_from(&[], &[("COUNT", blank)]).unwrap().settings;
        assert_eq!(settings.count.get(), 3);
    }
}

#[test]
fn blanks_around_a_value_are_no_part_of_it() {
    let environment = [("WORD", " a word\n"), ("SIZE", "\t1KiB ")];
    let settings = load_from(&["--count= 5 "], &environment).unwrap().settings;
    assert_eq!(settings.word.show(), "a word");
    assert_eq!((settings.size.bytes(), settings.count.get()), (1_024, 5));
}

#[test]
fn blanks_around_a_secret_are_a_part_of_it() {
    for secret in [" a b ", "\ta", "a\n", " ", "\u{a0}a\u{2003}"] {
        for loaded in [
            load_from(&[], &[("KEY", secret)]),
            load_from(&["--key", secret], &[]),
        ] {
            let key = loaded.unwrap().settings.key.get().unwrap();
            assert_eq!(key.given(), Some(secret));
        }
    }
}

#[test]
fn a_part_of_the_settings_is_read_alone() {
    let arguments = ["test", "--count=0"].map(OsString::from);
    let given = parse::<Outer, Arguments>("test", "A test.", arguments).unwrap();
    let environment = [("KEY_FILE", "/none/such"), ("SIZE", "large")];
    let environment = || {
        environment
            .iter()
            .map(|(name, raw)| (name.into(), raw.into()))
    };
    // With the default of the whole.
    let part: Inner = given.read(environment()).unwrap();
    assert_eq!(part.period, Duration::from_secs(20));
    let wrong = given.read::<Outer>(environment()).unwrap_err().to_string();
    assert!(wrong.starts_with("3 wrong"), "{wrong}");
    let wrong = given.read::<Inner>([("PERIOD".into(), "soon".into())]);
    assert!(wrong.unwrap_err().to_string().contains("PERIOD=soon"));
}

#[test]
fn what_is_out_of_bounds_is_refused_with_the_bounds() {
    for (name, raw, bounds) in [
        ("COUNT", "101", "from 1 to 100"),
        ("PERIOD", "1000000000000s", "from 10ms to 1h"),
        ("PERIOD", "9ms", "from 10ms to 1h"),
    ] {
        let message = load_from(&[], &[(name, raw)]).unwrap_err().to_string();
        let is_named = message.contains(&format!("{name}=")) && message.contains(bounds);
        assert!(is_named, "{message}");
    }
    for (name, raw) in [("COUNT", "1"), ("COUNT", "100"), ("PERIOD", "60m")] {
        assert!(load_from(&[], &[(name, raw)]).is_ok(), "{name}={raw}");
    }
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    let message = load_from(&["--size=2"], &[]).unwrap_err().to_string();
    assert!(message.contains("SIZE: less than COUNT"), "{message}");
}

#[test]
fn every_wrong_setting_is_named_at_once() {
    let environment = [("COUNT", "0"), ("SIZE", "1 furlong"), ("PERIOD", "soon")];
    let message = load_from(&[], &environment).unwrap_err().to_string();
    for name in ["COUNT=0", "SIZE=1 furlong", "PERIOD=soon"] {
        assert!(message.contains(name), "{name} is missing in: {message}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_an_error_and_not_a_panic() {
    use std::os::unix::ffi::OsStringExt;
    let environment = [("COUNT".into(), OsString::from_vec(vec![0xff]))];
    let loaded = load::<Outer, Arguments>("test", "A test.", ["test".into()], environment);
    assert!(loaded.unwrap_err().to_string().contains("COUNT"));
}

/// A file with `text`, and its folder.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (folder, file)
}

#[test]
fn a_secret_can_be_in_a_file_that_a_flag_or_the_environment_names() {
    let (_folder, file) = file(" hidden-word\n");
    let flag = format!("--key-file={file}");
    for loaded in [
        load_from(&[&flag], &[]),
        load_from(&[], &[("KEY_FILE", &file)]),
        load_from(&[], &[("KEY_FILE", &file), ("KEY", "")]),
    ] {
        let settings = loaded.unwrap().settings;
        assert_eq!(settings.key.get().unwrap().given(), Some(" hidden-word"));
        assert!(settings.key.may_change());
        let shown = format!("{:?} {settings:?}", settings.show());
        assert!(shown.contains(&file), "{shown}");
        assert!(!shown.contains("hidden"), "{shown}");
    }
}

#[test]
fn a_secret_given_itself_and_in_a_file_is_refused() {
    let (_folder, file) = file("hidden-word");
    let flag = format!("--key-file={file}");
    for loaded in [
        load_from(&[&flag, "--key=hidden-word"], &[]),
        load_from(&[&flag], &[("KEY", "hidden-word")]),
        load_from(&[], &[("KEY_FILE", &file), ("KEY", "hidden-word")]),
    ] {
        let message = loaded.unwrap_err().to_string();
        assert!(message.contains("KEY and KEY_FILE"), "{message}");
        assert!(!message.contains("hidden"), "{message}");
    }
}

#[test]
fn a_file_that_is_of_no_use_is_named_with_the_reason() {
    let (folder, empty) = file("\n");
    let missing = folder.path().join("none").display().to_string();
    for (file, reason) in [(empty, "the file is empty"), (missing, "No such file")] {
        let message = load_from(&[], &[("KEY_FILE", &file), ("COUNT", "0")]);
        let message = message.unwrap_err().to_string();
        let expected = format!("KEY_FILE={file}: {reason}");
        assert!(message.contains(&expected), "{message}");
        assert!(message.contains("COUNT=0"), "{message}");
    }
    // Somebody took it for the place of the secret itself.
    let message = load_from(&["--key-file=hidden-word"], &[]).unwrap_err();
    let message = message.to_string();
    assert!(message.contains("KEY_FILE=***"), "{message}");
    assert!(!message.contains("hidden"), "{message}");
}

#[test]
fn what_is_no_secret_has_no_file() {
    assert!(load_from(&["--count-file=/dev/null"], &[]).is_err());
    let settings = load_from(&[], &[("COUNT_FILE", "/dev/null")]).unwrap();
    assert_eq!(settings.settings.count.get(), 3);
}

#[test]
fn help_lists_every_setting_with_its_variable_and_default() {
    let help = load_from(&["--help"], &[]).unwrap_err().to_string();
    for part in [
        "A test.",
        "--count",
        "COUNT",
        "\"3\"",
        "How many, at the most.",
        "from 1 to 100",
        "--period",
        "--size",
        "secret]",
        "add _FILE",
    ] {
        assert!(help.contains(part), "{part} is missing in: {help}");
    }
}
