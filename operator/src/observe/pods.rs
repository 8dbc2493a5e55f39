//! What pods tell of themselves, as Kubernetes has it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ContainerStateTerminated;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::label;
use super::seen_pod::{SeenContainer, SeenPod};
use crate::plan::letters::Postman;
use crate::plan::rewind::Rewinder;
use crate::plan::{Answer, PodState, REPLACE_TIMEOUT, SERVER_AWAY, Secrets, Task, Trouble, Worker};
use crate::resources::pod::WORKER;
use crate::resources::task::{LETTERS_OF_LABEL, REWIND_LABEL};
use crate::resources::{SLOT_LABEL, TEMPLATE_LABEL};

/// The exit code of `forebay` for what cannot work, however often it is tried.
const CANNOT_WORK: i32 = 2;

/// The one for a broker or an object store that was not reached, or gave no answer.
const AWAY: i32 = 75;

/// Clocks differ a little, and kubelets take a moment.
const STUCK_TIMEOUT: Duration = Duration::from_secs(5);

/// A worker's pod, with what its worker has answered.
pub(super) fn worker(pod: &SeenPod, answer: Answer, secrets: Secrets, now: Timestamp) -> Worker {
    let is_ready = pod.status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let state = match pod.status.phase.as_deref() {
        _ if is_stuck(pod, STUCK_TIMEOUT, now) => PodState::Stuck,
        _ if pod.metadata.deletion_timestamp.is_some() => PodState::Ending,
        Some("Succeeded" | "Failed") => PodState::Over,
        _ if is_ready => PodState::Ready,
        _ => PodState::Starting,
    };
    Worker {
        pod: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        slot: label(pod, SLOT_LABEL).and_then(|slot| slot.parse().ok()).unwrap_or(u32::MAX),
        template: label(pod, TEMPLATE_LABEL).unwrap_or_default(),
        state,
        age: age(pod, now),
        was_ready: pod.status.container_statuses.iter().any(|container| container.name == WORKER && container.ready),
        restarts: restarts(pod),
        trouble: trouble(pod),
        secrets,
        answer,
        trends: BTreeMap::new(),
    }
}

/// For how long there has been a pod.
pub(super) fn age(pod: &SeenPod, now: Timestamp) -> Duration {
    pod.metadata.creation_timestamp.as_ref().and_then(|made| now.duration_since(made.0).try_into().ok()).unwrap_or_default()
}

/// Whether it is still there so long after it was to be gone: its deletion time is that, not when it was asked to end.
fn is_stuck(pod: &SeenPod, timeout: Duration, now: Timestamp) -> bool {
    let ends = pod.metadata.deletion_timestamp.as_ref();
    ends.is_some_and(|ends| Duration::try_from(now.duration_since(ends.0)).is_ok_and(|since| since > timeout))
}

/// How far one has come that does one thing and ends.
pub(super) fn task_of(pod: &SeenPod, now: Timestamp) -> Task {
    match pod.status.phase.as_deref() {
        Some("Succeeded") => Task::Done,
        // Its containers start again by themselves: so it was evicted, or its node was shut down.
        Some("Failed") => Task::Lost,
        _ if is_stuck(pod, REPLACE_TIMEOUT, now) => Task::Lost,
        _ => {
            let refusal = pod.status.container_statuses.iter().find_map(refusal);
            refusal.map_or_else(|| Task::Working(restarts(pod), trouble(pod)), Task::Refused)
        }
    }
}

/// What it said when it ended so the last time, whether or not it has been started again since.
fn refusal(container: &SeenContainer) -> Option<String> {
    let ended = container.state.terminated.as_ref().or(container.last_state.terminated.as_ref())?;
    (ended.exit_code == CANNOT_WORK).then(|| named(container, words_of(ended)))
}

/// `None` if it is none that does a rewind.
pub(super) fn rewinder(pod: &SeenPod, now: Timestamp) -> Option<Rewinder> {
    let id = pod.labels().get(REWIND_LABEL)?.clone();
    Some(Rewinder { pod: pod.name_any(), id, task: task_of(pod, now) })
}

/// `None` if it is none that puts dead letters back.
pub(super) fn postman(pod: &SeenPod, now: Timestamp) -> Option<Postman> {
    let template = pod.labels().get(LETTERS_OF_LABEL)?.clone();
    Some(Postman { pod: pod.name_any(), template, task: task_of(pod, now) })
}

/// How often its containers were started again.
pub(super) fn restarts(pod: &SeenPod) -> u32 {
    pod.status.container_statuses.iter().map(|container| u32::try_from(container.restart_count).unwrap_or(0)).sum()
}

/// Only what does not go away by waiting a moment.
pub(super) fn trouble(pod: &SeenPod) -> Option<Trouble> {
    let status = &pod.status;
    let unschedulable = status.conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unschedulable {
        let reason = condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
        return Some(Trouble { reason, message: condition.message.clone().unwrap_or_default() });
    }
    status.init_container_statuses.iter().chain(&status.container_statuses).find_map(container_trouble)
}

fn container_trouble(container: &SeenContainer) -> Option<Trouble> {
    let ended = container.state.terminated.as_ref().or(container.last_state.terminated.as_ref());
    if container.ready {
        return None;
    }
    // Why the process ended says more than that Kubernetes waits before it starts it again.
    if let Some(ended) = ended {
        let reason = match (ended.exit_code, &ended.reason) {
            (AWAY, _) if container.name == WORKER => SERVER_AWAY.to_owned(),
            (_, Some(reason)) => reason.clone(),
            (_, None) => "Error".to_owned(),
        };
        return Some(Trouble { reason, message: named(container, words_of(ended)) });
    }
    let waiting = container.state.waiting.as_ref();
    let waiting = waiting.filter(|waiting| !matches!(waiting.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing")))?;
    let message = waiting.message.clone().unwrap_or_default();
    Some(Trouble { reason: waiting.reason.clone().unwrap_or_default(), message: named(container, message) })
}

/// Whose words they are, unless the worker's.
fn named(container: &SeenContainer, message: String) -> String {
    if container.name == WORKER { message } else { format!("container {}: {message}", container.name) }
}

fn words_of(ended: &ContainerStateTerminated) -> String {
    let last_words = ended.message.as_deref().map(last_words).filter(|message| !message.is_empty());
    last_words.unwrap_or_else(|| format!("it ended with exit code {}", ended.exit_code))
}

/// What a process said when it ended. Kubernetes hands over the end of its log; before the error there are lines of no interest.
fn last_words(log: &str) -> String {
    let log = log.trim();
    let begins = log.rfind("\nforebay: ").map_or(0, |line_end| line_end + 1);
    log[begins..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: serde_json::Value, expected: Option<(&str, &str)>) {
        let pod: SeenPod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "status": status})).unwrap();
        let said = trouble(&pod);
        assert_eq!(said.as_ref().map(|trouble| (trouble.reason.as_str(), trouble.message.as_str())), expected);
    }

    fn container(ready: bool, state: serde_json::Value, last: serde_json::Value) -> serde_json::Value {
        let status = serde_json::json!({
            "name": "worker", "image": "i", "imageID": "", "restartCount": 1, "ready": ready, "state": state, "lastState": last
        });
        serde_json::json!({ "containerStatuses": [status] })
    }

    #[test]
    fn what_keeps_a_pod_from_running_is_said_in_the_words_of_whoever_knows_best() {
        let json = |text: &str| serde_json::from_str(text).unwrap();
        check(json("{}"), None);
        let condition =
            r#"{"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}"#;
        check(json(condition), Some(("Unschedulable", "0/2 nodes")));
        check(container(false, json(r#"{"waiting": {"reason": "ContainerCreating"}}"#), json("{}")), None);
        let pull = json(r#"{"waiting": {"reason": "ErrImagePull", "message": "no such image"}}"#);
        check(container(false, pull, json("{}")), Some(("ErrImagePull", "no such image")));
        let waits = || json(r#"{"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}"#);
        let last = || json(r#"{"terminated": {"exitCode": 2, "reason": "Error", "message": "forebay: topic flights is missing\n"}}"#);
        check(container(false, waits(), last()), Some(("Error", "forebay: topic flights is missing")));
        let away = json(r#"{"terminated": {"exitCode": 75, "reason": "Error", "message": "forebay: no answer\n"}}"#);
        check(container(false, waits(), away.clone()), Some((SERVER_AWAY, "forebay: no answer")));
        let log = json(
            r#"{"terminated": {"exitCode": 2, "message": "{\"level\":\"INFO\"}\nforebay: the manifest cannot work:\nspec.inputs: gone\n"}}"#,
        );
        check(container(false, waits(), log), Some(("Error", "forebay: the manifest cannot work:\nspec.inputs: gone")));
        check(container(true, json(r#"{"running": {}}"#), last()), None);
        let mut beside = container(false, waits(), away);
        beside["containerStatuses"][0]["name"] = "proxy".into();
        check(beside, Some(("Error", "container proxy: forebay: no answer")));
        let mut beside = container(false, waits(), last());
        beside["containerStatuses"][0]["name"] = "proxy".into();
        check(beside, Some(("Error", "container proxy: forebay: topic flights is missing")));
    }

    #[test]
    fn a_task_that_cannot_work_is_told_from_one_that_may() {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let task = |status: serde_json::Value| {
            let labels = serde_json::json!({REWIND_LABEL: "r1"});
            let pod = serde_json::json!({"metadata": {"name": "p", "labels": labels}, "status": status});
            rewinder(&serde_json::from_value(pod).unwrap(), Timestamp::UNIX_EPOCH).unwrap().task
        };
        let ended = |exit_code: i32| serde_json::json!({"terminated": {"exitCode": exit_code, "message": "forebay: no such savepoint"}});
        let waits = || json(r#"{"waiting": {"reason": "CrashLoopBackOff"}}"#);
        let runs = || json(r#"{"running": {}}"#);
        let refused = || Task::Refused("forebay: no such savepoint".into());
        assert_eq!(task(container(false, waits(), ended(2))), refused());
        assert_eq!(task(container(false, ended(2), json("{}"))), refused());
        assert_eq!(task(container(true, runs(), ended(2))), refused(), "it was started again before anybody looked");
        assert_eq!(task(container(true, runs(), ended(1))), Task::Working(1, None));
        assert!(matches!(task(container(false, waits(), ended(1))), Task::Working(1, Some(_))));
    }

    #[test]
    fn what_kubernetes_ended_or_cannot_end_is_lost() {
        let task = |phase: &str, ends: Option<&str>| {
            let pod = serde_json::json!({"metadata": {"name": "p", "deletionTimestamp": ends}, "status": {"phase": phase}});
            task_of(&serde_json::from_value(pod).unwrap(), "2026-01-01T00:01:00Z".parse().unwrap())
        };
        assert_eq!(task("Running", None), Task::Working(0, None));
        assert_eq!(task("Running", Some("2026-01-01T00:00:00Z")), Task::Working(0, None));
        assert_eq!(task("Running", Some("2025-12-31T23:59:59Z")), Task::Lost);
        assert_eq!(task("Failed", None), Task::Lost);
        assert_eq!(task("Succeeded", Some("2025-12-31T23:59:59Z")), Task::Done);
    }

    #[test]
    fn a_worker_that_was_to_be_gone_by_now_is_stuck() {
        let state = |ends: Option<&str>| {
            let pod = serde_json::json!({"metadata": {"name": "p", "deletionTimestamp": ends}, "status": {"phase": "Running"}});
            let now = "2026-01-01T00:01:00Z".parse().unwrap();
            worker(&serde_json::from_value(pod).unwrap(), Answer::Unheard(Duration::ZERO), Secrets::default(), now).state
        };
        assert_eq!(state(None), PodState::Starting);
        assert_eq!(state(Some("2026-01-01T00:01:30Z")), PodState::Ending);
        assert_eq!(state(Some("2026-01-01T00:00:55Z")), PodState::Ending);
        assert_eq!(state(Some("2026-01-01T00:00:54Z")), PodState::Stuck);
    }
}
