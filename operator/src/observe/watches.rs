//! The watches: what they keep is a copy of the cluster, and most of what an operator with many jobs holds in memory.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::ensure;
use futures::channel::mpsc;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{Controller, WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::kept::Kept;
use super::seen_pod::SeenPod;
use crate::resources::MANAGED_BY;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Long enough for thousands of objects on a busy API server.
pub const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How many objects of a kind are read at once: until they are made smaller, each takes several times what is kept of it. With 500, as is usual, an operator that
/// was started again would need twice the memory for a moment.
const PAGE_OBJECTS: u32 = 25;

/// A kind, and when all that there is of it has been seen.
pub type Seen = (String, BoxFuture<'static, bool>);

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

/// Whatever happens to the operator's own pods.
pub fn own_pods(client: &Client, namespace: Option<&str>) -> impl Stream<Item = watcher::Result<SeenPod>> + Send + 'static {
    watcher(api(client, namespace), own_objects().page_size(PAGE_OBJECTS)).touched_objects()
}

/// The operator's own objects.
fn own_objects() -> Config {
    Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1))
}

/// A controller of all objects of a kind.
pub fn controller<K>(client: &Client, namespace: Option<&str>) -> Controller<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    controller_of(lean(api(client, namespace), Config::default()))
}

/// A list comes page by page, and the store takes it up at its end: what is looked at before that is not there yet, or as it was before. So all are looked at
/// once more then.
fn controller_of<K>(events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static) -> Controller<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let ((store, writer), (listed, all)) = (reflector::store(), mpsc::unbounded());
    let events = reflector(writer, events).inspect_ok(move |event| {
        if matches!(event, Event::InitDone) {
            // It fails when the controller has ended.
            drop(listed.unbounded_send(()));
        }
    });
    Controller::for_stream(events.applied_objects(), store).reconcile_all_on(all)
}

/// Keeps a copy of the operator's own objects of a kind.
pub fn watch<K>(client: &Client, namespace: Option<&str>) -> Kept<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = reflector(writer, lean(api(client, namespace), own_objects()).default_backoff());
    let kept = Kept::new(store);
    let follower = kept.clone();
    tokio::spawn(stream.for_each(move |event| {
        match event {
            Ok(event) => follower.note(&event),
            Err(error) => tracing::warn!(kind = %K::kind(&()), %error, "a watch is started again"),
        }
        std::future::ready(())
    }));
    kept
}

/// When a watch has seen all there is.
pub fn seen<K>(store: &Store<K>) -> Seen
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let store = store.clone();
    (K::kind(&()).into_owned(), async move { store.wait_until_ready().await.is_ok() }.boxed())
}

/// Waits until all of them have. `Err` names those that have not in time: an operator that does not see them must not look as if it worked.
pub async fn all_seen(watches: impl IntoIterator<Item = Seen>, limit: Duration) -> anyhow::Result<()> {
    let watches = watches.into_iter().map(|(kind, seen)| async move {
        let is_seen = tokio::time::timeout(limit, seen).await.unwrap_or(false);
        (!is_seen).then_some(kind)
    });
    let late: Vec<String> = join_all(watches).await.into_iter().flatten().collect();
    ensure!(
        late.is_empty(),
        "{} could not be watched within {} s, and the log says why; give the operator the role and the definitions of its own version",
        late.join(", "),
        limit.as_secs()
    );
    Ok(())
}

/// Without who wrote which field, which is most of an object, as a tree of maps in memory; and without all of it once more, which kubectl writes on what it
/// applies.
fn lean<K>(api: Api<K>, config: Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, config.page_size(PAGE_OBJECTS)).modify(|object: &mut K| {
        object.meta_mut().managed_fields = None;
        if let Some(annotations) = &mut object.meta_mut().annotations {
            annotations.remove(LAST_APPLIED);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::pin;
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use kube::runtime::controller::{Action, Error};

    use super::*;

    /// Method: after a first list there is another one, of which an object is asked for before the list is whole. It is not there yet.
    #[tokio::test]
    async fn what_a_later_list_brings_is_looked_at_once_it_is_there() {
        let (tell, events) = mpsc::unbounded();
        let look = |_: Arc<ConfigMap>, _: Arc<()>| async { Ok::<_, Infallible>(Action::await_change()) };
        let mut looks = pin!(controller_of(events).run(look, |_, _, _| Action::await_change(), Arc::new(())));
        let tell = |event: Event<ConfigMap>| tell.unbounded_send(Ok(event)).unwrap();
        let listed = |name: &str| {
            let map: ConfigMap = serde_json::from_value(serde_json::json!({"metadata": {"name": name, "namespace": "n"}})).unwrap();
            Event::InitApply(map)
        };
        [Event::Init, listed("a"), Event::InitDone].into_iter().for_each(tell);
        assert_eq!(looks.next().await.unwrap().unwrap().0.name, "a");
        [Event::Init, listed("a"), listed("b")].into_iter().for_each(tell);
        while !matches!(looks.next().await.unwrap(), Err(Error::ObjectNotFound(missing)) if missing.name == "b") {}
        tell(Event::InitDone);
        let limit = Duration::from_secs(60);
        let seen = async { while !matches!(looks.next().await.unwrap(), Ok((object, _)) if object.name == "b") {} };
        tokio::time::timeout(limit, seen).await.expect("it is looked at");
    }

    /// Method: of two watches one has seen all there is, and the other nothing.
    #[tokio::test]
    async fn watches_that_do_not_come_up_are_named() {
        let (pods, mut writer) = reflector::store::<Pod>();
        let (configs, _silent) = reflector::store::<ConfigMap>();
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        all_seen([seen(&pods)], Duration::from_secs(60)).await.unwrap();
        let error = all_seen([seen(&pods), seen(&configs)], Duration::from_millis(1)).await.unwrap_err();
        assert!(error.to_string().starts_with("ConfigMap could not be watched within 0 s"), "{error}");
        drop(_silent);
        all_seen([seen(&configs)], Duration::from_secs(60)).await.unwrap_err();
    }
}
