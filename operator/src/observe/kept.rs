//! What a watch keeps of the operator's own objects, found by whose they are: with thousands of objects, a look at one job must not go through all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};

use crate::resources::JOB_UID_LABEL;
use crate::resources::task::CLEANUP_LABEL;

/// A watch that has not told of what was made for so long has told of its end, too.
const UNTOLD_MAX: Duration = Duration::from_secs(60);

/// Namespace and name.
type PlaceOf = (String, String);

/// Objects of a kind.
#[derive(Clone)]
pub struct Kept<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store: Store<K>,
    /// Namespaces and names, by the uid of the job or savepoint that they are for.
    index: Arc<Mutex<BTreeMap<String, BTreeSet<PlaceOf>>>>,
    /// What this operator has made and the watch has not told of yet: a look that comes right after must not make another one for it.
    made: Arc<Mutex<BTreeMap<PlaceOf, (Instant, Arc<K>)>>>,
    /// When the last list was begun.
    listed: Arc<Mutex<Option<Instant>>>,
}

impl<K> Kept<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    /// Of what a watch puts into this store, once it is noted.
    pub(super) fn new(store: Store<K>) -> Self {
        Self { store, index: Arc::default(), made: Arc::default(), listed: Arc::default() }
    }

    /// An object that the API server has just taken.
    pub(super) fn add_made(&self, object: K) {
        let there = self.store.get(&ObjectRef::from_obj(&object));
        if there.is_none_or(|there| there.meta().uid != object.meta().uid) {
            self.made().insert(place(&object), (Instant::now(), Arc::new(object)));
        }
    }

    /// Follows what the store has just taken up.
    pub(super) fn note(&self, event: &Event<K>) {
        match event {
            Event::Apply(object) => {
                self.is_told(object);
                add(&mut self.index(), object);
            }
            Event::Delete(object) => {
                self.is_told(object);
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
                // The list may be of a moment before something was made that was made since it was begun.
                let begun = *self.listed();
                self.made().retain(|_, (at, _)| begun.is_some_and(|begun| *at >= begun));
            }
            Event::Init => *self.listed() = Some(Instant::now()),
            Event::InitApply(_) => {}
        }
    }

    /// All that belong to the job or savepoint with this uid, or have to do with it, in the order of their names. What they are is for the caller to see.
    pub fn of(&self, uid: &str) -> Vec<Arc<K>> {
        let mut untold = self.untold(uid);
        let places: Vec<_> = self.index().get(uid).into_iter().flatten().cloned().collect();
        let mut found: Vec<Arc<K>> =
            places.into_iter().filter_map(|(namespace, name)| self.store.get(&ObjectRef::new(&name).within(&namespace))).collect();
        untold.retain(|made| found.iter().all(|object| object.meta().uid != made.meta().uid));
        found.extend(untold);
        found.sort_by_key(|object| object.name_any());
        found
    }

    fn untold(&self, uid: &str) -> Vec<Arc<K>> {
        let mut made = self.made();
        made.retain(|_, (at, _)| at.elapsed() < UNTOLD_MAX);
        made.values().map(|(_, object)| object).filter(|object| for_whom(&***object).contains(uid)).cloned().collect()
    }

    fn is_told(&self, object: &K) {
        let (place, mut made) = (place(object), self.made());
        if made.get(&place).is_some_and(|(_, untold)| untold.meta().uid == object.meta().uid) {
            made.remove(&place);
        }
    }

    /// All there are.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.store.state()
    }

    /// As the watch has them.
    pub fn store(&self) -> &Store<K> {
        &self.store
    }

    fn listed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<PlaceOf>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<PlaceOf, (Instant, Arc<K>)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add<K: Resource>(index: &mut BTreeMap<String, BTreeSet<PlaceOf>>, object: &K) {
    for uid in for_whom(object) {
        index.entry(uid).or_default().insert(place(object));
    }
}

fn place<K: Resource>(object: &K) -> PlaceOf {
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

    /// Method: a pod is made before the watch tells of it, as one that takes the place of another is; then the watch tells, of it and of its end.
    #[test]
    fn what_was_made_is_seen_before_the_watch_tells_of_it_and_no_longer_than_it_is_there() {
        let (store, mut writer) = reflector::store::<Pod>();
        let kept = Kept::new(store);
        let mut tell = |event: Event<Pod>| {
            writer.apply_watcher_event(&event);
            kept.note(&event);
        };
        let with_uid = |name: &str, uid: &str| {
            let mut pod = pod(name, "job", &[]);
            pod.metadata.uid = Some(uid.into());
            pod
        };
        let uids = || kept.of("job").iter().filter_map(|pod| pod.uid()).collect::<Vec<_>>();
        [Event::Init, Event::InitApply(with_uid("a", "1")), Event::InitDone].into_iter().for_each(&mut tell);
        kept.add_made(with_uid("a", "1"));
        kept.add_made(with_uid("b", "2"));
        assert_eq!(uids(), ["1", "2"]);
        assert_eq!(kept.of("other").len(), 0);
        tell(Event::Apply(with_uid("b", "2")));
        assert_eq!(uids(), ["1", "2"]);
        tell(Event::Delete(with_uid("b", "2")));
        assert_eq!(uids(), ["1"]);

        kept.add_made(with_uid("a", "3"));
        assert_eq!(uids(), ["1", "3"]);
        tell(Event::Delete(with_uid("a", "1")));
        assert_eq!(uids(), ["3"], "the end of the one before is not its own");
        [Event::Init, Event::InitDone].into_iter().for_each(&mut tell);
        assert_eq!(uids(), Vec::<String>::new(), "a list tells of all that there was when it was begun");
        tell(Event::Init);
        kept.add_made(with_uid("a", "4"));
        tell(Event::InitDone);
        assert_eq!(uids(), ["4"], "it was made since");
    }
}
