//! What a watch keeps of the operator's own objects, found by whose they are: with thousands of objects, a look at one job must not go through all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

use crate::resources::JOB_UID_LABEL;
use crate::resources::task::CLEANUP_LABEL;

/// Objects of a kind.
#[derive(Clone)]
pub struct Kept<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store: Store<K>,
    /// Namespaces and names, by the uid of the job or savepoint that they are for.
    index: Arc<Mutex<BTreeMap<String, BTreeSet<(String, String)>>>>,
}

impl<K> Kept<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    /// Of what a watch puts into this store, once it is noted.
    pub(super) fn new(store: Store<K>) -> Self {
        Self { store, index: Arc::default() }
    }

    /// Follows what the store has just taken up.
    pub(super) fn note(&self, event: &Event<K>) {
        match event {
            Event::Apply(object) => add(&mut self.index(), object),
            Event::Delete(object) => {
                let (place, mut index) = (place(object), self.index());
                for uid in for_whom(object) {
                    index.entry(uid).or_default().remove(&place);
                }
                index.retain(|_, places| !places.is_empty());
            }
            // The store has what was listed only now, and nothing else any more.
            Event::InitDone => {
                let mut index = BTreeMap::new();
                self.all().iter().for_each(|object| add(&mut index, &**object));
                *self.index() = index;
            }
            Event::Init | Event::InitApply(_) => {}
        }
    }

    /// All that belong to the job or savepoint with this uid, or have to do with it, in the order of their names. What they are is for the caller to see.
    pub fn of(&self, uid: &str) -> Vec<Arc<K>> {
        let places: Vec<_> = self.index().get(uid).into_iter().flatten().cloned().collect();
        places.into_iter().filter_map(|(namespace, name)| self.store.get(&ObjectRef::new(&name).within(&namespace))).collect()
    }

    /// All there are.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// As the watch has them.
    pub fn store(&self) -> &Store<K> {
        &self.store
    }

    fn index(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<(String, String)>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add<K: Resource>(index: &mut BTreeMap<String, BTreeSet<(String, String)>>, object: &K) {
    for uid in for_whom(object) {
        index.entry(uid).or_default().insert(place(object));
    }
}

fn place<K: Resource>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
}

/// The uids of its owners, and of whom it is for without belonging to it.
fn for_whom<K: Resource>(object: &K) -> BTreeSet<String> {
    let owners = object.owner_references().iter().map(|owner| owner.uid.clone());
    let labels = [JOB_UID_LABEL, CLEANUP_LABEL].into_iter().filter_map(|label| object.labels().get(label).cloned());
    owners.chain(labels).collect()
}

#[cfg(test)]
mod tests {
    //! Method: events as a watch tells them go through a store, and what is found by uid is compared.

    use k8s_openapi::api::core::v1::Pod;
    use kube::runtime::reflector;

    use super::*;

    fn pod(name: &str, owner: &str, labels: &[(&str, &str)]) -> Pod {
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let owners = serde_json::json!([{"apiVersion": "v1", "kind": "K", "name": "o", "uid": owner}]);
        let metadata = serde_json::json!({"name": name, "namespace": "n", "labels": labels, "ownerReferences": owners});
        serde_json::from_value(serde_json::json!({ "metadata": metadata })).unwrap()
    }

    #[test]
    fn objects_are_found_by_whom_they_are_for_through_changes_and_new_lists() {
        let (store, mut writer) = reflector::store::<Pod>();
        let kept = Kept::new(store);
        let mut tell = |event: Event<Pod>| {
            writer.apply_watcher_event(&event);
            kept.note(&event);
        };
        let names = |uid: &str| kept.of(uid).iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
        let listed = || vec![pod("b", "job", &[]), pod("a", "job", &[]), pod("c", "savepoint", &[(JOB_UID_LABEL, "job")])];
        tell(Event::Init);
        listed().into_iter().for_each(|pod| tell(Event::InitApply(pod)));
        assert!(names("job").is_empty());
        tell(Event::InitDone);
        assert_eq!((names("job"), names("savepoint")), (vec!["a".into(), "b".into(), "c".into()], vec!["c".to_owned()]));

        tell(Event::Apply(pod("d", "other", &[(CLEANUP_LABEL, "job")])));
        tell(Event::Delete(pod("a", "job", &[])));
        assert_eq!((names("job"), names("other")), (vec!["b".into(), "c".into(), "d".into()], vec!["d".to_owned()]));

        // While a watch is begun anew nothing is missing; afterwards nothing is there that is gone.
        tell(Event::Init);
        tell(Event::InitApply(pod("e", "job", &[])));
        assert_eq!(names("job"), ["b", "c", "d"]);
        tell(Event::InitDone);
        assert_eq!((names("job"), names("savepoint"), names("other")), (vec!["e".to_owned()], vec![], vec![]));
    }
}
