//! Deltas tell the whole state, and telling one twice does no harm.

use crate::support::Job;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const PIPELINE: &str = "
- parse: {format: json}
- upsert:
    table: t
    set: {a: .a, b: .b}
    increment: {n: .n, f: .f}
    min: {low: .x}
    max: {high: .x}
    append: {log: {value: .log, cap: 3}}
    addToSet: {tags: .tag}
    emit: {topic: deltas}
- upsert:
    table: t
    max: {high: .n}
    unset: [b]
    removeFromSet: {tags: .untag}
    newerBy: .at
    emit: {topic: deltas}
- filter: .bad == null || .bad > 0
";

/// What a reader of the deltas does, as the documentation has it.
fn apply(document: &mut Map<String, Value>, delta: &Value) {
    for (field, value) in delta["set"].as_object().into_iter().flatten() {
        document.insert(field.clone(), value.clone());
    }
    for field in delta["unset"].as_array().into_iter().flatten() {
        document.remove(field.as_str().unwrap());
    }
    for (field, members) in delta["addToSet"].as_object().into_iter().flatten() {
        let set = document.entry(field.clone()).or_insert_with(|| json!([])).as_array_mut().unwrap();
        for member in members.as_array().unwrap() {
            if !set.contains(member) {
                set.push(member.clone());
            }
        }
    }
    for (field, members) in delta["removeFromSet"].as_object().into_iter().flatten() {
        let set = document.get_mut(field).unwrap().as_array_mut().unwrap();
        set.retain(|member| !members.as_array().unwrap().contains(member));
    }
}

fn any_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Into::into),
        (-3_i64..4).prop_map(Into::into),
        prop::sample::select(vec![0.5, 1.0, -2.5]).prop_map(Into::into),
        prop::sample::select(vec!["", "a", "b", "a longer text than fits inline"]).prop_map(Into::into),
    ]
}

fn any_input() -> impl Strategy<Value = Value> {
    let field = prop::sample::select(vec!["a", "b", "n", "f", "x", "log", "tag", "untag", "at", "bad"]);
    let value = prop_oneof![4 => any_scalar(), 1 => prop::collection::vec(any_scalar(), 0..4).prop_map(Into::into)];
    let at = prop::sample::select(vec![1, 2, 3]);
    (prop::collection::hash_map(field, value, 0..8), at).prop_map(|(fields, at)| {
        let mut fields: Map<_, _> = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        fields.entry("at").or_insert(at.into());
        Value::Object(fields)
    })
}

proptest! {
    #[test]
    fn deltas_in_order_give_the_state_also_when_each_comes_twice(inputs in prop::collection::vec(any_input(), 1..40)) {
        let values: Vec<_> = inputs.iter().map(ToString::to_string).collect();
        let run = Job::new(PIPELINE).run_values(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let (mut once, mut twice) = (Map::new(), Map::new());
        for delta in run.values("deltas") {
            let delta: Value = serde_json::from_str(delta).unwrap();
            prop_assert!(delta.as_object().unwrap().len() > 2, "an empty delta came out: {}", delta);
            apply(&mut once, &delta);
            apply(&mut twice, &delta);
            apply(&mut twice, &delta);
        }
        let state = run.entity("t", "k").map_or(Value::Object(Map::new()), |entity| serde_json::from_str(&entity.to_json()).unwrap());
        prop_assert_eq!(Value::Object(once), state.clone());
        prop_assert_eq!(Value::Object(twice), state);
    }
}
