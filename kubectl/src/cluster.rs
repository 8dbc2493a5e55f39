//! Every read and write of the cluster, and what an error of it means for people. Nobody else holds a client.

use anyhow::{Context as _, anyhow, bail};
use forebay_api::look::{self, Look};
use forebay_crds::{IngestionJob, IngestionSavepoint};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{GetParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::KubeConfigOptions;
use kube::core::{NamespaceResourceScope, Request, Status};
use kube::{Api, Client, Config, Resource, ResourceExt};

/// By this name the API server knows which fields were changed by this program.
const FIELD_MANAGER: &str = "kubectl-forebay";
/// Where the operator of a job is that no operator has looked at.
const OPERATOR_NAMESPACE: &str = "forebay-system";
/// More jobs than anybody reads the names of.
const NAMES_MAX: usize = 20;

/// The cluster, and where in it jobs are looked for.
pub struct Cluster {
    client: Client,
    /// The namespace of the jobs.
    pub namespace: String,
    /// The operator's, if it is not the one that the job's status names.
    operator_namespace: Option<String>,
}

impl Cluster {
    /// By the kubeconfig, as kubectl does it.
    pub async fn connect(context: Option<&str>, namespace: Option<String>, operator_namespace: Option<String>) -> anyhow::Result<Self> {
        let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let config = match context {
            Some(name) => Config::from_kubeconfig(&options).await.with_context(|| format!("take context {name:?} of the kubeconfig"))?,
            None => Config::infer().await.context("find the cluster; KUBECONFIG names the file that says where it is")?,
        };
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config).context("set up the connection to the cluster")?, namespace, operator_namespace })
    }

    /// A kind in the jobs' namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A job. `Err` names those that there are, if it is none of them.
    pub async fn job(&self, name: &str) -> anyhow::Result<IngestionJob> {
        let doing = format!("read job {name} in namespace {}", self.namespace);
        if let Some(job) = self.api().get_opt(name).await.map_err(|error| explained(error, &doing))? {
            return Ok(job);
        }
        let there =
            self.api::<IngestionJob>().list_metadata(&ListParams::default()).await.map_err(|error| explained(error, "list the jobs"))?;
        let names: Vec<String> = there.iter().map(ResourceExt::name_any).collect();
        bail!(no_such_job(name, &self.namespace, &names))
    }

    /// The savepoints of a job, by their names.
    pub async fn savepoints(&self, job: &str) -> anyhow::Result<Vec<IngestionSavepoint>> {
        let all = self.api::<IngestionSavepoint>().list(&ListParams::default()).await;
        let all = all.map_err(|error| explained(error, "list the savepoints"))?;
        Ok(all.into_iter().filter(|savepoint| savepoint.spec.job == job).collect())
    }

    /// The pods of a job's workers, by their names.
    pub async fn workers(&self, job: &IngestionJob) -> anyhow::Result<Vec<Pod>> {
        let selector = format!("app.kubernetes.io/component=worker,forebay.dev/job={}", job.name_any());
        let pods = self.api::<Pod>().list(&ListParams::default().labels(&selector)).await;
        let pods = pods.map_err(|error| explained(error, "list the job's pods"))?;
        let is_its = |pod: &Pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref());
        Ok(pods.into_iter().filter(is_its).collect())
    }

    /// The last look at a job of the operator that looks after it. It is asked through the API server, which reaches it whatever network this runs in.
    pub async fn look(&self, job: &IngestionJob) -> anyhow::Result<Look> {
        let named = job.status.as_ref().and_then(|status| status.operator.clone().filter(|name| !name.is_empty()));
        let namespace = self.operator_namespace.clone().or(named).unwrap_or_else(|| OPERATOR_NAMESPACE.to_owned());
        let leases = Api::<Lease>::namespaced(self.client.clone(), &namespace);
        let lease = leases.get_opt(look::LEASE).await.map_err(|error| no_look(error, &lease_of(&namespace), &namespace))?;
        let leader = lease.and_then(|lease| lease.spec?.holder_identity).filter(|holder| !holder.is_empty());
        let Some(leader) = leader else { bail!(no_leader(&namespace)) };
        let pod = format!("/api/v1/namespaces/{namespace}/pods/{leader}:{}/proxy", look::OPERATOR_PORT);
        let request = Request::new(format!("{pod}{}", look::path(&self.namespace))).get(&job.name_any(), &GetParams::default())?;
        self.client.request(request).await.map_err(|error| no_look(error, &operator_of(&leader, &namespace), &namespace))
    }

    /// Changes a job's spec. Returns the job as it is now.
    pub async fn change(&self, job: &IngestionJob, spec: serde_json::Value) -> anyhow::Result<IngestionJob> {
        // Of this very job: one made anew under its name meanwhile is left alone.
        let patch = serde_json::json!({"metadata": {"uid": job.metadata.uid}, "spec": spec});
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let done = self.api::<IngestionJob>().patch(&job.name_any(), &parameters, &Patch::Merge(patch)).await;
        done.map_err(|error| explained(error, &format!("change job {} in namespace {}", job.name_any(), self.namespace)))
    }

    /// Makes a savepoint.
    pub async fn make(&self, savepoint: &IngestionSavepoint) -> anyhow::Result<IngestionSavepoint> {
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let made = self.api::<IngestionSavepoint>().create(&parameters, savepoint).await;
        made.map_err(|error| explained(error, &format!("make savepoint {} in namespace {}", savepoint.name_any(), self.namespace)))
    }
}

/// What an error means, and the way out.
pub fn explained(error: kube::Error, doing: &str) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow!(refused(&status, doing)),
        error => anyhow!(error).context(format!("{doing}; is the API server reached from here (`kubectl cluster-info`)?")),
    }
}

fn refused(status: &Status, doing: &str) -> String {
    let way_out = match status.code {
        401 => "log in anew: the API server does not know you",
        403 => "ask for the right: the roles view (to look) and edit (to change) of the namespace have all that is needed of jobs",
        404 => "install Forebay: the API server does not know its resources (docs/operator.md)",
        409 if status.reason == "AlreadyExists" => "name another one",
        409 => "try it once more: it was changed at the same time",
        _ => return format!("{doing}: the API server says: {}", status.message),
    };
    format!("{doing}: the API server says: {}; {way_out}", status.message)
}

fn no_such_job(name: &str, namespace: &str, there: &[String]) -> String {
    let others = match there.len() {
        0 => "there is none at all; `kubectl get ij -A` lists those of all namespaces, and -n names another one".to_owned(),
        count if count > NAMES_MAX => format!("there are {count} others; `kubectl get ij -n {namespace}` lists them"),
        _ => format!("there are: {}", there.join(", ")),
    };
    format!("there is no job {name} in namespace {namespace}; {others}")
}

fn no_leader(namespace: &str) -> String {
    format!(
        "no operator leads: nobody has the lease {} in namespace {namespace}; see `kubectl get pods -n {namespace}`, or name the operator's namespace by \
         --operator-namespace. Jobs run on meanwhile",
        look::LEASE
    )
}

fn lease_of(namespace: &str) -> String {
    format!("find the operator that leads by the lease {} in namespace {namespace}", look::LEASE)
}

fn operator_of(leader: &str, namespace: &str) -> String {
    format!("ask {leader} in namespace {namespace}, the operator that leads")
}

/// Why the leading operator did not tell of its last look.
fn no_look(error: kube::Error, doing: &str, namespace: &str) -> anyhow::Error {
    let kube::Error::Api(status) = error else { return explained(error, doing) };
    let way_out = match status.code {
        403 => format!("ask for the right to `get` that lease and `pods/proxy` in namespace {namespace}: docs/kubectl.md has the role"),
        // Of the API server's own making: the pod's answers are plain text.
        404 if status.reason == "NotFound" => {
            "it is gone, and another one leads after 15 seconds; an operator outside of the cluster cannot be asked".to_owned()
        }
        404 => "it has not looked at the job yet, or looks after other namespaces, or is of an older version".to_owned(),
        _ => "try it once more in a few seconds: another one may lead by then".to_owned(),
    };
    let message = status.message.trim();
    let said = if message.is_empty() { format!("code {}", status.code) } else { message.to_owned() };
    anyhow!("{doing}: {said}; {way_out}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: u16, reason: &str, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, reason).with_code(code).boxed())
    }

    fn check(said: &str, expected: &[&str]) {
        for part in expected {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }

    #[test]
    fn errors_name_what_was_asked_what_was_found_and_the_way_out() {
        check(&no_such_job("a", "n", &[]), &["no job a in namespace n", "none at all", "kubectl get ij -A"]);
        check(&no_such_job("a", "n", &["b".into(), "c".into()]), &["there are: b, c"]);
        check(&no_such_job("a", "n", &vec!["b".to_owned(); 21]), &["21 others", "kubectl get ij -n n"]);
        check(&no_leader("n"), &["no operator leads", "namespace n", "--operator-namespace"]);
        let denied = "jobs is forbidden";
        check(&explained(refusal(403, "Forbidden", denied), "read job a").to_string(), &["read job a", denied, "view"]);
        check(&explained(refusal(404, "NotFound", "not found"), "list the jobs").to_string(), &["list the jobs", "install Forebay"]);
        check(&explained(refusal(409, "AlreadyExists", "s exists"), "make savepoint s").to_string(), &["name another"]);
        check(
            &explained(refusal(422, "Invalid", "too long"), "change job a").to_string(),
            &["change job a: the API server says: too long"],
        );
    }

    #[test]
    fn why_an_operator_tells_nothing_is_told() {
        let said = |code, reason, message| no_look(refusal(code, reason, message), &operator_of("op-1", "n"), "n").to_string();
        check(&said(403, "Forbidden", "no"), &["ask op-1 in namespace n", "`pods/proxy`"]);
        check(&said(404, "NotFound", "pods \"op-1\" not found"), &["it is gone"]);
        check(&said(404, "Failed to parse error data", "this operator has not looked"), &["has not looked at the job yet"]);
        check(&said(503, "Failed to parse error data", "this operator does not lead\n"), &["does not lead; try it once more"]);
        check(&said(502, "", ""), &["code 502"]);
    }
}
