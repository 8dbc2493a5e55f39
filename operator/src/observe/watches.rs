//! The watches: what they keep is a copy of the cluster, and most of what an operator with many jobs holds in memory.

use std::fmt::Debug;

use futures::{Stream, StreamExt};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{Controller, WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::resources::MANAGED_BY;

/// The API of a kind, in one namespace or in all.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The operator's own objects.
pub fn own_objects() -> Config {
    Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1))
}

/// A controller of all objects of a kind.
pub fn controller<K>(client: &Client, namespace: Option<&str>) -> Controller<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    Controller::for_stream(reflector(writer, lean(api(client, namespace), Config::default())).applied_objects(), store)
}

/// Keeps a copy of the operator's own objects of a kind.
pub fn watch<K>(client: &Client, namespace: Option<&str>) -> Store<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = reflector(writer, lean(api(client, namespace), own_objects()).default_backoff());
    tokio::spawn(stream.for_each(|event| async move {
        if let Err(error) = event {
            tracing::warn!(kind = %K::kind(&()), %error, "a watch is started again");
        }
    }));
    store
}

/// Without who wrote which field: most of an object, as a tree of maps in memory, and of no interest here.
fn lean<K>(api: Api<K>, config: Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, config).modify(|object: &mut K| object.meta_mut().managed_fields = None)
}
