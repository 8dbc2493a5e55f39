//! The secrets that a pod's environment comes from: which they are, and by their versions whether they are as they were when the pod was made. What is in
//! them, the operator does not read. Those that are mounted are left out: Kubernetes renews their files.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use crate::observe::SeenPod;
use crate::plan::Secrets;

/// On a worker's pod: the versions of its secrets when it was made, by name. One that was missing then is not among them.
pub const ANNOTATION: &str = "forebay.dev/secrets";

/// Writes down on a pod that is to be made which versions its secrets have now.
pub fn note(pod: &mut Pod, version: impl Fn(&str) -> Option<String>) {
    let names = SeenPod::from(&*pod).spec.secrets.into_iter();
    let versions: BTreeMap<String, String> = names.filter_map(|(name, _)| version(&name).map(|version| (name, version))).collect();
    let text = serde_json::to_string(&versions).expect("text by text is JSON");
    pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
}

/// What has become of a pod's secrets since it was made.
pub fn since_made(pod: &SeenPod, version: impl Fn(&str) -> Option<String>) -> Secrets {
    // One that does not tell was made by an operator that knew nothing of this: it is let alone.
    let noted: Option<BTreeMap<String, String>> = pod.annotations().get(ANNOTATION).and_then(|text| serde_json::from_str(text).ok());
    let mut secrets = Secrets::default();
    for (name, is_needed) in &pod.spec.secrets {
        match (version(name), &noted) {
            (Some(now), Some(noted)) if noted.get(name) != Some(&now) => drop(secrets.changed.insert(name.clone())),
            (None, _) if *is_needed => drop(secrets.missing.insert(name.clone())),
            (Some(_) | None, _) => {}
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    //! Method: a pod is noted with the versions of one moment and compared with those of another.

    use super::*;

    fn pod() -> Pod {
        let key = |name: &str| serde_json::json!({"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}});
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "first", "env": [key("of-first")]}],
            "containers": [{
                "name": "worker", "env": [key("kafka"), {"name": "PLAIN", "value": "x"}],
                "envFrom": [{"secretRef": {"name": "store"}}, {"secretRef": {"name": "more", "optional": true}}],
            }],
            "volumes": [{"name": "keys", "secret": {"secretName": "mounted"}}],
        }}))
        .unwrap()
    }

    /// Names with their versions, separated by spaces.
    fn versions(text: &str) -> impl Fn(&str) -> Option<String> {
        let all: BTreeMap<String, String> =
            text.split_whitespace().map(|pair| pair.split_once('=').unwrap()).map(|(name, at)| (name.into(), at.into())).collect();
        move |name| all.get(name).cloned()
    }

    fn check(noted: &str, now: &str, changed: &[&str], missing: &[&str]) {
        let mut pod = pod();
        note(&mut pod, versions(noted));
        let secrets = since_made(&SeenPod::from(&pod), versions(now));
        let names = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>();
        assert_eq!((names(&secrets.changed), names(&secrets.missing)), (owned(changed), owned(missing)), "{noted} then {now}");
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_has_become_of_secrets_is_told_by_their_versions() {
        let all = "kafka=1 store=2 of-first=3 more=4 mounted=5";
        check(all, all, &[], &[]);
        check(all, "kafka=1 store=9 of-first=3 more=4 mounted=5", &["store"], &[]);
        check(all, "kafka=1 store=2 of-first=8 more=7 mounted=6", &["more", "of-first"], &[]);
        check(all, "store=9 of-first=3", &["store"], &["kafka"]);
        // What was missing when the pod was made, and is there now.
        check("store=2 of-first=3", all, &["kafka", "more"], &[]);
    }

    #[test]
    fn a_pod_that_does_not_tell_is_let_alone() {
        assert_eq!(since_made(&SeenPod::from(&pod()), versions("kafka=1 store=2 of-first=3")), Secrets::default());
        assert_eq!(since_made(&SeenPod::from(&pod()), versions("kafka=1 store=2")).missing.len(), 1);
    }
}
