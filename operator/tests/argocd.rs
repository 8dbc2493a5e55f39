//! The health script for Argo CD. Method: it is run on jobs as the operator leaves them, in the version of Lua that Argo CD has.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use mlua::{Lua, LuaSerdeExt};
use serde_json::{Value, json};

const SCRIPT: &str = include_str!("../../kustomize/argocd/health.lua");

fn check(status: Value, expected: (&str, &str)) {
    let job = json!({"metadata": {"name": "flights", "generation": 2}, "status": status});
    let lua = Lua::new();
    // Argo CD hands over nothing for what is not there.
    let options = mlua::serde::ser::Options::new().serialize_none_to_null(false).serialize_unit_to_null(false);
    lua.globals().set("obj", lua.to_value_with(&job, options).unwrap()).unwrap();
    let health: mlua::Table = lua.load(SCRIPT).eval().unwrap();
    let said: (String, String) = (health.get("status").unwrap(), health.get("message").unwrap());
    assert_eq!((said.0.as_str(), said.1.as_str()), expected, "{job}");
}

fn conditions(phase: &str, generation: u64, holds: &str) -> Value {
    let condition =
        |name: &str| json!({"type": name, "status": if name == holds { "True" } else { "False" }, "reason": "R", "message": "the story"});
    let all: Vec<Value> = ["Ready", "Reconciling", "Stalled"].into_iter().map(condition).collect();
    json!({"phase": phase, "observedGeneration": generation, "conditions": all})
}

#[test]
fn argo_cd_hears_how_a_job_is() {
    check(Value::Null, ("Progressing", "the operator has not looked at it yet"));
    check(json!({}), ("Progressing", "the operator has not looked at it yet"));
    check(conditions("Running", 2, "Ready"), ("Healthy", "the story"));
    check(conditions("Starting", 2, "Reconciling"), ("Progressing", "the story"));
    check(conditions("Stalled", 2, "Stalled"), ("Degraded", "the story"));
    check(conditions("RolledBack", 2, "Stalled"), ("Degraded", "the story"));
    check(conditions("Suspended", 2, "Ready"), ("Suspended", "the story"));
    check(conditions("Running", 1, "Ready"), ("Progressing", "the operator has not looked at the change yet"));
    // A savepoint has the same conditions.
    check(conditions("Copying", 2, "Reconciling"), ("Progressing", "the story"));
    check(conditions("Completed", 2, "Ready"), ("Healthy", "the story"));
    check(conditions("Failed", 2, "Stalled"), ("Degraded", "the story"));
}
