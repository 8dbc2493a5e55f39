//! Why a pod does not come up, and the way out, which Kubernetes does not say. What a worker says of itself ends with it already.

use crate::plan::Trouble;

/// What Kubernetes says of images that it cannot start a container from.
const OF_IMAGES: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "ImageInspectError",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

/// The whole story, for people.
pub(super) fn words(trouble: &Trouble) -> String {
    match way_out(&trouble.reason) {
        Some(way_out) => format!("{}; {way_out}", trouble.message.trim_end_matches('.')),
        None => trouble.message.clone(),
    }
}

fn way_out(reason: &str) -> Option<&'static str> {
    match reason {
        "Unschedulable" => Some(
            "ask for less in spec.workers.resources.requests, correct nodeSelector, affinity and tolerations in spec.workers.podTemplate, or add a node",
        ),
        "OOMKilled" => Some("raise spec.workers.resources.limits.memory, or lower spec.state.memory"),
        "CreateContainerConfigError" => Some("make the secret or config map that is named, with that key in it, in the job's namespace"),
        _ if OF_IMAGES.contains(&reason) => Some(
            "correct spec.workers.image (the operator's --worker-image if the job names none), put the image where the nodes find it, or name its pull secret in \
             spec.workers.podTemplate.spec.imagePullSecrets",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_says_is_followed_by_the_way_out() {
        let check = |reason: &str, message: &str, expected: &str| {
            let said = words(&Trouble { reason: reason.into(), message: message.into() });
            assert!(said.starts_with(expected), "{said}");
        };
        check("Unschedulable", "0/2 nodes are available.", "0/2 nodes are available; ask for less in spec.workers.resources.requests");
        check("ImagePullBackOff", "Back-off pulling image \"a\"", "Back-off pulling image \"a\"; correct spec.workers.image");
        check("InvalidImageName", "no", "no; correct spec.workers.image");
        check("OOMKilled", "it ended with exit code 137", "it ended with exit code 137; raise spec.workers.resources.limits.memory");
        let own = "forebay: topic flights is missing; create it";
        assert_eq!(words(&Trouble { reason: "Error".into(), message: own.into() }), own);
    }
}
