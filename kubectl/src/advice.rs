//! What conditions say, and what to do about it. The reasons are those of `docs/operator.md`, and a test compares.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The condition that holds: of `Ready`, `Reconciling` and `Stalled` one does.
pub fn holding(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.status == "True")
}

/// What to do about this reason in a job's conditions, or in those of a savepoint of it. `None`: nothing needs to be done, or nothing is known of it.
pub fn advice(reason: &str, job: &str) -> Option<String> {
    let text = match reason {
        "InvalidSpec" => "correct the fields that the message names, and apply the manifest; what runs goes on running meanwhile",
        "ChangeRefused" => {
            "set the fields that the message names back, or go another way that it names, and apply the manifest; what runs goes on running meanwhile"
        }
        "ShardStalled" => {
            "do what the message says (docs/operations.md tells what happens when); the shard is tried again by itself. \
             `kubectl forebay logs JOB --shard N` shows what its worker says"
        }
        "ShardFailed" => "nothing yet: it is tried again by itself; if it stays so, `kubectl forebay logs JOB --shard N`",
        "Error" => {
            "repair what the last line of the worker says: a topic that is missing, a bucket without permission, VRL that does not compile. \
             It starts again by itself; `kubectl forebay logs JOB --previous` shows all of it"
        }
        "ServerAway" => {
            "see to it that the server which the last line of the worker names is at work and reached from the pods, or correct its address. \
             It starts again by itself; `kubectl forebay logs JOB --previous` shows all of it"
        }
        "CrashLoopBackOff" => "see why it ends: `kubectl forebay logs JOB --previous`; it is started again by itself",
        "Refused" => {
            "change what the API server's message names: in spec.workers.podTemplate or spec.workers.volumeClaimTemplate, or in what the namespace allows"
        }
        "SecretMissing" => "make the secret that the message names again, in the job's namespace; nobody can be started without it",
        "SecretRefused" => "correct what is in the secret that the message names: the workers are replaced by themselves then",
        "RolledBack" => {
            "repair the manifest and apply it; or try the same once more with `kubectl forebay restart JOB`. What the bad revision refused is put \
             back by itself, unless the message says that it is left to `forebay dlq replay`"
        }
        "RewindFailed" => {
            "ask for what the message names, under another spec.state.rewind.id; or delete spec.state.rewind: the job processes as before"
        }
        "NoSuchJob" => "make the job, or correct spec.job by making another savepoint",
        "CopyFailed" | "DeadlineExceeded" => "repair what the message names, and take another savepoint",
        "JobAils" => "have all shards process first, and take another savepoint",
        _ => return None,
    };
    Some(text.replace("JOB", job))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kubernetes' own, with whose words the operator says the way out.
    const IN_THE_MESSAGE: [&str; 10] = [
        "OOMKilled",
        "Unschedulable",
        "CreateContainerConfigError",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    ];

    /// Method: the reasons in the first column of the table in the document.
    #[test]
    fn every_reason_in_the_document_has_its_way_out_once() {
        let document = include_str!("../../docs/operator.md");
        let table = document.lines().skip_while(|line| !line.starts_with("| reason of `Stalled` |")).skip(2);
        let cells: Vec<&str> = table.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1)).collect();
        let reasons: Vec<&str> = cells.iter().flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        assert!(reasons.len() > 5, "the table is not there any more: {reasons:?}");
        for reason in reasons {
            assert_eq!(advice(reason, "flights").is_none(), IN_THE_MESSAGE.contains(&reason), "{reason}");
        }
        assert_eq!(advice("AllShardsRun", "flights"), None);
        assert!(advice("CrashLoopBackOff", "flights").unwrap().contains("`kubectl forebay logs flights --previous`"));
    }
}
