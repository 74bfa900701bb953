//! What is a callback, and what is not.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1_000;

fn parse(body: &str) -> Result<Vec<i64>, CallbackError> {
    Callback::parse(body.as_bytes(), LIMIT)
        .map(|callback| callback.object_ids().iter().map(|id| id.0).collect())
}

fn wrong_shape(body: &str) -> String {
    match parse(body) {
        Err(CallbackError::WrongShape(message)) => message,
        other => panic!("{body} gave {other:?}"),
    }
}

#[test]
fn every_64_bit_integer_is_an_id() {
    let body = r#"{"object_ids":[0,-0,-1,9223372036854775807,-9223372036854775808]}"#;
    assert_eq!(parse(body), Ok(vec![i64::MIN, -1, 0, i64::MAX]));
}

#[test]
fn duplicates_count_once_and_an_empty_array_is_a_callback() {
    assert_eq!(parse(r#"{"object_ids":[3,1,3,3,1]}"#), Ok(vec![1, 3]));
    assert_eq!(parse(r#"{"object_ids":[]}"#), Ok(vec![]));
}

#[test]
fn one_byte_order_mark_is_skipped() {
    assert_eq!(parse("\u{feff}{\"object_ids\":[1]}"), Ok(vec![1]));
    assert_eq!(parse("\u{feff} \n{\"object_ids\":[]}"), Ok(vec![]));
    for body in ["\u{feff}", "\u{feff}\u{feff}{}", "{\u{feff}}", "\u{fffe}{}"] {
        assert!(
            matches!(parse(body), Err(CallbackError::NotJson(_))),
            "{body:?}"
        );
    }
}

#[test]
fn unknown_members_are_ignored_however_deep_they_nest() {
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(
        parse(&format!(r#"{{"a":{deep},"object_ids":[7],"b":null}}"#)),
        Ok(vec![7])
    );
}

#[test]
fn what_is_not_json_is_told_from_json_of_another_shape() {
    for body in [
        "",
        "{",
        "nonsense",
        r#"{"object_ids":["x"}"#,
        r#"{"object_ids":[1]} x"#,
        "{\"object_ids\":[01]}",
    ] {
        assert!(
            matches!(parse(body), Err(CallbackError::NotJson(_))),
            "{body} gave {:?}",
            parse(body)
        );
    }
    for body in [
        "null",
        "[]",
        "[[1]]",
        "3",
        r#""x""#,
        "{}",
        r#"{"object_ids":{}}"#,
        r#"{"object_ids":1}"#,
    ] {
        wrong_shape(body);
    }
}

#[test]
fn the_message_names_the_member_and_the_position() {
    for element in [
        "1.5",
        "1e3",
        "9223372036854775808",
        "-9223372036854775809",
        "1e999",
        r#""1""#,
        "null",
        "[1]",
        "true",
        "-0.0",
        "-0e5",
        "-0E-0",
        "-1e-400",
        "-0.000",
    ] {
        let message = wrong_shape(&format!(r#"{{"object_ids":[1,2,{element}]}}"#));
        assert!(
            message.starts_with("object_ids[2]: ") && message.contains("line 1"),
            "{message}"
        );
    }
    assert!(wrong_shape(r#"{"object_ids":1}"#).contains("object_ids"));
    assert!(wrong_shape(r#"{"ids":[1]}"#).contains("object_ids is missing"));
    assert!(wrong_shape(r#"{"object_ids":[1],"object_ids":[2]}"#).contains("twice"));
}

#[test]
fn minus_zero_is_an_id_only_where_it_is_written_as_an_integer() {
    assert_eq!(parse(r#"{"object_ids":[-0, -0 ,-0]}"#), Ok(vec![0]));
    // What is ignored may be written as it likes, and a name in another way.
    let body = r#"{"x":[-0.0,{"object_ids":[-0e1]}],"object\u005fids":[-0],"y":-1e-400}"#;
    assert_eq!(parse(body), Ok(vec![0]));
    let message = wrong_shape(r#"{"x":-0.0,"object\u005fids":[-0,1,-0.0,-0e5]}"#);
    assert!(message.starts_with("object_ids[2]: -0.0 "), "{message}");
    let long = format!(r#"{{"object_ids":[-0.{}]}}"#, "0".repeat(100_000));
    assert!(wrong_shape(&long).len() < 300);
    // It is wrong whether or not there are too many.
    let many = ["-0", &",-0".repeat(LIMIT)].concat();
    wrong_shape(&format!(r#"{{"object_ids":[{many},-0.0]}}"#));
    assert!(matches!(
        parse(&format!(r#"{{"object_ids":[{many}]}}"#)),
        Err(CallbackError::TooManyIds { .. })
    ));
}

#[test]
fn the_message_stays_short_when_the_body_is_long() {
    let body = format!(r#"{{"object_ids":["{}"]}}"#, "x".repeat(100_000));
    assert!(wrong_shape(&body).len() < 300);
}

#[test]
fn more_ids_than_allowed_are_refused_whole() {
    let ids = vec!["1"; LIMIT + 1].join(",");
    let error = parse(&format!(r#"{{"object_ids":[{ids}]}}"#));
    assert_eq!(
        error,
        Err(CallbackError::TooManyIds {
            found: LIMIT + 1,
            limit: LIMIT
        })
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body: Vec<u8>) {
        prop_assert!(Callback::parse(&body, LIMIT).is_err());
    }

    #[test]
    fn the_verdict_on_json_agrees_with_a_json_parser(body in r#"[\[\]{}":,0-9a-z\\. -]{0,40}"#) {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok();
        match parse(&body) {
            Ok(_) | Err(CallbackError::WrongShape(_) | CallbackError::TooManyIds { .. }) => prop_assert!(is_json),
            Err(CallbackError::NotJson(_)) => prop_assert!(!is_json),
        }
    }

    #[test]
    fn the_ids_accepted_are_the_distinct_ids_sent(ids in proptest::collection::vec(any::<i64>(), 0..LIMIT)) {
        let body = serde_json::json!({ "object_ids": ids }).to_string();
        let distinct: std::collections::BTreeSet<i64> = ids.into_iter().collect();
        prop_assert_eq!(parse(&body), Ok(distinct.into_iter().collect::<Vec<_>>()));
    }
}
