//! What the config maps of a job's revisions tell: what is known of each, and what the one that was in force last says of the job.

use std::sync::Arc;

use forebay_crds::{Finding, IngestionJob};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use super::{Observer, is_owned_by, label};
use crate::plan::Config;
use crate::plan::letters::Letters;
use crate::plan::rollout::Standing;
use crate::resources::{Blueprint, LETTERS_LABEL, NUMBER_LABEL, REASON_ANNOTATION, STANDING_LABEL, config_map};

impl Observer {
    /// A job whose manifest cannot work, by the revision that was in force last; `None`: none has ever been.
    pub fn in_force(&self, resource: &Arc<IngestionJob>) -> Option<Blueprint> {
        Blueprint::of_config(resource.clone(), &*self.newest_good(resource)?)
    }

    /// What of a job's manifest contradicts the state that it has by the revision that was in force last.
    pub fn contradictions(&self, blueprint: &Blueprint) -> Vec<Finding> {
        self.newest_good(&blueprint.resource).map_or_else(Vec::new, |good| blueprint.contradictions(&good))
    }

    fn newest_good(&self, resource: &IngestionJob) -> Option<Arc<ConfigMap>> {
        let uid = resource.uid()?;
        let good = |map: &Arc<ConfigMap>| match config(map).standing {
            Standing::Good(number) => Some((number, map.clone())),
            Standing::Untried | Standing::Proven | Standing::Bad(_) => None,
        };
        let maps = self.configs.of(&uid);
        let (_, newest) = maps.iter().filter(|map| is_owned_by(&***map, &uid)).filter_map(good).max_by_key(|(number, _)| *number)?;
        Some(newest)
    }
}

/// What is known of a revision.
pub(super) fn config(map: &ConfigMap) -> Config {
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
pub(super) fn results(map: &ConfigMap) -> Option<String> {
    let job: IngestionJob = serde_json::from_str(map.data.as_ref()?.get(config_map::FILE)?).ok()?;
    Some(forebay_crds::revision(&forebay_crds::validate(&job).ok()?))
}
