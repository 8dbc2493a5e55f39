//! What stands on secrets: their versions, and on the operator's own ones until when they are good. What is in them, the operator does not ask for.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Config;
use kube::runtime::{WatchStreamExt, reflector, watcher};

use super::watches::{Seen, api, seen};
use crate::resources::MANAGED_BY;

/// All secrets of the namespaces that are looked after.
pub(super) struct Secrets(Store<PartialObjectMeta<Secret>>);

impl Secrets {
    /// Starts the watch.
    pub(super) fn watch(client: &Client, namespace: Option<&str>) -> Self {
        let (store, writer) = reflector::store();
        // Not only the operator's own: a job names its secrets, and whoever made them knows nothing of the operator.
        let stream = watcher(api::<PartialObjectMeta<Secret>>(client, namespace), Config::default()).default_backoff().modify(slim);
        tokio::spawn(reflector(writer, stream).for_each(|event| async move {
            if let Err(error) = event {
                tracing::warn!(kind = "Secret", %error, "a watch is started again");
            }
        }));
        Self(store)
    }

    /// When all there is has been seen.
    pub(super) fn seen(&self) -> Seen {
        seen(&self.0)
    }

    /// What stands on one, if it is there.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<PartialObjectMeta<Secret>>> {
        self.0.get(&ObjectRef::new(name).within(namespace))
    }
}

/// Lets go of what is of no use. In the annotations of a secret that was applied by kubectl lies all that is in it.
fn slim(secret: &mut PartialObjectMeta<Secret>) {
    let metadata = &mut secret.metadata;
    metadata.managed_fields = None;
    let is_own = metadata.labels.as_ref().is_some_and(|labels| labels.get(MANAGED_BY.0).is_some_and(|by| by == MANAGED_BY.1));
    if !is_own {
        (metadata.annotations, metadata.labels, metadata.owner_references) = (None, None, None);
    }
}
