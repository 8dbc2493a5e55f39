//! Everything that is read: the cluster, from watches that keep themselves up to date, and the workers, which are dialled. Changes nothing.

mod configs;
mod connection;
mod kept;
pub mod lags;
mod pods;
pub mod refusals;
mod secrets;
mod seen_pod;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_api::v1::Description;
use forebay_api::v1::worker_client::WorkerClient;
use forebay_crds::IngestionSavepoint;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::{Client, Resource, ResourceExt};

use crate::credentials::Credentials;
use crate::plan::letters::Letters;
use crate::plan::rewind::{self, Asked};
use crate::plan::schedule::{Calendar, Taken};
use crate::plan::{Answer, Config, Fleet, Saved, Task};
use crate::report::stops_for;
use crate::resources::revision::Revision;
use crate::resources::secrets::since_made;
use crate::resources::task::CLEANUP_LABEL;
use crate::resources::{Blueprint, DUE_LABEL, JOB_UID_LABEL, SLOT_LABEL, TEMPLATE_LABEL, certificate, network_policy, savepoint};
use configs::{config, results};
use connection::Connection;
use kept::Kept;
use lags::Lags;
use pods::{age, postman, rewinder, task_of, worker};
use refusals::Refusals;
use secrets::Secrets;
pub use seen_pod::SeenPod;
use watches::watch;
pub use watches::{START_TIMEOUT, all_seen, controller, own_pods, seen};

/// How often workers whose pods are gone are forgotten: all pods are gone through for it, whichever job is looked at.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

/// What is seen of one job.
#[derive(Debug)]
pub struct Seen {
    /// What plans are made from.
    pub fleet: Fleet,
    /// The labels of the job's pods, as a selector.
    pub selector: String,
    /// What the revisions' pods are made from, by template.
    pub revisions: BTreeMap<String, Revision>,
}

/// A pod of a job or a savepoint.
pub struct Owned {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether it is on its way out.
    pub ends: bool,
}

/// The eyes of the operator.
pub struct Observer {
    pods: Kept<SeenPod>,
    configs: Kept<ConfigMap>,
    services: Kept<PartialObjectMeta<Service>>,
    budgets: Kept<PartialObjectMeta<PodDisruptionBudget>>,
    policies: Kept<NetworkPolicy>,
    /// The operator's own namespace.
    namespace: String,
    /// Those that the operator has made before changes.
    savepoints: Kept<IngestionSavepoint>,
    secrets: Secrets,
    /// What the API server does not take, by the uid of the job or the savepoint that it is for.
    pub refusals: Refusals,
    lags: Lags,
    credentials: Credentials,
    /// By the pod's uid.
    contacts: Mutex<BTreeMap<String, Contact>>,
    /// When workers were last forgotten.
    forgotten: Mutex<Instant>,
}

/// What this operator has had to do with a worker.
struct Contact {
    connection: Connection,
    address: IpAddr,
    /// The number of the operator's certificate that the connection was made with.
    certificate: u64,
    known_since: Instant,
    last: Option<(Instant, Description)>,
}

impl Observer {
    /// Starts the watches, and waits until each of them has seen all there is. `Err` when one does not come up.
    pub async fn start(client: &Client, namespace: Option<&str>, credentials: Credentials) -> anyhow::Result<Self> {
        let secrets = Secrets::watch(client, namespace);
        let pods = watch(client, namespace);
        let (configs, services, budgets) = (watch(client, namespace), watch(client, namespace), watch(client, namespace));
        let (savepoints, policies) = (watch(client, namespace), watch(client, namespace));
        let own = [seen(pods.store()), seen(configs.store()), seen(services.store()), seen(budgets.store())];
        let more = [seen(savepoints.store()), seen(policies.store()), secrets.seen()];
        all_seen(own.into_iter().chain(more), START_TIMEOUT).await?;
        let namespace = client.default_namespace().to_owned();
        let (refusals, lags, contacts) = (Refusals::default(), Lags::since(Instant::now()), Mutex::default());
        let forgotten = Mutex::new(Instant::now());
        Ok(Self {
            pods,
            configs,
            services,
            budgets,
            policies,
            namespace,
            savepoints,
            secrets,
            refusals,
            lags,
            credentials,
            contacts,
            forgotten,
        })
    }

    /// Looks at a job: its objects as the watches have them, its workers by asking each of them now.
    pub async fn look(&self, blueprint: &Blueprint) -> Seen {
        let own: Vec<Arc<SeenPod>> = of(&self.pods, blueprint).collect();
        let pods: Vec<&Arc<SeenPod>> = own.iter().filter(|pod| pod.labels().contains_key(SLOT_LABEL)).collect();
        let answers = join_all(pods.iter().map(|pod| self.ask(pod, blueprint.uid()))).await;
        let (now, version) = (Timestamp::now(), |name: &str| self.secret_version(&blueprint.job.namespace, name));
        let workers = pods.iter().zip(answers).map(|(pod, answer)| worker(pod, answer, since_made(pod, version), now)).collect();
        let maps: Vec<Arc<ConfigMap>> = of(&self.configs, blueprint).collect();
        let maps: Vec<(String, &ConfigMap)> = maps.iter().filter_map(|map| Some((label(&**map, TEMPLATE_LABEL)?, &**map))).collect();
        let mut configs: BTreeMap<String, Config> = maps.iter().map(|(template, map)| (template.clone(), config(map))).collect();
        if configs.values().any(|config| config.letters == Letters::Due) {
            for (template, map) in &maps {
                configs.entry(template.clone()).and_modify(|config| config.results = results(map));
            }
        }
        let revisions = maps.iter().filter_map(|(template, map)| Some((template.clone(), Revision::read(map)?))).collect();
        let has_budget = of(&self.budgets, blueprint).next().is_some();
        let policy = network_policy::build(blueprint, &self.namespace).spec;
        let has_policy = of(&self.policies, blueprint).any(|found| found.spec == policy);
        let has_service = of(&self.services, blueprint).next().is_some();
        let (replicas, template, gate) = (blueprint.replicas(), blueprint.template.clone(), blueprint.job.upgrade);
        let savepoints = self.savepoints.of(blueprint.uid());
        let calendar = Calendar {
            schedule: blueprint.job.savepoints.clone(),
            now,
            made: blueprint.resource.metadata.creation_timestamp.as_ref().map_or(now, |made| made.0),
            taken: savepoints.iter().filter_map(|savepoint| taken(savepoint)).collect(),
        };
        let savepoints = savepoints.iter().filter_map(|savepoint| Some((label(&**savepoint, TEMPLATE_LABEL)?, saved(savepoint)))).collect();
        let stops_for = stops_for(&blueprint.resource, now);
        let rewind = rewind::Sight {
            asked: blueprint.job.rewind.as_ref().map(|rewind| Asked::of(rewind, &blueprint.resource, now)),
            pods: own.iter().filter_map(|pod| rewinder(pod, now)).collect(),
        };
        let postmen = own.iter().filter_map(|pod| postman(pod, now)).collect();
        let mut fleet = Fleet {
            replicas,
            stops_for,
            template,
            gate,
            workers,
            configs,
            savepoints,
            calendar,
            rewind,
            postmen,
            refused: self.refusals.of(blueprint.uid(), &blueprint.template, Instant::now()),
            has_service,
            has_budget,
            has_policy,
        };
        if fleet.is_rewinding() {
            fleet.replicas = 0;
        }
        self.lags.follow(&mut fleet, Instant::now());
        let selector: Vec<String> = blueprint.selector().iter().map(|(name, value)| format!("{name}={value}")).collect();
        Seen { fleet, selector: selector.join(","), revisions }
    }

    /// The API server has taken a pod, and the watch may not have told of it yet.
    pub fn pod_is_made(&self, pod: SeenPod) {
        self.pods.add_made(pod);
    }

    /// Whether the workers of a job need a new certificate.
    pub fn certificate_is_due(&self, blueprint: &Blueprint) -> bool {
        let secret = self.secrets.get(&blueprint.job.namespace, &certificate::name(blueprint));
        let annotations =
            secret.as_ref().filter(|secret| is_of(&***secret, blueprint)).and_then(|secret| secret.metadata.annotations.as_ref());
        self.credentials.authority().is_due(annotations, Timestamp::now())
    }

    /// The version of a secret, which is another one whenever it is written; `None` while there is none.
    pub fn secret_version(&self, namespace: &str, name: &str) -> Option<String> {
        self.secrets.get(namespace, name)?.resource_version()
    }

    /// The namespace that this operator runs in.
    pub fn own_namespace(&self) -> &str {
        &self.namespace
    }

    /// By what the operator and its workers know each other.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// How to reach a worker that was seen: for those who tell it something.
    pub fn client(&self, uid: &str) -> Option<WorkerClient<Connection>> {
        self.contacts().get(uid).map(|contact| WorkerClient::new(contact.connection.clone()))
    }

    /// The pod that copies the savepoint with this uid, and for how long there has been that.
    pub fn copier(&self, savepoint: &str, now: Timestamp) -> Option<(Task, Duration)> {
        self.pods.of(savepoint).iter().find(|pod| is_owned_by(&***pod, savepoint)).map(|pod| (task_of(pod, now), age(pod, now)))
    }

    /// All pods that belong to the job or savepoint with this uid.
    pub fn pods_of(&self, owner: &str) -> Vec<Owned> {
        let owned = |pod: Arc<SeenPod>| Owned {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            ends: pod.metadata.deletion_timestamp.is_some(),
        };
        self.pods.of(owner).into_iter().filter(|pod| is_owned_by(&**pod, owner)).map(owned).collect()
    }

    /// Whether a savepoint of the job with this uid is being copied.
    pub fn is_copied(&self, job: &str) -> bool {
        let copies = |pod: &&Arc<SeenPod>| label(&***pod, JOB_UID_LABEL).is_some_and(|uid| uid == job);
        self.pods.of(job).iter().filter(copies).any(|pod| matches!(task_of(pod, Timestamp::now()), Task::Working(..)))
    }

    /// The pod that cleans up behind the job or savepoint with this uid.
    pub fn cleaner(&self, of: &str) -> Option<Task> {
        let is_it = |pod: &&Arc<SeenPod>| pod.labels().get(CLEANUP_LABEL).is_some_and(|uid| uid == of);
        self.pods.of(of).iter().find(is_it).map(|pod| task_of(pod, Timestamp::now()))
    }

    /// Forgets workers whose pods are gone.
    pub fn forget_gone(&self) {
        let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        if forgotten.elapsed() < FORGET_INTERVAL {
            return;
        }
        *forgotten = Instant::now();
        let there: BTreeSet<String> = self.pods.all().iter().filter_map(|pod| pod.uid()).collect();
        self.contacts().retain(|uid, _| there.contains(uid));
        self.refusals.forget_old(Instant::now());
        self.lags.retain(&there);
    }

    async fn ask(&self, pod: &SeenPod, job: &str) -> Answer {
        let Some(uid) = pod.uid() else { return Answer::Unheard(Duration::ZERO) };
        let address = pod.status.pod_ip.as_ref().and_then(|address| address.parse::<IpAddr>().ok());
        let Some(connection) = self.contact(&uid, address, job) else { return Answer::Unheard(Duration::ZERO) };
        let silent = self.contacts().get(&uid).and_then(|contact| Some(contact.last.as_ref()?.0.elapsed()));
        let answer = connection::describe(connection, silent).await;
        let mut contacts = self.contacts();
        let Some(contact) = contacts.get_mut(&uid) else { return Answer::Unheard(Duration::ZERO) };
        // An address may have been given to another pod meanwhile.
        let is_it = |said: &Description| said.job == job && said.worker == format!("{}.{uid}", pod.name_any());
        match answer {
            Ok(said) if is_it(&said) => {
                contact.last = Some((Instant::now(), said.clone()));
                return Answer::Heard(said);
            }
            Ok(said) => tracing::warn!(pod = pod.name_any(), answered = said.worker, "another worker answers at a pod's address"),
            Err(error) => tracing::debug!(pod = pod.name_any(), %error, "a worker does not answer"),
        }
        match &contact.last {
            Some((at, said)) => Answer::Silent(at.elapsed(), said.clone()),
            None => Answer::Unheard(contact.known_since.elapsed()),
        }
    }

    /// The connection to a pod: made when it has an address, made anew when that changes, as it does when a node was restarted, or when the operator has
    /// another certificate.
    fn contact(&self, uid: &str, address: Option<IpAddr>, job: &str) -> Option<Connection> {
        let certificate = self.credentials.number(Timestamp::now());
        let mut contacts = self.contacts();
        let address = match (address, contacts.get(uid)) {
            (Some(address), _) => address,
            (None, Some(contact)) => contact.address,
            (None, None) => return None,
        };
        let known = contacts.get(uid).filter(|contact| contact.address == address && contact.certificate == certificate);
        if let Some(contact) = known {
            return Some(contact.connection.clone());
        }
        let (name, tls) = self.credentials.for_workers(job);
        let connection = Connection::new(SocketAddr::new(address, forebay_api::PORT), name, tls);
        let before = contacts.remove(uid);
        let (known_since, last) = before.map_or((Instant::now(), None), |contact| (contact.known_since, contact.last));
        contacts.insert(uid.to_owned(), Contact { connection: connection.clone(), address, certificate, known_since, last });
        Some(connection)
    }

    fn contacts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Contact>> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By the owner's uid: an object of a job that was deleted and made again under its name is not this one's.
fn is_of<K: Resource>(object: &K, blueprint: &Blueprint) -> bool {
    is_owned_by(object, blueprint.uid())
}

/// All of a kind that belong to a job.
fn of<K>(kept: &Kept<K>, blueprint: &Blueprint) -> impl Iterator<Item = Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    kept.of(blueprint.uid()).into_iter().filter(|object| is_of(&**object, blueprint))
}

fn is_owned_by<K: Resource>(object: &K, uid: &str) -> bool {
    object.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

fn label<K: Resource>(object: &K, name: &str) -> Option<String> {
    object.meta().labels.as_ref()?.get(name).cloned()
}

fn saved(savepoint: &IngestionSavepoint) -> Saved {
    let (phase, path) = (savepoint.status.as_ref().and_then(|status| status.phase), savepoint::path(savepoint));
    let made = savepoint.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |made| made.0);
    Saved { name: savepoint.name_any(), phase, path, made, takes_all: !savepoint.finalizers().is_empty() }
}

/// `None` if no schedule made it.
fn taken(savepoint: &IngestionSavepoint) -> Option<Taken> {
    let due = Timestamp::from_second(label(savepoint, DUE_LABEL)?.parse().ok()?).ok()?;
    let Saved { name, phase, path, takes_all, .. } = saved(savepoint);
    Some(Taken { name, due, phase, path, takes_all, ends: savepoint.metadata.deletion_timestamp.is_some() })
}
