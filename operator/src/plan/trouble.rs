//! Why a pod does not come up, and the way out, which Kubernetes does not say. What a worker says of itself ends with it already. Pure.

/// The reason of a [`Trouble`] that the worker blames on a server that was away.
pub const SERVER_AWAY: &str = "ServerAway";

/// Why a pod does not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One word: `ImagePullBackOff`, `Unschedulable`, `Error`, [`SERVER_AWAY`]...
    pub reason: String,
    /// The whole story, as Kubernetes or the worker tells it.
    pub message: String,
}

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

impl Trouble {
    /// Whether the pod is not to blame, as far as its worker knows: it will come up once a server is back.
    pub fn may_pass(&self) -> bool {
        self.reason == SERVER_AWAY
    }

    /// The whole story, for people.
    pub fn words(&self) -> String {
        match way_out(&self.reason, &self.message) {
            Some(way_out) => format!("{}; {way_out}", self.message.trim_end_matches('.')),
            None => self.message.clone(),
        }
    }
}

fn way_out(reason: &str, message: &str) -> Option<&'static str> {
    match reason {
        "Unschedulable" => Some(
            "ask for less in spec.workers.resources.requests, correct nodeSelector, affinity and tolerations in spec.workers.podTemplate, or add a node",
        ),
        "OOMKilled" => Some("raise spec.workers.resources.limits.memory, or lower spec.state.memory"),
        // It has other causes, too, such as a user that the image does not allow.
        "CreateContainerConfigError" if message.contains("secret") || message.contains("configmap") => {
            Some("make the secret or config map that is named, with that key in it, in the job's namespace")
        }
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
            let said = Trouble { reason: reason.into(), message: message.into() }.words();
            assert!(said.starts_with(expected), "{said}");
        };
        check("Unschedulable", "0/2 nodes are available.", "0/2 nodes are available; ask for less in spec.workers.resources.requests");
        check("ImagePullBackOff", "Back-off pulling image \"a\"", "Back-off pulling image \"a\"; correct spec.workers.image");
        check("InvalidImageName", "no", "no; correct spec.workers.image");
        check("OOMKilled", "it ended with exit code 137", "it ended with exit code 137; raise spec.workers.resources.limits.memory");
        check("CreateContainerConfigError", "secret \"kafka\" not found", "secret \"kafka\" not found; make the secret");
        for (reason, message) in
            [("Error", "forebay: topic flights is missing; create it"), ("CreateContainerConfigError", "the image runs as root")]
        {
            assert_eq!(Trouble { reason: reason.into(), message: message.into() }.words(), message);
        }
    }
}
