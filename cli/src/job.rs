//! A job from its manifest to all that running or inspecting it needs: validated, identified, compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use forebay_crds::identity::{changed, contradictions};
use forebay_crds::validate::topic_field;
use forebay_crds::{Finding, JobIdentity, Manifest, ValidatedJob, revision};
use forebay_engine::ids::{OutputId, Revision, TableId, Timeline};
use forebay_engine::lifetimes::Lifetimes;
use forebay_engine::log::{JobTopics, LogError, TimestampLimits};
use forebay_engine::store::{Body, ObjectStore, Put, StoreError};
use forebay_local::LocalLogError;
use forebay_pipeline::{CompileContext, CompileError, CompiledPipeline, InputContext};
use serde::Serialize;

use crate::output::Output;
use crate::places::Places;
use crate::{BadManifest, Unusable, timelines};

/// The file in a state folder that names the job whose databases lie there.
const STATE_MARK: &str = "job";

/// The most bytes of an output record: what every output must take, less the framing of a batch.
const RECORD_BYTES_MAX: usize = forebay_kafka::OUTPUT_BATCH_BYTES - 512;

/// A manifest that makes sense by itself.
pub struct Loaded {
    pub manifest: Manifest,
    pub job: ValidatedJob,
    /// The history that it is in: the first one, unless [`open`] has asked the object store.
    pub timeline: Timeline,
    /// The rewind that began it, by its id.
    pub rewind: Option<String>,
}

/// Reads and checks a manifest, and finds out which history the job is in.
pub fn open(places: &Places) -> anyhow::Result<Loaded> {
    let mut loaded = load(&places.file)?;
    if let Some(beginning) = timelines::current(&*loaded.root(places)?)? {
        (loaded.timeline, loaded.rewind) = (beginning.timeline, Some(beginning.rewind));
    }
    Ok(loaded)
}

/// Reads and checks a manifest; the error lists all findings.
pub fn load(file: &Path) -> anyhow::Result<Loaded> {
    let name = file.display().to_string();
    let yaml = std::fs::read_to_string(file).map_err(|error| Unusable(format!("read {name}: {error}; name a manifest by -f")))?;
    let manifest = Manifest::parse(&yaml, &name).map_err(BadManifest)?;
    let job = manifest.validate().map_err(BadManifest)?;
    Ok(Loaded { manifest, job, timeline: Timeline::default(), rewind: None })
}

impl Loaded {
    /// The job's uid: the API server's, or one made of its name, so that every process that runs this manifest on one Kafka is of one job.
    pub fn uid(&self) -> String {
        self.job.uid.clone().unwrap_or_else(|| format!("{}.{}", self.job.namespace, self.job.name))
    }

    /// The object store, rooted where the job's identity lies. A job with a uid of the API server has one of its own there: deleted and made
    /// again under its name, it is another job.
    pub fn root(&self, places: &Places) -> anyhow::Result<Arc<dyn ObjectStore>> {
        let (namespace, name) = (&self.job.namespace, &self.job.name);
        match &self.job.uid {
            Some(uid) => places.store(&self.job, &format!("{namespace}/{name}/{uid}")),
            None => places.store(&self.job, &format!("{namespace}/{name}")),
        }
    }

    /// The object store, rooted at this job's timeline.
    pub fn store(&self, places: &Places) -> anyhow::Result<Arc<dyn ObjectStore>> {
        places.store(&self.job, &self.prefix(self.timeline))
    }

    /// The object store, rooted at another timeline.
    pub fn store_of(&self, places: &Places, timeline: Timeline) -> anyhow::Result<Arc<dyn ObjectStore>> {
        places.store(&self.job, &self.prefix(timeline))
    }

    /// The same, after a probe of all that a job needs of it.
    pub fn checked_store(&self, places: &Places) -> anyhow::Result<Arc<dyn ObjectStore>> {
        places.checked_store(&self.job, &self.prefix(self.timeline))
    }

    fn prefix(&self, timeline: Timeline) -> String {
        format!("{}/{}/{}/{timeline}", self.job.namespace, self.job.name, self.uid())
    }

    /// Refuses a folder with databases of another job, which a restore of this one would wipe, and marks one that nobody has as this job's.
    pub fn take_state_dir(&self, dir: &Path) -> anyhow::Result<()> {
        if self.owns_state_dir(dir)? {
            return Ok(());
        }
        let mark = dir.join(STATE_MARK);
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(&mark, self.uid() + "\n"))
            .with_context(|| format!("write {}; name another state folder by --state-dir", mark.display()))
    }

    /// Whether a state folder is marked as this job's; false: as nobody's. An error if it is another's.
    pub fn owns_state_dir(&self, dir: &Path) -> anyhow::Result<bool> {
        let (mark, uid) = (dir.join(STATE_MARK), self.uid());
        match std::fs::read_to_string(&mark) {
            Ok(owner) if owner.trim() == uid => Ok(true),
            // An empty mark is one that was being written when the process died.
            Ok(owner) if owner.trim().is_empty() => Ok(false),
            Ok(owner) => {
                let (dir, owner) = (dir.display(), owner.trim());
                Err(Unusable(format!("the state folder {dir} is that of job {owner}, not of {uid}; name another by --state-dir")).into())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("read {}", mark.display())),
        }
    }

    /// The job's identity, if it has ever run here.
    pub fn identity(&self, root: &dyn ObjectStore) -> anyhow::Result<Option<JobIdentity>> {
        newest_identity(root)
    }

    /// The job's identity; an error with the way out if it has never run here.
    pub fn identity_or_say(&self, root: &dyn ObjectStore) -> anyhow::Result<JobIdentity> {
        let found = self.identity(root)?;
        found.ok_or_else(|| {
            let (namespace, name) = (&self.job.namespace, &self.job.name);
            Unusable(format!(
                "job {namespace}/{name} has never run on this object store; name the right one by --store, or its working folder by --dir"
            ))
            .into()
        })
    }

    /// Puts the inputs into the order of the ids by which the state knows them, whatever their order in the manifest.
    pub fn order_inputs(&mut self, places: &Places) -> anyhow::Result<()> {
        let Some(identity) = self.identity(&*self.root(places)?)? else { return Ok(()) };
        self.refuse_changes(&identity)?;
        self.job.inputs = identity.inputs_by_id(&self.job).into_iter().cloned().collect();
        Ok(())
    }

    /// Refuses a manifest that contradicts the state. Whether a job in a cluster may have other keys is its operator's to say, which knows what revision is in force.
    fn refuse_changes(&self, identity: &JobIdentity) -> anyhow::Result<()> {
        let has_operator = self.job.uid.is_some();
        self.refuse(if has_operator { changed(identity, &self.job) } else { contradictions(identity, &self.job) })
    }

    /// Refuses a manifest that contradicts a state that another job has left and this one is to go on with.
    pub fn refuse_as_heir(&self, identity: &JobIdentity) -> anyhow::Result<()> {
        self.refuse(contradictions(identity, &self.job))
    }

    fn refuse(&self, mut findings: Vec<Finding>) -> anyhow::Result<()> {
        if findings.is_empty() {
            return Ok(());
        }
        self.manifest.locator.locate(&mut findings);
        Err(BadManifest(findings).into())
    }

    /// The identity that the job is to have: as it is known, extended by new tables, or a new one with so many shards. Refuses a manifest that contradicts what is
    /// known. Stores nothing.
    pub fn intended_identity(&self, root: &dyn ObjectStore, shards: u32) -> anyhow::Result<JobIdentity> {
        self.next_identity(root, shards).map(|(identity, _)| identity)
    }

    /// Stores the identity that was intended: from now on it stands, whatever the manifest says.
    pub fn settle_identity(&self, root: &dyn ObjectStore, intended: &JobIdentity) -> anyhow::Result<()> {
        // Each try loses only to another process that stored one in between.
        for _ in 0..10 {
            let (identity, fresh) = self.next_identity(root, intended.shards)?;
            if identity != *intended {
                anyhow::bail!("the job's identity has been changed by another process meanwhile; start this one again");
            }
            if !fresh {
                return Ok(());
            }
            let number = root.list("identity/")?.len() + 1;
            match root.put(&format!("identity/{number:06}.json"), &Body::Bytes(identity.encode())) {
                Ok(Put::Created) => return Ok(()),
                Ok(Put::AlreadyThere) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("store the job's identity: other processes keep changing it; start them one after another")
    }

    /// And whether it has yet to be stored.
    fn next_identity(&self, root: &dyn ObjectStore, shards: u32) -> anyhow::Result<(JobIdentity, bool)> {
        let Some(mut identity) = self.identity(root)? else {
            return Ok((JobIdentity::new(&self.uid(), shards, &self.job)?, true));
        };
        self.refuse_changes(&identity)?;
        let fresh = identity.assign_tables(&self.job)?;
        Ok((identity, fresh))
    }

    /// The topics of the job.
    pub fn topics(&self, shards: u32) -> JobTopics {
        let uid = self.uid();
        JobTopics {
            inputs: self.job.inputs.iter().map(|input| input.topic.clone()).collect(),
            outputs: self.job.output_topics.clone(),
            journal: format!("forebay.{uid}.{}.journal", self.timeline),
            group: self.job.consumer_group.clone(),
            uid,
            shards,
        }
    }

    /// What is wrong with a topic, at the place where the manifest names it.
    pub fn of_topic(&self, topic: &str, problem: &str, way_out: &str) -> BadManifest {
        self.of_field(&topic_field(&self.manifest.job.spec, topic).unwrap_or_default(), problem, way_out)
    }

    /// What is wrong with a field, with its place in the manifest.
    pub fn of_field(&self, field: &forebay_crds::Path, problem: &str, way_out: &str) -> BadManifest {
        let mut findings = vec![Finding::new(field, problem, way_out)];
        self.manifest.locator.locate(&mut findings);
        BadManifest(findings)
    }

    /// An error of the log; of a topic that is missing, with the field that names it.
    pub fn name_field(&self, error: anyhow::Error) -> anyhow::Error {
        let missing = error.chain().find_map(|cause| match (cause.downcast_ref(), cause.downcast_ref()) {
            (Some(LogError::Missing { what, .. }), _) | (_, Some(LocalLogError::Topics(LogError::Missing { what, .. }))) => {
                what.strip_prefix("topic ").map(str::to_owned)
            }
            _ => None,
        });
        match missing.and_then(|topic| topic_field(&self.manifest.job.spec, &topic)) {
            Some(field) => error.context(field),
            None => error,
        }
    }

    /// The hash of what decides results.
    pub fn revision(&self) -> Revision {
        Revision::new(revision(&self.job))
    }

    /// Compiles the pipeline; errors point at the manifest. `template`: what the process was made from, for dead letters.
    pub fn compile(
        &self,
        template: Option<&str>,
        tables: BTreeMap<String, TableId>,
        partitions: u32,
        timestamp_limits: Vec<TimestampLimits>,
    ) -> anyhow::Result<Arc<CompiledPipeline>> {
        let outputs =
            (0..).map(OutputId::new).zip(&self.job.output_topics).map(|(id, topic)| (topic.clone(), id)).collect::<BTreeMap<_, _>>();
        let context = CompileContext {
            dead_letter: outputs[&self.job.dead_letter],
            outputs,
            tables,
            record_bytes_max: RECORD_BYTES_MAX,
            timestamp_limits,
            job: format!("{}/{}", self.job.namespace, self.job.name),
            revision: self.revision().to_string(),
            template: template.map(str::to_owned),
            inputs: self.job.inputs.iter().map(|input| InputContext { topic: input.topic.clone(), partitions }).collect(),
        };
        self.compile_in(context)
    }

    /// Compiles the pipeline with these ids.
    pub fn compile_in(&self, context: CompileContext) -> anyhow::Result<Arc<CompiledPipeline>> {
        CompiledPipeline::compile(&self.job.pipeline, context).map_err(|errors| {
            let mut findings: Vec<Finding> = errors.iter().map(finding).collect();
            self.manifest.locator.locate(&mut findings);
            BadManifest(findings).into()
        })
    }
}

/// The identity of the job whose root this is.
pub fn newest_identity(root: &dyn ObjectStore) -> anyhow::Result<Option<JobIdentity>> {
    let newest = root.list("identity/")?.into_iter().map(|object| object.key).max();
    let Some(key) = newest else { return Ok(None) };
    let identity = JobIdentity::decode(&root.get(&key)?).with_context(|| format!("object {key}"))?;
    Ok(Some(identity))
}

fn finding(error: &CompileError) -> Finding {
    let path = forebay_crds::Path::parse(&error.path);
    let finding = Finding::new(&path, error.message.clone(), error.help.clone());
    match error.offset {
        Some(offset) => finding.at_offset(offset),
        None => finding,
    }
}

/// The ids that the state knows tables by.
pub fn tables(identity: &JobIdentity) -> BTreeMap<String, TableId> {
    identity.tables().map(|(name, id)| (name.to_owned(), TableId::new(id))).collect()
}

/// How long entities live, by the ids that the state knows tables by.
pub fn lifetimes(job: &ValidatedJob, tables: &BTreeMap<String, TableId>) -> Lifetimes {
    Lifetimes::new(job.table_ttls.iter().filter_map(|(table, ttl)| Some((*tables.get(table)?, *ttl))))
}

/// What `forebay validate` is told.
#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay validate -f job.yaml
  forebay validate -f job.yaml -o json | jq '.findings[]'")]
pub struct Validate {
    /// The manifest
    #[arg(short = 'f', long, value_name = "FILE", env = "FOREBAY_FILE")]
    file: PathBuf,
}

/// What `forebay validate` says on standard output. One that is not valid is told there in JSON only: as text it is the error.
#[derive(Serialize)]
struct Verdict<'a> {
    file: String,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<Revision>,
    findings: &'a [Finding],
}

impl std::fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.steps, &self.revision) {
            (Some(steps), Some(revision)) => write!(f, "{} is valid: {steps} steps, revision {revision}", self.file),
            _ => write!(f, "{} is not valid", self.file),
        }
    }
}

impl Validate {
    pub fn execute(&self, output: Output) -> anyhow::Result<()> {
        let file = self.file.display().to_string();
        match self.check() {
            Ok(loaded) => {
                let (steps, revision) = (Some(loaded.job.pipeline.len()), Some(loaded.revision()));
                output.print(&Verdict { file, valid: true, steps, revision, findings: &[] })
            }
            Err(error) => {
                if let (Some(BadManifest(findings)), Output::Json) = (error.downcast_ref(), output) {
                    output.print(&Verdict { file, valid: false, steps: None, revision: None, findings })?;
                }
                Err(error)
            }
        }
    }

    fn check(&self) -> anyhow::Result<Loaded> {
        let loaded = load(&self.file)?;
        // Ids only have to differ here.
        let names: BTreeSet<_> = loaded.job.tables.iter().cloned().collect();
        let tables = names.into_iter().zip((0..).map(TableId::new)).collect();
        loaded.compile(None, tables, 1, Vec::new())?;
        Ok(loaded)
    }
}
