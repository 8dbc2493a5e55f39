//! Following an object until what was asked for has come about.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use forebay_crds::TimeSpan;
use futures::{StreamExt, pin_mut};
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::cluster::explained;

/// Whether to wait, and for how long.
#[derive(Args)]
pub struct Wait {
    /// Wait until it has come about, and tell on standard error how it goes
    #[arg(long)]
    pub wait: bool,

    /// With --wait, for so long at most; what was asked for goes on after that
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    timeout: TimeSpan,
}

/// How far it has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not there yet, and why.
    Going(String),
    /// It has come about.
    Done,
    /// It will not, and why.
    Failed(String),
}

impl Wait {
    /// Watches an object until it is done. Returns it as it is then. `Err` when it has failed, was deleted, or the time is over.
    pub async fn follow<K>(&self, api: Api<K>, name: &str, progress: impl Fn(&K) -> Progress) -> anyhow::Result<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let mut last = "nothing was seen of it".to_owned();
        let followed = async {
            let changes = watcher::watch_object(api, name);
            pin_mut!(changes);
            while let Some(change) = changes.next().await {
                let Some(object) = change.map_err(|error| not_watched(error, name))? else { bail!("{name} was deleted meanwhile") };
                match progress(&object) {
                    Progress::Done => return Ok(object),
                    Progress::Failed(why) => bail!("{name}: {why}"),
                    Progress::Going(how) if how != last => {
                        eprintln!("{name}: {how}");
                        last = how;
                    }
                    Progress::Going(_) => {}
                }
            }
            bail!("the API server tells nothing more of {name}; ask `kubectl forebay status`")
        };
        let within: Duration = self.timeout.get();
        let followed = tokio::time::timeout(within, followed).await;
        followed.unwrap_or_else(|_| {
            Err(anyhow!("{name} is not there after {} s: {last}. It goes on; --timeout waits longer", within.as_secs()))
        })
    }
}

fn not_watched(error: watcher::Error, name: &str) -> anyhow::Error {
    let doing = format!("watch {name}, which goes on all the same");
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            explained(error, &doing)
        }
        error => anyhow!(error).context(doing),
    }
}
