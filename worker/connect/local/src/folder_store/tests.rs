//! The folder as an object store: create-only, atomic, inside its root.

use super::*;
use std::sync::Barrier;

fn store() -> (tempfile::TempDir, FolderStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = FolderStore::open(&dir.path().join("deep/root")).unwrap();
    (dir, store)
}

fn bytes(text: &str) -> Body {
    Body::Bytes(text.as_bytes().to_vec())
}

#[test]
fn an_object_is_put_once_and_comes_back_whole() {
    let (dir, store) = store();
    let file = dir.path().join("file");
    fs::write(&file, "from a file").unwrap();
    assert_eq!(store.put("files/3/a", &bytes("first")).unwrap(), Put::Created);
    assert_eq!(store.put("files/3/a", &bytes("second")).unwrap(), Put::AlreadyThere);
    assert_eq!(store.get("files/3/a").unwrap(), b"first");
    assert_eq!(store.put("files/3/b", &Body::File(file.clone())).unwrap(), Put::Created);
    fs::write(&file, "was changed later, and is longer").unwrap();
    assert_eq!(store.put("empty", &bytes("")).unwrap(), Put::Created);
    // What is at the target is replaced, however long it is.
    assert_eq!(store.download("files/3/b", &file).unwrap(), Downloaded { size: 11, crc32: crc32fast::hash(b"from a file") });
    assert_eq!(fs::read(&file).unwrap(), b"from a file");
    assert_eq!(store.put("files/3/c", &Body::Pack(vec![file.clone(), file])).unwrap(), Put::Created);
    assert_eq!(store.get("files/3/c").unwrap(), b"from a filefrom a file");
    assert_eq!(store.get("empty").unwrap(), b"");
}

#[test]
fn of_many_that_put_an_object_at_once_one_creates_it_and_all_see_that_one() {
    let (_dir, store) = store();
    let barrier = Barrier::new(8);
    let created: Vec<_> = std::thread::scope(|threads| {
        let put = |n: u32| {
            let (store, barrier) = (&store, &barrier);
            threads.spawn(move || {
                let body = Body::Bytes(n.to_string().repeat(100_000).into_bytes());
                barrier.wait();
                let put = store.put("new/folder/object", &body).unwrap();
                assert_eq!(store.get("new/folder/object").unwrap().len(), 100_000, "nobody sees a part of it");
                (put == Put::Created).then_some(n)
            })
        };
        let threads: Vec<_> = (0..8).map(put).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    let [winner] = created[..] else { panic!("created by {created:?}") };
    assert_eq!(store.get("new/folder/object").unwrap(), winner.to_string().repeat(100_000).into_bytes());
    assert_eq!(fs::read_dir(store.root().join(UNFINISHED)).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_listing_has_every_object_below_a_prefix_in_the_order_of_keys() {
    let (_dir, store) = store();
    for key in ["b/10/x", "b/1/z", "b/1/y", "a", "b-c", "b/2"] {
        store.put(key, &bytes(key)).unwrap();
    }
    let check = |prefix: &str, expected: &[&str]| {
        let listed = store.list(prefix).unwrap();
        assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), expected, "{prefix}");
        for object in listed {
            assert_eq!(object.size, object.key.len() as u64);
            assert!(object.modified > Timestamp::from_millis(1_600_000_000_000), "{object:?}");
        }
    };
    check("", &["a", "b-c", "b/1/y", "b/1/z", "b/10/x", "b/2"]);
    check("b/", &["b/1/y", "b/1/z", "b/10/x", "b/2"]);
    check("b/1", &["b/1/y", "b/1/z", "b/10/x"]);
    check("b/1/", &["b/1/y", "b/1/z"]);
    check("b/1/y", &["b/1/y"]);
    check("c", &[]);
    check("../", &[]);
}

#[test]
fn deleting_is_for_good_and_what_is_not_there_counts_as_deleted() {
    let (_dir, store) = store();
    store.put("a/b", &bytes("x")).unwrap();
    store.delete(&["a/b".into(), "a/absent".into(), "absent/c".into(), "a".into()]).unwrap();
    assert_eq!(store.list("").unwrap(), vec![]);
    assert_eq!(store.put("a/b", &bytes("again")).unwrap(), Put::Created);
}

#[test]
fn an_object_that_is_not_there_is_not_found_and_a_download_leaves_nothing() {
    let (dir, store) = store();
    store.put("a/b", &bytes("x")).unwrap();
    let target = dir.path().join("target");
    for key in ["absent", "a", "a/b/c"] {
        let got = store.get(key);
        assert!(matches!(&got, Err(StoreError::NotFound { key: of, .. }) if of == key), "{key}: {got:?}");
        let got = store.download(key, &target);
        assert!(matches!(&got, Err(StoreError::NotFound { .. })), "{key}: {got:?}");
        assert!(!target.exists(), "{key}");
    }
    let absent = store.put("c", &Body::File(dir.path().join("absent")));
    assert!(matches!(&absent, Err(StoreError::Unavailable { reason, .. }) if reason.contains("absent")), "{absent:?}");
}

#[test]
fn no_key_leads_out_of_the_root_and_no_two_keys_are_one_file() {
    let (dir, store) = store();
    fs::write(dir.path().join("secret"), "x").unwrap();
    let absolute = dir.path().join("secret").to_str().unwrap().to_owned();
    let keys =
        ["", "/", "..", "../secret", "a/../../secret", "a/..", "./a", "a/./b", "a//b", "a/", "/a", ".unfinished/a", "a\0b", &absolute];
    for key in keys {
        let refused = [
            store.put(key, &bytes("x")).err(),
            store.get(key).err(),
            store.download(key, &dir.path().join("to")).err(),
            store.delete(&[key.to_owned()]).err(),
        ];
        for error in refused {
            assert!(matches!(error, Some(StoreError::Denied { .. })), "{key:?}: {error:?}");
        }
    }
    assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"x");
}

#[test]
fn a_folder_and_an_object_cannot_have_one_name() {
    let (_dir, store) = store();
    store.put("a/b", &bytes("x")).unwrap();
    for key in ["a", "a/b/c"] {
        let put = store.put(key, &bytes("y"));
        assert!(matches!(put, Err(StoreError::Unavailable { .. })), "{key}: {put:?}");
    }
    assert_eq!(store.list("").unwrap().len(), 1);
}

#[test]
fn an_abandoned_upload_is_never_listed_and_goes_after_a_day() {
    let (_dir, store) = store();
    let [young, old] = ["young", "old"].map(|name| store.root().join(UNFINISHED).join(name));
    fs::write(&young, "x").unwrap();
    let two_days_ago = SystemTime::now() - 2 * ABANDONED_AFTER;
    File::create(&old).unwrap().set_modified(two_days_ago).unwrap();
    let store = FolderStore::open(store.root()).unwrap();
    assert_eq!((young.exists(), old.exists()), (true, false));
    assert_eq!(store.list("").unwrap(), vec![]);
}
