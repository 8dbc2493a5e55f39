//! What pods tell of themselves, as Kubernetes has it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::label;
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

/// Lets go of what nobody here asks a pod for: most of it, and what it was made from stands in its revision's config map.
pub(super) fn slim(pod: &mut Pod) {
    let slim_container = |container: Container| {
        let mut env = container.env.unwrap_or_default();
        env.retain(|variable| variable.value_from.as_ref().is_some_and(|from| from.secret_key_ref.is_some()));
        env.shrink_to_fit();
        Container { name: container.name, env: Some(env), env_from: container.env_from, ..Container::default() }
    };
    let all = |containers: Vec<Container>| containers.into_iter().map(slim_container).collect();
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        containers: all(spec.containers),
        init_containers: spec.init_containers.map(all),
        ..PodSpec::default()
    });
    pod.status = pod.status.take().map(|status| PodStatus {
        phase: status.phase,
        pod_ip: status.pod_ip,
        conditions: status.conditions,
        container_statuses: status.container_statuses,
        init_container_statuses: status.init_container_statuses,
        ..PodStatus::default()
    });
}

/// A worker's pod, with what its worker has answered.
pub(super) fn worker(pod: &Pod, answer: Answer, secrets: Secrets, now: Timestamp) -> Worker {
    let status = pod.status.as_ref();
    let is_ready = status
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let state = match status.and_then(|status| status.phase.as_deref()) {
        _ if is_stuck(pod, STUCK_TIMEOUT, now) => PodState::Stuck,
        _ if pod.metadata.deletion_timestamp.is_some() => PodState::Ending,
        Some("Succeeded" | "Failed") => PodState::Over,
        _ if is_ready => PodState::Ready,
        _ => PodState::Starting,
    };
    let containers = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    Worker {
        pod: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        slot: label(pod, SLOT_LABEL).and_then(|slot| slot.parse().ok()).unwrap_or(u32::MAX),
        template: label(pod, TEMPLATE_LABEL).unwrap_or_default(),
        state,
        age: age(pod, now),
        was_ready: containers.into_iter().any(|container| container.name == WORKER && container.ready),
        restarts: restarts(pod),
        trouble: trouble(pod),
        secrets,
        answer,
        trends: BTreeMap::new(),
    }
}

/// For how long there has been a pod.
pub(super) fn age(pod: &Pod, now: Timestamp) -> Duration {
    pod.metadata.creation_timestamp.as_ref().and_then(|made| now.duration_since(made.0).try_into().ok()).unwrap_or_default()
}

/// Whether it is still there so long after it was to be gone: its deletion time is that, not when it was asked to end.
fn is_stuck(pod: &Pod, timeout: Duration, now: Timestamp) -> bool {
    let ends = pod.metadata.deletion_timestamp.as_ref();
    ends.is_some_and(|ends| Duration::try_from(now.duration_since(ends.0)).is_ok_and(|since| since > timeout))
}

/// How far one has come that does one thing and ends.
pub(super) fn task_of(pod: &Pod, now: Timestamp) -> Task {
    let status = pod.status.as_ref();
    let mut containers = status.into_iter().flat_map(|status| status.container_statuses.iter().flatten());
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => Task::Done,
        // Its containers start again by themselves: so it was evicted, or its node was shut down.
        Some("Failed") => Task::Lost,
        _ if is_stuck(pod, REPLACE_TIMEOUT, now) => Task::Lost,
        _ => containers.find_map(refusal).map_or_else(|| Task::Working(restarts(pod), trouble(pod)), Task::Refused),
    }
}

/// What it said when it ended so the last time, whether or not it has been started again since.
fn refusal(container: &ContainerStatus) -> Option<String> {
    let states = [container.state.as_ref(), container.last_state.as_ref()].into_iter().flatten();
    let ended = states.filter_map(|state| state.terminated.as_ref()).next()?;
    (ended.exit_code == CANNOT_WORK).then(|| named(container, words_of(ended)))
}

/// `None` if it is none that does a rewind.
pub(super) fn rewinder(pod: &Pod, now: Timestamp) -> Option<Rewinder> {
    let id = pod.labels().get(REWIND_LABEL)?.clone();
    Some(Rewinder { pod: pod.name_any(), id, task: task_of(pod, now) })
}

/// `None` if it is none that puts dead letters back.
pub(super) fn postman(pod: &Pod, now: Timestamp) -> Option<Postman> {
    let template = pod.labels().get(LETTERS_OF_LABEL)?.clone();
    Some(Postman { pod: pod.name_any(), template, task: task_of(pod, now) })
}

/// How often its containers were started again.
pub(super) fn restarts(pod: &Pod) -> u32 {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    containers.map(|container| u32::try_from(container.restart_count).unwrap_or(0)).sum()
}

/// Only what does not go away by waiting a moment.
pub(super) fn trouble(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let unschedulable =
        status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unschedulable {
        let reason = condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
        return Some(Trouble { reason, message: condition.message.clone().unwrap_or_default() });
    }
    let mut containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers.find_map(container_trouble)
}

fn container_trouble(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = ended.or_else(|| container.last_state.as_ref().and_then(|state| state.terminated.as_ref()));
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
    let waiting = waiting.filter(|waiting| !matches!(waiting.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing")))?;
    let message = waiting.message.clone().unwrap_or_default();
    Some(Trouble { reason: waiting.reason.clone().unwrap_or_default(), message: named(container, message) })
}

/// Whose words they are, unless the worker's.
fn named(container: &ContainerStatus, message: String) -> String {
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
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "status": status})).unwrap();
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

    /// Method: pods with all that is asked for, and more, are compared with what is kept of them.
    #[test]
    fn what_is_kept_of_a_pod_tells_as_much_of_it() {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let key = |name: &str| serde_json::json!({"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}});
        let container = |ready: bool, state: &str, last: &str| {
            let mut status = container(ready, json(state), json(last))["containerStatuses"][0].clone();
            status["restartCount"] = 3.into();
            status
        };
        let crashed = r#"{"terminated": {"exitCode": 1, "message": "forebay: no broker"}}"#;
        let statuses = [
            serde_json::json!({"phase": "Running", "podIP": "10.1.2.3", "hostIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [container(true, r#"{"running": {}}"#, crashed)]}),
            serde_json::json!({"phase": "Pending", "initContainerStatuses": [container(false, crashed, "{}")]}),
            serde_json::json!({"phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}),
        ];
        for status in statuses {
            let meta = serde_json::json!({"name": "p", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {SLOT_LABEL: "4", TEMPLATE_LABEL: "t1"}, "annotations": {"forebay.dev/secrets": r#"{"kafka": "1"}"#}});
            let spec = serde_json::json!({
                "nodeName": "n", "volumes": [{"name": "state"}],
                "initContainers": [{"name": "first", "image": "i", "env": [key("of-first")]}],
                "containers": [{"name": "worker", "image": "i", "args": ["worker"], "env": [{"name": "PLAIN", "value": "x"}, key("kafka")],
                    "envFrom": [{"secretRef": {"name": "store"}}], "resources": {"limits": {"memory": "2Gi"}}}],
            });
            let whole: Pod = serde_json::from_value(serde_json::json!({"metadata": meta, "spec": spec, "status": status})).unwrap();
            let mut kept = whole.clone();
            slim(&mut kept);
            let told = |pod: &Pod| {
                let version = |name: &str| (name != "store").then(|| "2".to_owned());
                let secrets = crate::resources::secrets::since_made(pod, version);
                assert!(secrets.changed.len() == 2 && secrets.missing.len() == 1, "{secrets:?}");
                let now = "2026-01-01T00:01:00Z".parse().unwrap();
                (worker(pod, Answer::Unheard(Duration::ZERO), secrets, now), task_of(pod, now), pod.status.clone().unwrap().pod_ip)
            };
            assert_eq!(told(&kept), told(&whole), "{status}");
            let said = told(&whole).0;
            assert!((said.state == PodState::Ready) != said.trouble.is_some(), "{said:?}");
            let spec = kept.spec.unwrap();
            assert!(
                spec.volumes.is_none() && spec.containers[0].resources.is_none() && spec.containers[0].env.as_ref().unwrap().len() == 1
            );
        }
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
