//! `forebay worker`: what a pod runs. It owns no shards until an operator gives it some, and goes on with them when the operator is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::BoolishValueParser;
use forebay_engine::worker::Report;
use forebay_worker::assignment::AssignmentFile;
use forebay_worker::control::tls::Certificates;
use forebay_worker::control::{self, Control, Facts};
use forebay_worker::{Runtime, http};

use crate::engine::{self, Means};
use crate::places::Places;
use crate::run::{check_kafka, open_kafka};
use crate::{Unusable, adopt, job, savepoint, timelines};

/// What `forebay worker` is told. Every flag has an environment variable.
#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay worker -f job.yaml --worker flights-0     answers an operator on port 7070

Exit codes: 0 stopped in good order, all shards released; 1 failed while at work; 2 wrong usage, or a job that cannot work; \
75 a server was not reached or gave no answer: trying again may help.")]
pub struct Worker {
    #[command(flatten)]
    places: Places,

    /// Answer the operator here
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7070", env = "FOREBAY_CONTROL")]
    control: SocketAddr,

    /// Answer only who proves to be the operator: a folder with tls.crt, tls.key and the operator's ca.crt, looked at for each connection [default: everybody is answered]
    #[arg(long, value_name = "FOLDER", env = "FOREBAY_CONTROL_TLS")]
    control_tls: Option<std::path::PathBuf>,

    /// Serve /metrics, /healthz and /readyz here, such as 0.0.0.0:9090
    #[arg(long, value_name = "ADDRESS", env = "FOREBAY_METRICS")]
    metrics: Option<SocketAddr>,

    /// This process's name in claims: no two processes that live at the same time may share it [default: the host's name]
    #[arg(long, value_name = "NAME", env = "FOREBAY_WORKER", value_parser = engine::worker_name)]
    worker: Option<String>,

    /// A rewind that the operator says has failed, by its id: it is given up, and never done later
    #[arg(long, value_name = "ID", env = "FOREBAY_REWIND_FAILED")]
    rewind_failed: Option<String>,

    /// The memory that the process may hold, from 16Mi to 1Ti; kept to from 256Mi on [default: spec.state.memory, else half of the container's or machine's memory]
    #[arg(long, value_name = "SIZE", env = "FOREBAY_MEMORY", value_parser = engine::memory_size)]
    memory: Option<forebay_crds::ByteSize>,

    /// Threads that process records [default: one per processor]
    #[arg(long, value_name = "N", env = "FOREBAY_THREADS", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// What this process was made from, as its operator calls it: written on its dead letters, so that those of one image can be put back
    #[arg(long, value_name = "NAME", env = "FOREBAY_TEMPLATE")]
    template: Option<String>,

    /// Log as JSON lines instead of text; RUST_LOG says how much (default: info)
    #[arg(long, env = "FOREBAY_LOG_JSON", value_parser = BoolishValueParser::new())]
    pub log_json: bool,
}

impl Worker {
    pub fn execute(&self) -> anyhow::Result<()> {
        // From the start: without a handler the first process of a container does not hear the signal that asks it to end.
        let stop = stop_flag()?;
        let certificates = self.control_tls.as_deref().map(Certificates::in_folder).transpose()?;
        let mut loaded = job::open(&self.places)?;
        let root = loaded.root(&self.places)?;
        adopt::check(&*root)?;
        let failed = self.rewind_failed.as_deref().filter(|id| !id.is_empty());
        let rewinds_given_up = timelines::stay(&*root, loaded.timeline, failed)?;
        let cluster = self.places.cluster(&loaded.job)?;
        let cluster = cluster.ok_or_else(|| Unusable("workers need Kafka: name the brokers as spec.kafka.bootstrapServers".into()))?;
        let (worker, template) = (self.worker.clone(), self.template.clone());
        let means = Means { worker, memory: self.memory, threads: self.threads, template, from_group: false };
        let memory = means.memory_bytes(&loaded);
        adopt::begin(&loaded, &self.places, |topics| open_kafka(&cluster, topics, memory))?;
        savepoint::begin(&loaded, &self.places, |topics| open_kafka(&cluster, topics, memory))?;
        loaded.order_inputs(&self.places)?;
        check_kafka(&loaded, &open_kafka(&cluster, loaded.topics(loaded.job.shards.unwrap_or(1)), memory)?)?;
        let (engine, identity) = engine::open(&loaded, &self.places, &means, |topics| open_kafka(&cluster, topics, memory))?;
        let options = engine::options(&loaded, &self.places, &identity, means);
        let facts = Facts {
            worker: options.worker.worker.to_string(),
            job: loaded.uid(),
            revision: options.revision.to_string(),
            shards: identity.shards,
            timeline: loaded.timeline,
            rewind: loaded.rewind.clone().unwrap_or_default(),
            rewinds_given_up,
        };
        let runtime = engine::start(&loaded, &self.places, &identity, engine, options)?;
        let file = AssignmentFile::in_folder(&self.places.state_dir());
        let parts = (runtime.assigner(), runtime.checkpointer(), runtime.prefetcher());
        let control = Arc::new(Control::resume(facts, runtime.status().clone(), parts, file)?);
        let served = control::serve(self.control, control.clone(), certificates)
            .with_context(|| format!("answer the operator on {}", self.control))?;
        let _metrics = self
            .metrics
            .map(|address| {
                http::serve(address, runtime.status().clone()).with_context(|| format!("serve metrics on {address}, which --metrics names"))
            })
            .transpose()?;
        watch(runtime, &control, &stop)?;
        control.say_farewell();
        served.end();
        Ok(())
    }
}

fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// Until it is asked to end: then all shards are released first.
fn watch(runtime: Runtime, control: &Control, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut stopping = false;
    while !runtime.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        for report in runtime.status().take_reports() {
            match report {
                Report::GaveUp(shard, gave_up) => control.gave_up(shard, gave_up),
                // The log has them already, and the status what is still true of them.
                Report::Owned(..) | Report::Failed(..) | Report::Stalled(..) | Report::FellBack(..) | Report::IncarnationOver(..) => {}
            }
        }
        if !stopping && stop.load(Ordering::Relaxed) {
            tracing::info!("all shards are being released");
            stopping = true;
            control.ending();
            runtime.stop();
        }
    }
    runtime.join().map_err(|panic| anyhow::anyhow!("a thread panicked: {panic}"))
}
