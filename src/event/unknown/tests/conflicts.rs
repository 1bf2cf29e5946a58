//! Two fields for one thing: they agree, or the event is rejected.

use super::*;
use crate::event::testing::{DEMO, OTHER};

const ANYONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Names of one thing in a format, with values that are equal and values that differ. The last
/// member is the field that the rejection names.
#[test]
fn two_fields_for_one_thing_agree_or_conflict() {
    use Format::{EvalV1, Native, OutcomeV1, PipelinesV1, ServiceV1};
    let (demo, other) = (DEMO.to_string(), OTHER.to_string());
    let user = |hash: &str| json!({"user_id": "user", "user_id_hash": hash});
    let same_time = "2026-05-24T12:00:00.000+02:00";
    let later = "2026-05-24T10:00:00.001Z";
    let exposures = [
        // The tenant, by either name, and by id or the name outside.
        (Native, json!({"tenant_id": "demo", "tenant": "demo"}), ""),
        (Native, json!({"tenant_id": "demo", "tenant": demo}), ""),
        (
            Native,
            json!({"tenant_id": demo.to_uppercase(), "tenant": demo}),
            "",
        ),
        (Native, json!({"tenant_id": "", "tenant": "other"}), ""),
        (
            Native,
            json!({"tenant_id": "demo", "tenant": "other"}),
            "tenant",
        ),
        (
            Native,
            json!({"tenant_id": "demo", "tenant": "nobody"}),
            "tenant",
        ),
        (ServiceV1, json!({"tenant_id": "demo", "tenant": demo}), ""),
        (
            ServiceV1,
            json!({"tenant_id": "demo", "tenant": other}),
            "tenant",
        ),
        (
            PipelinesV1,
            json!({"tenant_id": "demo", "tenant": demo}),
            "",
        ),
        (
            PipelinesV1,
            json!({"tenant_id": "demo", "tenant": other}),
            "tenant",
        ),
        (OutcomeV1, json!({"tenant_id": "demo", "tenant": demo}), ""),
        (
            OutcomeV1,
            json!({"tenant_id": "demo", "tenant": "other"}),
            "tenant",
        ),
        (
            EvalV1,
            json!({"tenant_id": "demo", "context": {"tenant": demo}}),
            "",
        ),
        (
            EvalV1,
            json!({"context": {"tenant_id": demo, "tenant": "demo"}}),
            "",
        ),
        (
            EvalV1,
            json!({"tenant_id": "demo", "tenant": "other"}),
            "tenant",
        ),
        (
            EvalV1,
            json!({"tenant": "demo", "context": {"tenant": "other"}}),
            "context.tenant",
        ),
        (
            EvalV1,
            json!({"context": {"tenant_id": "demo", "tenant": "other"}}),
            "context.tenant",
        ),
        // Raw ids and their hashes.
        (Native, user(USER), ""),
        (Native, user(&USER.to_uppercase()), ""),
        (Native, json!({"user_id": " ", "user_id_hash": ANYONE}), ""),
        (Native, user(ANYONE), "user_id"),
        (
            Native,
            json!({"anonymous_id": "a", "anonymous_id_hash": ANYONE}),
            "anonymous_id",
        ),
        (
            Native,
            json!({"session_id": "a", "session_id_hash": ANYONE}),
            "session_id",
        ),
        (ServiceV1, json!({"subject": user(USER)}), ""),
        (
            ServiceV1,
            json!({"subject": user(ANYONE)}),
            "subject.user_id",
        ),
        (
            ServiceV1,
            json!({"subject": {"user_id_hash": USER}, "user_id": "user"}),
            "",
        ),
        (
            ServiceV1,
            json!({"subject": {"user_id_hash": USER}, "user_id": "ada"}),
            "user_id",
        ),
        (
            ServiceV1,
            json!({"subject": {"session_id": "a"}, "session_id_hash": ANYONE}),
            "session_id_hash",
        ),
        (ServiceV1, user(USER), ""),
        (ServiceV1, user(ANYONE), "user_id_hash"),
        (EvalV1, user(USER), ""),
        (EvalV1, json!({"user_id": USER, "user_id_hash": USER}), ""),
        (EvalV1, user(ANYONE), "user_id_hash"),
        (PipelinesV1, user(ANYONE), "user_id_hash"),
        (
            PipelinesV1,
            json!({"session_id_hash": ANYONE}),
            "session_id_hash",
        ),
        (OutcomeV1, user(USER), ""),
        (OutcomeV1, user(ANYONE), "user_id_hash"),
        (
            OutcomeV1,
            json!({"anonymous_id": "a", "anonymous_id_hash": ANYONE}),
            "anonymous_id_hash",
        ),
        // The time.
        (Native, json!({"ts": same_time}), ""),
        (Native, json!({"ts": later}), "ts"),
        (Native, json!({"timestamp": later}), "timestamp"),
        (
            Native,
            json!({"ts": same_time, "timestamp": later}),
            "timestamp",
        ),
        (Native, json!({"ts": null, "timestamp": 1_770_000_000}), ""),
        (ServiceV1, json!({"ts": same_time}), ""),
        (ServiceV1, json!({"ts": later}), "ts"),
        (EvalV1, json!({"timestamp": same_time}), ""),
        (EvalV1, json!({"timestamp": later}), "timestamp"),
        (PipelinesV1, json!({"timestamp": later}), "timestamp"),
        (OutcomeV1, json!({"timestamp": later}), "timestamp"),
        (OutcomeV1, json!({"occurred_at": later}), "occurred_at"),
        (OutcomeV1, json!({"occurred_at": same_time}), ""),
        // The place in the list.
        (PipelinesV1, json!({"rank": 3, "position": 3.0}), ""),
        (PipelinesV1, json!({"rank": 3, "position": 4}), "position"),
        // Versions and experiments, by the names of columns and of other formats.
        (
            Native,
            json!({"config_version": "W/\"abc\"", "config_etag": "abc"}),
            "",
        ),
        (
            Native,
            json!({"config_version": "abc", "config_etag": "abd"}),
            "config_etag",
        ),
        (
            ServiceV1,
            json!({"rules_version": "abc", "rules_etag": "abd"}),
            "rules_etag",
        ),
        (
            Native,
            json!({"experiment": {"id": "x"}, "experiment_id": "x"}),
            "",
        ),
        (
            Native,
            json!({"experiment": {"id": "x"}, "experiment_id": "y"}),
            "experiment_id",
        ),
        (
            ServiceV1,
            json!({"experiment": {"variant": "A"}, "experiment_variant": "B"}),
            "experiment_variant",
        ),
        (
            EvalV1,
            json!({"context": {"experiment_id": "x"}, "experiment_id": "y"}),
            "experiment_id",
        ),
        (EvalV1, json!({"surface": " home "}), ""),
        (EvalV1, json!({"surface": "cart"}), "surface"),
        (
            EvalV1,
            json!({"context": {"segment": "a"}, "segment": "b"}),
            "segment",
        ),
        (
            EvalV1,
            json!({"context": {"algo_version": "a"}, "algo_version": "b"}),
            "algo_version",
        ),
        (
            EvalV1,
            json!({"context": {"config_version": "a"}, "config_version": "\"a\""}),
            "",
        ),
        (
            EvalV1,
            json!({"context": {"rules_version": "a"}, "rules_version": "b"}),
            "rules_version",
        ),
    ];
    let interactions = [
        (json!({"tenant_id": "demo", "tenant": "other"}), "tenant"),
        (json!({"tenant_id": "demo", "tenant": demo}), ""),
        (user(USER), ""),
        (user(ANYONE), "user_id"),
        (
            json!({"session_id": "a", "session_id_hash": ANYONE}),
            "session_id",
        ),
        (
            json!({"anonymous_id": "a", "anonymous_id_hash": ANYONE}),
            "anonymous_id",
        ),
        (json!({"ts": same_time}), ""),
        (json!({"ts": later}), "ts"),
        (json!({"timestamp": later}), "timestamp"),
        (json!({"position": 3, "rank": 3}), ""),
        (json!({"position": 3, "rank": 3e0}), ""),
        (json!({"position": 3, "rank": 4}), "rank"),
        (json!({"position": 3, "rank": "first"}), ""),
        (json!({"rank": 4}), ""),
        (json!({"items": [{"item_id": "b"}]}), "item_id"),
        (json!({"items": []}), "item_id"),
        (
            json!({"item_id": null, "items": [{"item_id": "b"}], "value": 1}),
            "value",
        ),
        (
            json!({"item_id": null, "items": [{"item_id": "b"}], "position": 1}),
            "position",
        ),
        (
            json!({"item_id": null, "items": [{"item_id": "b", "position": 1, "rank": 2}]}),
            "items[0].rank",
        ),
        (
            json!({"item_id": null, "items": [{"item_id": "b", "position": 1, "rank": 1.0}]}),
            "",
        ),
    ];
    let native = interactions
        .into_iter()
        .map(|(more, field)| (Table::Interactions, Native, with(click(), &more), field));
    let others = exposures.into_iter().map(|(format, more, field)| {
        let (table, event) = example(format);
        (table, format, with(event, &more), field)
    });
    for (table, format, event, field) in others.chain(native) {
        let told = decode_as(table, Some(format), false, &event.to_string()).unwrap();
        let expected = (!field.is_empty()).then_some(("conflicting_fields", field));
        assert_eq!(told.rejection(), expected, "{format} {event}");
        assert_eq!(told.rows.len(), usize::from(field.is_empty()), "{event}");
    }
}

#[test]
fn a_tenant_is_named_by_either_field_in_every_format() {
    for format in Format::ALL {
        let (table, event) = example(format);
        for name in ["tenant_id", "tenant"] {
            for named in ["other", &OTHER.to_string()] {
                let event = with(event.clone(), &json!({name: named}));
                let told = decode_as(table, Some(format), true, &event.to_string()).unwrap();
                assert_eq!(told.rejection(), None, "{event}");
                assert_eq!(told.rows[0]["tenant_id"], OTHER.to_string(), "{event}");
            }
        }
    }
}

#[test]
fn a_name_for_one_thing_stands_once() {
    for (names, rejection) in [
        (r#""rank":1,"rank":1"#, Some(("duplicate_field", "rank"))),
        (r#""ts":null,"ts":null"#, None),
        (r#""other":1,"other":1"#, None),
    ] {
        let body = click().to_string().replace('{', &format!("{{{names},"));
        let told = decode(Table::Interactions, &body);
        assert_eq!(told.rejection(), rejection, "{body}");
    }
}

#[test]
fn a_time_that_is_null_does_not_hide_the_other_formats_time() {
    let event = with(example(Format::OutcomeV1).1, &json!({"occurred_at": null}));
    let told = decode(Table::Interactions, &event.to_string());
    assert_eq!(told.rows[0]["occurred_at"], NOW);
    assert_eq!(told.rows[0]["meta"]["schema"], "outcome_v1");
}
