//! The store against a real S3 server: the one that `FOREBAY_TEST_S3` names (its URL), which knows the access key `test` with the secret
//! `testtest`. Without it these tests say that they tested nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

#[path = "real_server/proxy.rs"]
mod proxy;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::ServerSideEncryption;
use forebay_engine::ids::Timestamp;
use forebay_engine::store::{Body, Downloaded, ObjectStore, Put, StoreError};
use forebay_s3::{Credentials, Encryption, PART_BYTES, S3Options, S3Store, Secret};
use proxy::{Proxy, RequestLine};

const BUCKET: &str = "forebay-s3-tests";
const SECRET: &str = "testtest";

/// A folder of its own on the real server.
struct Lab {
    endpoint: String,
    prefix: String,
    /// Deals with the server beside the store.
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    /// `None` when there is no server to test against.
    fn new(test: &str) -> Option<Self> {
        let Ok(endpoint) = std::env::var("FOREBAY_TEST_S3") else {
            // Not by `eprintln!`: the harness hides what a passing test prints.
            std::io::stderr().write_all(format!("NOT TESTED: {test}: FOREBAY_TEST_S3 names no server\n").as_bytes()).unwrap();
            return None;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .endpoint_url(&endpoint)
            .region(aws_config::Region::from_static("us-east-1"))
            .credentials_provider(aws_sdk_s3::config::Credentials::new("test", SECRET, None, None, "test"))
            .force_path_style(true)
            .build();
        let client = Client::from_conf(config);
        // It may be there already.
        let _ = runtime.block_on(client.create_bucket().bucket(BUCKET).send());
        let prefix = format!("{test}-{}", uuid::Uuid::new_v4());
        Some(Self { endpoint, prefix, client, runtime })
    }

    fn options(&self) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint.clone()),
            path_style: true,
            credentials: Credentials::Static { access_key: "test".into(), secret_key: Secret::new(SECRET) },
            // What is tested here is not how busy the machine is.
            attempt_timeout: Duration::from_secs(120),
            ..S3Options::new(BUCKET, &self.prefix)
        }
    }

    fn store(&self) -> S3Store {
        S3Store::open(self.options()).unwrap()
    }

    fn store_behind(&self, proxy: &Proxy) -> S3Store {
        S3Store::open(S3Options { endpoint: Some(proxy.url()), ..self.options() }).unwrap()
    }

    fn proxy(&self) -> Proxy {
        let address = self.endpoint.trim_start_matches("http://").trim_end_matches('/');
        let server: SocketAddr = address.to_socket_addrs().unwrap().next().unwrap();
        Proxy::before(server)
    }

    fn head(&self, key: &str) -> HeadObjectOutput {
        let key = format!("{}/{key}", self.prefix);
        self.runtime.block_on(self.client.head_object().bucket(BUCKET).key(key).send()).unwrap()
    }
}

macro_rules! lab {
    ($test:literal) => {
        match Lab::new($test) {
            Some(lab) => lab,
            None => return,
        }
    };
}

fn bytes(text: &str) -> Body {
    Body::Bytes(text.as_bytes().to_vec())
}

/// Bytes that differ from part to part and from seed to seed.
fn noise(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()
    };
    (0..size.div_ceil(4)).flat_map(|_| next()).take(size).collect()
}

fn file_with(folder: &tempfile::TempDir, content: &[u8]) -> Body {
    let path = folder.path().join("upload");
    std::fs::write(&path, content).unwrap();
    Body::File(path)
}

#[test]
fn a_second_put_of_a_key_leaves_the_first_alone() {
    let lab = lab!("create-only");
    let store = lab.store();
    assert_eq!(store.put("checkpoints/0/a.json", &bytes("first")).unwrap(), Put::Created);
    assert_eq!(store.put("checkpoints/0/a.json", &bytes("second")).unwrap(), Put::AlreadyThere);
    assert_eq!(store.put("checkpoints/0/a.json", &bytes("other")).unwrap(), Put::AlreadyThere, "same size, other content");
    assert_eq!(store.get("checkpoints/0/a.json").unwrap(), b"first");
}

#[test]
fn a_put_that_is_repeated_with_the_same_content_is_ours() {
    let lab = lab!("repeated");
    let large = noise(PART_BYTES + 1, 1);
    for content in [b"".to_vec(), b"small".to_vec(), large] {
        let (store, key) = (lab.store(), format!("of-{}", content.len()));
        assert_eq!(store.put(&key, &Body::Bytes(content.clone())).unwrap(), Put::Created);
        assert_eq!(store.put(&key, &Body::Bytes(content.clone())).unwrap(), Put::Created);
        assert!(store.get(&key).unwrap() == content);
    }
}

#[test]
fn a_large_file_comes_back_byte_for_byte_and_is_not_replaced() {
    let lab = lab!("large");
    let folder = tempfile::tempdir().unwrap();
    let content = noise(30_000_000, 7);
    let store = lab.store();
    assert_eq!(store.put("files/0/x", &file_with(&folder, &content)).unwrap(), Put::Created);
    assert_eq!(store.put("files/0/x", &file_with(&folder, &noise(30_000_000, 8))).unwrap(), Put::AlreadyThere);

    let head = lab.head("files/0/x");
    assert_eq!(head.metadata().unwrap()["crc32"], format!("{:08x}", crc32fast::hash(&content)));
    let etag = head.e_tag().unwrap();
    assert!(etag.trim_matches('"').ends_with("-4"), "{etag} is not of an upload in four parts");

    let to = folder.path().join("download");
    std::fs::write(&to, noise(40_000_000, 9)).unwrap();
    assert_eq!(store.download("files/0/x", &to).unwrap(), Downloaded { size: content.len() as u64, crc32: crc32fast::hash(&content) });
    assert!(std::fs::read(&to).unwrap() == content);
}

/// Method: an object that is put whole and one in parts, with a key of the server's KMS; then as with any other object.
#[test]
fn objects_that_the_server_encrypts_by_its_kms_are_like_any_other() {
    let lab = lab!("kms");
    let encryption = Encryption::Kms { key_id: "forebay-tests".into() };
    let store = S3Store::open(S3Options { encryption, ..lab.options() }).unwrap();
    for content in [b"small".to_vec(), noise(PART_BYTES + 1, 1)] {
        let key = format!("of-{}", content.len());
        assert_eq!(store.put(&key, &Body::Bytes(content.clone())).unwrap(), Put::Created);
        assert_eq!(store.put(&key, &Body::Bytes(content.clone())).unwrap(), Put::Created, "it is not taken for ours");
        assert_eq!(store.put(&key, &bytes("other")).unwrap(), Put::AlreadyThere);
        assert!(store.get(&key).unwrap() == content);
        let head = lab.head(&key);
        assert_eq!(head.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
        assert!(head.ssekms_key_id().is_some_and(|id| id.contains("forebay-tests")), "{:?}", head.ssekms_key_id());
    }
}

/// Method: the server's other door, behind a certificate that nobody knows but by the file of its authority.
#[test]
fn a_server_is_reached_by_tls_with_the_file_of_its_authority_and_not_without() {
    let lab = lab!("tls");
    let (endpoint, tls) = (std::env::var("FOREBAY_TEST_S3_HTTPS").unwrap(), std::env::var("FOREBAY_TEST_S3_TLS").unwrap());
    let put = |authority: Option<&str>| {
        let ca_file = authority.map(|name| PathBuf::from(&tls).join(name));
        S3Store::open(S3Options { endpoint: Some(endpoint.clone()), ca_file, ..lab.options() }).unwrap().put("k", &bytes("by tls"))
    };
    for refused in [None, Some("stranger.pem")] {
        let error = put(refused).unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    }
    assert_eq!(put(Some("ca.pem")).unwrap(), Put::Created);
    assert_eq!(lab.store().get("k").unwrap(), b"by tls");
}

#[test]
fn a_listing_of_more_than_a_page_is_whole_and_in_order_and_can_be_deleted() {
    let lab = lab!("pages");
    let store = lab.store();
    let keys: Vec<String> = (0..1100).map(|i| format!("files/1/{i:04}")).collect();
    std::thread::scope(|scope| {
        for part in keys.chunks(keys.len().div_ceil(8)) {
            let store = &store;
            scope.spawn(move || part.iter().for_each(|key| assert_eq!(store.put(key, &bytes(key)).unwrap(), Put::Created)));
        }
    });
    store.put("files/10/other-shard", &bytes("x")).unwrap();
    let page = lab.runtime.block_on(lab.client.list_objects_v2().bucket(BUCKET).prefix(&lab.prefix).send()).unwrap();
    assert_eq!(page.is_truncated(), Some(true), "the server puts all of it into one page, so that this tests nothing");
    let listed = store.list("files/1/").unwrap();
    assert_eq!(listed.iter().map(|object| object.key.clone()).collect::<Vec<_>>(), keys);
    assert!(listed.iter().all(|object| object.size == object.key.len() as u64));

    store.delete(&keys).unwrap();
    assert_eq!(store.list("files/1/").unwrap(), []);
    assert_eq!(store.list("").unwrap().len(), 1);
}

#[test]
fn a_prefix_hides_its_neighbours_and_a_listing_has_the_servers_time() {
    let lab = lab!("prefix");
    let neighbour = S3Store::open(S3Options { prefix: format!("{}-more", lab.prefix), ..lab.options() }).unwrap();
    neighbour.put("k", &bytes("neighbour")).unwrap();
    let slashes = S3Store::open(S3Options { prefix: format!("/{}/", lab.prefix), ..lab.options() }).unwrap();
    slashes.put("k", &bytes("ours")).unwrap();
    let listed = lab.store().list("").unwrap();
    assert_eq!(listed.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), ["k"]);
    let servers = lab.head("k").last_modified().unwrap().secs();
    assert_eq!(Timestamp::from_millis(listed[0].modified.as_millis() / 1000), Timestamp::from_millis(servers));
}

#[test]
fn deleting_what_is_not_there_succeeds() {
    let lab = lab!("delete");
    let store = lab.store();
    store.put("there", &bytes("x")).unwrap();
    store.delete(&["missing".into(), "there".into(), "folder/missing".into()]).unwrap();
    store.delete(&["there".into()]).unwrap();
    store.delete(&[]).unwrap();
    assert!(matches!(store.get("there"), Err(StoreError::NotFound { .. })));
}

#[test]
fn a_missing_object_is_not_found_and_leaves_no_file() {
    let lab = lab!("missing");
    let to = tempfile::tempdir().unwrap().keep().join("download");
    for error in [lab.store().get("no/such").unwrap_err(), lab.store().download("no/such", &to).unwrap_err()] {
        assert!(matches!(&error, StoreError::NotFound { key, .. } if key.ends_with("/no/such")), "{error}");
    }
    assert!(!to.exists());
}

#[test]
fn wrong_credentials_are_denied_without_printing_them() {
    let lab = lab!("denied");
    let wrong = |access_key: &str, way_out: &str| {
        let secret_key = Secret::new("hunter2-hunter2");
        let credentials = Credentials::Static { access_key: access_key.into(), secret_key };
        let store = S3Store::open(S3Options { credentials, ..lab.options() }).unwrap();
        for error in [
            store.put("k", &bytes("x")).unwrap_err(),
            store.get("k").unwrap_err(),
            store.list("").unwrap_err(),
            store.delete(&["k".into()]).unwrap_err(),
            store.preflight().unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Denied { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(way_out) && !text.contains("hunter2"), "{text}");
        }
    };
    wrong("test", "give credentials that the store knows");
    wrong("nobody", "give credentials that the store knows");
}

#[test]
fn a_missing_bucket_is_denied_with_the_way_out() {
    let lab = lab!("no-bucket");
    let store = S3Store::open(S3Options { bucket: "forebay-no-such-bucket".into(), ..lab.options() }).unwrap();
    // No put: SeaweedFS makes the bucket then.
    for error in [store.get("k").unwrap_err(), store.list("").unwrap_err(), store.preflight().unwrap_err()] {
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        assert!(error.to_string().contains("create the bucket forebay-no-such-bucket"), "{error}");
    }
}

/// Puts different content under one key from so many threads at once; returns what each was told, and its content.
fn race(lab: &Lab, key: &str, threads: u32, size: usize) -> Vec<(Put, Vec<u8>)> {
    let barrier = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let (store, barrier, content) = (lab.store(), &barrier, noise(size, 2 * number));
                scope.spawn(move || {
                    barrier.wait();
                    (store.put(key, &Body::Bytes(content.clone())).unwrap(), content)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn of_many_who_put_a_key_at_once_exactly_one_creates_it() {
    let lab = lab!("contended");
    let puts = race(&lab, "k", 8, 100);
    let winners: Vec<&Vec<u8>> = puts.iter().filter(|(put, _)| *put == Put::Created).map(|(_, content)| content).collect();
    assert_eq!(winners.len(), 1);
    assert!(lab.store().get("k").unwrap() == *winners[0]);
}

#[test]
fn of_many_who_put_a_key_in_parts_at_once_the_one_that_is_there_was_told_so() {
    let lab = lab!("contended-parts");
    let puts = race(&lab, "k", 3, PART_BYTES + 100);
    // Not "exactly one": SeaweedFS looks for the object and then completes the upload, and lets others in between (see `S3Store`).
    let there = lab.store().get("k").unwrap();
    assert!(puts.iter().any(|(put, content)| *put == Put::Created && *content == there));
}

#[test]
fn a_put_whose_reply_is_lost_is_ours() {
    let lab = lab!("lost-reply");
    let proxy = lab.proxy();
    let store = lab.store_behind(&proxy);
    let complete = RequestLine { method: "POST", holds: "uploadId=" };
    for (request, size) in [(RequestLine { method: "PUT", holds: "lost" }, 10), (complete, PART_BYTES + 10)] {
        let (key, content) = (format!("lost-{size}"), noise(size, 3));
        proxy.lose_reply_to(request);
        assert_eq!(store.put(&key, &Body::Bytes(content.clone())).unwrap(), Put::Created);
        assert!(proxy.has_lost_a_reply());
        assert!(store.get(&key).unwrap() == content);
    }
}

#[test]
fn an_upload_that_a_dying_server_cuts_off_leaves_nothing_and_can_be_repeated() {
    let lab = lab!("dying");
    let folder = tempfile::tempdir().unwrap();
    let content = noise(30_000_000, 4);
    let body = file_with(&folder, &content);
    let proxy = lab.proxy();
    let store = lab.store_behind(&proxy);
    proxy.die_after(12_000_000);
    let error = store.put("files/0/x", &body).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(proxy.is_dead());
    assert_eq!(lab.store().list("").unwrap(), []);

    proxy.revive();
    assert_eq!(store.put("files/0/x", &body).unwrap(), Put::Created);
    assert!(store.get("files/0/x").unwrap() == content);
}

#[test]
fn the_preflight_finds_a_real_server_good_and_leaves_nothing_behind() {
    let lab = lab!("preflight");
    let store = lab.store();
    store.preflight().unwrap();
    store.preflight().unwrap();
    assert_eq!(store.list("").unwrap(), []);
    let uploads = lab.client.list_multipart_uploads().bucket(BUCKET).prefix(&lab.prefix).send();
    let left: BTreeSet<_> = lab.runtime.block_on(uploads).unwrap().uploads().iter().map(|upload| upload.key.clone()).collect();
    assert!(left.is_empty(), "{left:?}");
}
