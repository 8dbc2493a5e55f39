//! Everything that is read: the cluster, from watches that keep themselves up to date, and the workers, which are dialled. Changes nothing.

mod lags;
mod pods;
pub mod refusals;
mod secrets;
mod watches;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_api::v1::worker_client::WorkerClient;
use forebay_api::v1::{DescribeRequest, Description};
use forebay_crds::validate::Rewind;
use forebay_crds::{IngestionJob, IngestionSavepoint};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt};
use tonic::transport::{Channel, Endpoint};

use crate::credentials::Credentials;
use crate::plan::letters::Letters;
use crate::plan::rewind::{self, Asked};
use crate::plan::rollout::Standing;
use crate::plan::schedule::{Calendar, Taken};
use crate::plan::{Answer, Config, Fleet, Saved, Task};
use crate::report::stops_for;
use crate::resources::revision::Revision;
use crate::resources::secrets::since_made;
use crate::resources::task::CLEANUP_LABEL;
use crate::resources::{
    Blueprint, DUE_LABEL, JOB_UID_LABEL, LETTERS_LABEL, NUMBER_LABEL, REASON_ANNOTATION, SLOT_LABEL, STANDING_LABEL, TEMPLATE_LABEL,
    certificate, config_map, network_policy,
};
use lags::Lags;
use pods::{age, postman, rewinder, task_of, worker};
use refusals::Refusals;
use secrets::Secrets;
use watches::watch;
pub use watches::{api, controller, own_objects};

/// How long a worker may take to answer: it answers from memory. Two of these are less than the time after which it counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

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

/// The eyes of the operator.
pub struct Observer {
    pods: Store<Pod>,
    configs: Store<ConfigMap>,
    services: Store<Service>,
    budgets: Store<PodDisruptionBudget>,
    policies: Store<NetworkPolicy>,
    /// The operator's own namespace.
    namespace: String,
    /// Those that the operator has made before changes.
    savepoints: Store<IngestionSavepoint>,
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
    channel: Channel,
    address: IpAddr,
    /// The number of the operator's certificate that the channel was made with.
    certificate: u64,
    known_since: Instant,
    last: Option<(Instant, Description)>,
}

impl Observer {
    /// Starts the watches, and waits until each of them has seen all there is.
    pub async fn start(client: &Client, namespace: Option<&str>, credentials: Credentials) -> anyhow::Result<Self> {
        let secrets = Secrets::watch(client, namespace);
        let (pods, configs, services, budgets) =
            (watch(client, namespace), watch(client, namespace), watch(client, namespace), watch(client, namespace));
        let (savepoints, policies) = (watch(client, namespace), watch(client, namespace));
        pods.wait_until_ready().await?;
        savepoints.wait_until_ready().await?;
        configs.wait_until_ready().await?;
        services.wait_until_ready().await?;
        budgets.wait_until_ready().await?;
        policies.wait_until_ready().await?;
        secrets.wait_until_ready().await?;
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
        let pods = self.pods.state_filter(|pod| is_of(pod, blueprint) && pod.labels().contains_key(SLOT_LABEL));
        let answers = join_all(pods.iter().map(|pod| self.ask(pod, blueprint.uid()))).await;
        let (now, version) = (Timestamp::now(), |name: &str| self.secret_version(&blueprint.job.namespace, name));
        let workers = pods.iter().zip(answers).map(|(pod, answer)| worker(pod, answer, since_made(pod, version), now)).collect();
        let maps = self.configs.state_filter(|config| is_of(config, blueprint));
        let maps: Vec<(String, &ConfigMap)> = maps.iter().filter_map(|map| Some((label(&**map, TEMPLATE_LABEL)?, &**map))).collect();
        let mut configs: BTreeMap<String, Config> = maps.iter().map(|(template, map)| (template.clone(), config(map))).collect();
        if configs.values().any(|config| config.letters == Letters::Due) {
            for (template, map) in &maps {
                configs.entry(template.clone()).and_modify(|config| config.results = results(map));
            }
        }
        let revisions = maps.iter().filter_map(|(template, map)| Some((template.clone(), Revision::read(map)?))).collect();
        let has_budget = !self.budgets.state_filter(|budget| is_of(budget, blueprint)).is_empty();
        let policy = network_policy::build(blueprint, &self.namespace).spec;
        let is_right = |found: &NetworkPolicy| is_of(found, blueprint) && found.spec == policy;
        let has_policy = !self.policies.state_filter(is_right).is_empty();
        let has_service = !self.services.state_filter(|service| is_of(service, blueprint)).is_empty();
        let (replicas, template, gate) = (blueprint.replicas(), blueprint.template.clone(), blueprint.job.upgrade);
        let savepoints = self.savepoints.state_filter(|savepoint| label(savepoint, JOB_UID_LABEL).as_deref() == Some(blueprint.uid()));
        let calendar = Calendar {
            schedule: blueprint.job.savepoints.clone(),
            now,
            made: blueprint.resource.metadata.creation_timestamp.as_ref().map_or(now, |made| made.0),
            taken: savepoints.iter().filter_map(|savepoint| taken(savepoint)).collect(),
        };
        let savepoints = savepoints.iter().filter_map(|savepoint| Some((label(&**savepoint, TEMPLATE_LABEL)?, saved(savepoint)))).collect();
        let stops_for = stops_for(&blueprint.resource, now);
        let rewind = rewind::Sight {
            asked: blueprint.job.rewind.as_ref().map(|rewind| asked(rewind, &blueprint.resource, now)),
            pods: self.pods.state_filter(|pod| is_of(pod, blueprint)).iter().filter_map(|pod| rewinder(pod, now)).collect(),
        };
        let postmen = self.pods.state_filter(|pod| is_of(pod, blueprint)).iter().filter_map(|pod| postman(pod, now)).collect();
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

    /// A job whose manifest cannot work, by the revision that was in force last; `None`: none has ever been.
    pub fn in_force(&self, resource: &IngestionJob) -> Option<Blueprint> {
        let uid = resource.uid()?;
        let good = |map: &Arc<ConfigMap>| match config(map).standing {
            Standing::Good(number) => Some((number, map.clone())),
            Standing::Untried | Standing::Proven | Standing::Bad(_) => None,
        };
        let maps = self.configs.state_filter(|config| is_owned_by(config, &uid));
        let (_, newest) = maps.iter().filter_map(good).max_by_key(|(number, _)| *number)?;
        Blueprint::of_config(resource.clone(), &newest)
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
    pub fn channel(&self, uid: &str) -> Option<Channel> {
        self.contacts().get(uid).map(|contact| contact.channel.clone())
    }

    /// The pod that copies the savepoint with this uid, and for how long there has been that.
    pub fn copier(&self, savepoint: &str, now: Timestamp) -> Option<(Task, Duration)> {
        self.pods.state_filter(|pod| is_owned_by(pod, savepoint)).first().map(|pod| (task_of(pod, now), age(pod, now)))
    }

    /// The pod that cleans up behind the job or savepoint with this uid.
    pub fn cleaner(&self, of: &str) -> Option<Task> {
        let is_it = |pod: &Pod| pod.labels().get(CLEANUP_LABEL).is_some_and(|uid| uid == of);
        self.pods.state_filter(is_it).first().map(|pod| task_of(pod, Timestamp::now()))
    }

    /// Forgets workers whose pods are gone.
    pub fn forget_gone(&self) {
        let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        if forgotten.elapsed() < FORGET_INTERVAL {
            return;
        }
        *forgotten = Instant::now();
        let there: BTreeSet<String> = self.pods.state().iter().filter_map(|pod| pod.uid()).collect();
        self.contacts().retain(|uid, _| there.contains(uid));
        self.refusals.forget_old(Instant::now());
        self.lags.retain(&there);
    }

    async fn ask(&self, pod: &Pod, job: &str) -> Answer {
        let Some(uid) = pod.uid() else { return Answer::Unheard(Duration::ZERO) };
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse::<IpAddr>().ok());
        let Some(channel) = self.contact(&uid, address, job) else { return Answer::Unheard(Duration::ZERO) };
        let mut client = WorkerClient::new(channel);
        let answer = client.describe(DescribeRequest {}).await.map(tonic::Response::into_inner);
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

    /// The channel to a pod: made when it has an address, made anew when that changes, as it does when a node was restarted, or when the operator has
    /// another certificate.
    fn contact(&self, uid: &str, address: Option<IpAddr>, job: &str) -> Option<Channel> {
        let certificate = self.credentials.number(Timestamp::now());
        let mut contacts = self.contacts();
        let address = match (address, contacts.get(uid)) {
            (Some(address), _) => address,
            (None, Some(contact)) => contact.address,
            (None, None) => return None,
        };
        let known = contacts.get(uid).filter(|contact| contact.address == address && contact.certificate == certificate);
        if let Some(contact) = known {
            return Some(contact.channel.clone());
        }
        let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        let endpoint = Endpoint::from_shared(format!("https://{host}:{}", forebay_api::PORT)).expect("an address and a port make a URL");
        let endpoint = endpoint.tls_config(self.credentials.for_workers(job)).expect("certificates of our own making are some");
        let channel = endpoint.connect_timeout(ANSWER_TIMEOUT).timeout(ANSWER_TIMEOUT).connect_lazy();
        let before = contacts.remove(uid);
        let (known_since, last) = before.map_or((Instant::now(), None), |contact| (contact.known_since, contact.last));
        contacts.insert(uid.to_owned(), Contact { channel: channel.clone(), address, certificate, known_since, last });
        Some(channel)
    }

    fn contacts(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Contact>> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By the owner's uid: an object of a job that was deleted and made again under its name is not this one's.
fn is_of<K: Resource>(object: &K, blueprint: &Blueprint) -> bool {
    is_owned_by(object, blueprint.uid())
}

fn is_owned_by<K: Resource>(object: &K, uid: &str) -> bool {
    object.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

fn label<K: Resource>(object: &K, name: &str) -> Option<String> {
    object.meta().labels.as_ref()?.get(name).cloned()
}

fn asked(rewind: &Rewind, resource: &IngestionJob, now: Timestamp) -> Asked {
    let said = resource.status.as_ref().and_then(|status| status.rewind.as_ref()).filter(|said| said.id == rewind.id);
    let started = said.and_then(|said| said.started.as_ref());
    Asked {
        rewind: rewind.clone(),
        said: said.map(|said| (said.phase, said.message.clone())),
        age: started.and_then(|started| now.duration_since(started.0).try_into().ok()).unwrap_or_default(),
    }
}

fn saved(savepoint: &IngestionSavepoint) -> Saved {
    let (phase, path) = savepoint.status.as_ref().map_or((None, None), |status| (status.phase, status.path.clone()));
    let made = savepoint.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |made| made.0);
    Saved { name: savepoint.name_any(), phase, path, made, takes_all: !savepoint.finalizers().is_empty() }
}

/// `None` if no schedule made it.
fn taken(savepoint: &IngestionSavepoint) -> Option<Taken> {
    let due = Timestamp::from_second(label(savepoint, DUE_LABEL)?.parse().ok()?).ok()?;
    let Saved { name, phase, path, takes_all, .. } = saved(savepoint);
    Some(Taken { name, due, phase, path, takes_all, ends: savepoint.metadata.deletion_timestamp.is_some() })
}

fn config(map: &ConfigMap) -> Config {
    let number = label(map, NUMBER_LABEL).and_then(|number| number.parse().ok());
    let standing = match label(map, STANDING_LABEL).as_deref() {
        Some("good") => Standing::Good(number.unwrap_or(1)),
        Some("proven") => Standing::Proven,
        Some("bad") => Standing::Bad(map.annotations().get(REASON_ANNOTATION).cloned().unwrap_or_default()),
        // Another word is of another version, or a user's: it is tried again.
        Some(_) | None => Standing::Untried,
    };
    let letters = match label(map, LETTERS_LABEL).as_deref() {
        Some("possible") => Letters::Possible,
        Some("due") => Letters::Due,
        Some("put-back") => Letters::PutBack,
        Some("left") => Letters::Left,
        Some(_) | None => Letters::None,
    };
    Config { standing, version: map.resource_version(), results: None, letters }
}

/// The hash of what decides results, as workers compute it from this manifest.
fn results(map: &ConfigMap) -> Option<String> {
    let job: IngestionJob = serde_json::from_str(map.data.as_ref()?.get(config_map::FILE)?).ok()?;
    Some(forebay_crds::revision(&forebay_crds::validate(&job).ok()?))
}
