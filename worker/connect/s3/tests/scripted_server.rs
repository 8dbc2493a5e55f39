//! What a real server cannot be made to do: conflicts, lacking requests, bodies that break off or are altered, silence, ignored conditions.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

#[path = "scripted_server/server.rs"]
mod server;
#[path = "scripted_server/trust.rs"]
mod trust;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_engine::store::{Body, Downloaded, ObjectStore, Put, StoreError};
use forebay_s3::{Credentials, Encryption, PART_BYTES, S3Options, S3Store, Secret};
use server::{Reply, Request, Server};

fn options(url: String) -> S3Options {
    S3Options {
        endpoint: Some(url),
        path_style: true,
        credentials: Credentials::Static { access_key: "test".into(), secret_key: Secret::new("hunter2") },
        attempts: 2,
        ..S3Options::new("bucket", "prefix")
    }
}

fn store(server: &Server) -> S3Store {
    S3Store::open(options(server.url())).unwrap()
}

fn small() -> Body {
    Body::Bytes(b"small".to_vec())
}

fn part_and_a_bit() -> Body {
    Body::Bytes(vec![5; PART_BYTES + 10])
}

const UPLOAD_BEGUN: &str = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";
const UPLOAD_COMPLETE: &str = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";

#[test]
fn a_put_that_meets_a_conflict_is_begun_anew() {
    let server = Server::answering(|request, before| {
        assert_eq!(request.headers["if-none-match"], "*");
        Some(if before < 2 { Reply::error(409, "ConditionalRequestConflict") } else { Reply::new(200, "") })
    });
    assert_eq!(store(&server).put("k", &small()).unwrap(), Put::Created);
    assert_eq!(server.seen(), ["PUT", "PUT", "PUT"]);
}

#[test]
fn an_upload_in_parts_whose_completion_meets_a_conflict_is_aborted_and_begun_anew() {
    let server = Server::answering(|request, before| match request.method.as_str() {
        "POST" if request.path.contains("uploads") => Some(Reply::new(200, UPLOAD_BEGUN)),
        // Begin, complete, begin, complete: the second request of that method is refused.
        "POST" if before == 1 => Some(Reply::error(409, "ConditionalRequestConflict")),
        "POST" => {
            assert_eq!(request.headers["if-none-match"], "*");
            Some(Reply::new(200, UPLOAD_COMPLETE))
        }
        "PUT" => Some(Reply::new(200, "").header("etag", "\"e\"")),
        _ => Some(Reply::new(204, "")),
    });
    assert_eq!(store(&server).put("k", &part_and_a_bit()).unwrap(), Put::Created);
    assert_eq!(server.seen(), ["POST", "PUT", "PUT", "POST", "DELETE", "POST", "PUT", "PUT", "POST"]);
}

#[test]
fn an_upload_that_is_gone_when_it_is_completed_again_was_ours_if_its_object_is_there() {
    let ours = format!("{:08x}", crc32fast::hash(&[5; PART_BYTES + 10]));
    for (there, expected) in [(ours, Put::Created), ("00000000".to_owned(), Put::AlreadyThere)] {
        let server = Server::answering(move |request, _| match request.method.as_str() {
            "POST" if request.path.contains("uploads") => Some(Reply::new(200, UPLOAD_BEGUN)),
            "POST" => Some(Reply::error(404, "NoSuchUpload")),
            "PUT" => Some(Reply::new(200, "").header("etag", "\"e\"")),
            "HEAD" => Some(Reply::new(200, vec![5; PART_BYTES + 10]).header("x-amz-meta-crc32", there.clone())),
            _ => Some(Reply::error(404, "NoSuchUpload")),
        });
        assert_eq!(store(&server).put("k", &part_and_a_bit()).unwrap(), expected);
    }
}

#[test]
fn an_upload_in_parts_that_fails_is_aborted() {
    let server = Server::answering(|request, _| match request.method.as_str() {
        "POST" => Some(Reply::new(200, UPLOAD_BEGUN)),
        "PUT" => Some(Reply::error(403, "AccessDenied")),
        _ => Some(Reply::new(204, "")),
    });
    let error = store(&server).put("k", &part_and_a_bit()).unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert_eq!(server.seen().last().unwrap(), "DELETE");
}

/// Method: an object that is put whole and one in parts. What the server is to encrypt with must be said where the object begins, and nothing
/// where the bucket decides.
#[test]
fn the_encryption_is_asked_for_where_an_object_begins() {
    let kms = Encryption::Kms { key_id: "alias/forebay".into() };
    for (encryption, expected) in [
        (Encryption::BucketDefault, (None, None)),
        (Encryption::S3, (Some("AES256"), None)),
        (kms, (Some("aws:kms"), Some("alias/forebay"))),
    ] {
        let begun = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&begun);
        let server = Server::answering(move |request, _| {
            let begins = if request.method == "PUT" { !request.path.contains("uploadId") } else { request.path.contains("uploads") };
            let said = |name: &str| request.headers.get(name).cloned();
            let encryption = (said("x-amz-server-side-encryption"), said("x-amz-server-side-encryption-aws-kms-key-id"));
            if begins {
                log.lock().unwrap().push((request.method.clone(), encryption));
            } else {
                assert_eq!(encryption, (None, None), "{} {}", request.method, request.path);
            }
            Some(match request.method.as_str() {
                "POST" if begins => Reply::new(200, UPLOAD_BEGUN),
                "POST" => Reply::new(200, UPLOAD_COMPLETE),
                _ => Reply::new(200, "").header("etag", "\"e\""),
            })
        });
        let store = S3Store::open(S3Options { encryption, ..options(server.url()) }).unwrap();
        assert_eq!(store.put("whole", &small()).unwrap(), Put::Created);
        assert_eq!(store.put("parts", &part_and_a_bit()).unwrap(), Put::Created);
        let expected = (expected.0.map(str::to_owned), expected.1.map(str::to_owned));
        assert_eq!(*begun.lock().unwrap(), [("PUT".to_owned(), expected.clone()), ("POST".to_owned(), expected)]);
    }
}

#[test]
fn a_refusal_names_the_permission_that_is_missing() {
    let server = Server::answering(|_, _| Some(Reply::error(403, "AccessDenied")));
    let store = store(&server);
    let check = |outcome: Result<(), StoreError>, expected: &str| {
        let error = outcome.unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(store.put("k", &small()).map(drop), "grant these credentials s3:PutObject on arn:aws:s3:::bucket/prefix/*");
    check(store.get("k").map(drop), "grant these credentials s3:GetObject on arn:aws:s3:::bucket/prefix/*");
    check(store.list("").map(drop), "grant these credentials s3:ListBucket on arn:aws:s3:::bucket");
    check(store.delete(&["k".into()]), "grant these credentials s3:DeleteObject on arn:aws:s3:::bucket/prefix/*");
}

#[test]
fn an_error_that_passes_is_attempted_again_and_one_that_stays_is_unavailable() {
    let server = Server::answering(|_, before| Some(if before == 0 { Reply::error(503, "SlowDown") } else { Reply::new(200, "") }));
    assert_eq!(store(&server).put("k", &small()).unwrap(), Put::Created);
    let server = Server::answering(|_, _| Some(Reply::error(500, "InternalError")));
    let error = store(&server).put("k", &small()).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_404_that_is_not_s3s_own_does_not_say_that_an_object_is_missing() {
    let ingress = Server::answering(|_, _| Some(Reply::new(404, "default backend - 404")));
    for error in [store(&ingress).get("k").unwrap_err(), store(&ingress).delete(&["k".into()]).unwrap_err()] {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    let s3 = Server::answering(|_, _| Some(Reply::error(404, "NoSuchKey")));
    assert!(matches!(store(&s3).get("k").unwrap_err(), StoreError::NotFound { .. }));
}

#[test]
fn a_server_that_is_silent_or_not_there_is_unavailable() {
    let server = Server::answering(|_, _| None);
    let silent = S3Options { attempt_timeout: Duration::from_millis(300), ..options(server.url()) };
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nowhere = "http://s3.no-such-host.invalid".to_owned();
    for options in [silent, options(format!("http://{gone}")), options(nowhere)] {
        let reached = format!("see to it that the endpoint {} is reached from here", options.endpoint.as_deref().unwrap());
        let store = S3Store::open(options).unwrap();
        for error in [store.get("k").unwrap_err(), store.list("").unwrap_err(), store.preflight().unwrap_err()] {
            assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
            let text = error.to_string();
            for needed in ["no answer", &reached, "correct spec.state.store.s3.endpoint or --s3-endpoint"] {
                assert!(text.contains(needed), "{text} lacks {needed}");
            }
        }
    }
}

#[test]
fn a_body_that_never_ends_is_given_up() {
    let server = Server::answering(|_, _| Some(Reply::new(200, "half of it").falling_silent_after(5)));
    let options = S3Options { attempt_timeout: Duration::from_millis(300), ..options(server.url()) };
    let error = S3Store::open(options).unwrap().get("k").unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("5 of 10 bytes"), "{error}");
}

#[test]
fn a_body_that_breaks_off_is_asked_for_again() {
    let content = vec![9; 100_000];
    let (once, always) = (content.clone(), content.clone());
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("download");
    let breaks_once = Server::answering(move |_, before| {
        let reply = Reply::new(200, once.clone());
        Some(if before == 0 { reply.breaking_off_after(70_000) } else { reply })
    });
    assert_eq!(store(&breaks_once).download("k", &to).unwrap(), Downloaded { size: 100_000, crc32: crc32fast::hash(&content) });
    assert!(std::fs::read(&to).unwrap() == content);
    let breaks_always = Server::answering(move |_, _| Some(Reply::new(200, always.clone()).breaking_off_after(70_000)));
    let error = store(&breaks_always).download("k", &to).unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    assert_eq!(breaks_always.seen().len(), 2);
    assert!(!to.exists());
}

#[test]
fn altered_bytes_are_asked_for_again_and_what_stays_altered_is_no_answer_to_get() {
    let crc32 = format!("{:08x}", crc32fast::hash(b"as it was put"));
    let once = crc32.clone();
    let altered_once = Server::answering(move |_, before| {
        let body = if before == 0 { "as it was cut" } else { "as it was put" };
        Some(Reply::new(200, body).header("x-amz-meta-crc32", once.clone()))
    });
    assert_eq!(store(&altered_once).get("k").unwrap(), b"as it was put");
    let altered = Server::answering(move |_, _| Some(Reply::new(200, "as it was cut").header("x-amz-meta-crc32", crc32.clone())));
    let error = store(&altered).get("k").unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    // Whoever downloads has a checksum of his own, and something to fall back to.
    let to = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(store(&altered).download("k", to.path()).unwrap(), Downloaded { size: 13, crc32: crc32fast::hash(b"as it was cut") });
    assert_eq!(std::fs::read(to.path()).unwrap(), b"as it was cut");
}

#[test]
fn a_server_without_batch_deletes_is_asked_for_single_ones_from_then_on() {
    let server = Server::answering(|request, _| match request.method.as_str() {
        "POST" => Some(Reply::error(501, "NotImplemented")),
        _ => Some(Reply::error(404, "NoSuchKey")),
    });
    let store = store(&server);
    store.delete(&["a".into(), "b".into()]).unwrap();
    store.delete(&["c".into()]).unwrap();
    assert_eq!(server.seen(), ["POST", "DELETE", "DELETE", "DELETE"]);
}

#[test]
fn what_a_batch_did_not_delete_is_deleted_singly_and_its_refusal_is_reported() {
    let server = Server::answering(|request, _| match request.method.as_str() {
        "POST" => Some(Reply::new(
            200,
            "<DeleteResult><Error><Key>prefix/b</Key><Code>InternalError</Code></Error>\
             <Error><Key>prefix/c</Key><Code>AccessDenied</Code></Error></DeleteResult>",
        )),
        _ if request.path.starts_with("/bucket/prefix/b") => Some(Reply::new(204, "")),
        _ => Some(Reply::error(403, "AccessDenied")),
    });
    let error = store(&server).delete(&["a".into(), "b".into(), "c".into()]).unwrap_err();
    assert!(matches!(&error, StoreError::Denied { key, .. } if key == "s3://bucket/prefix/c"), "{error}");
    assert_eq!(server.seen(), ["POST", "DELETE", "DELETE"]);
}

#[test]
fn an_object_that_is_listed_without_a_time_is_an_error_and_not_an_old_object() {
    let row = "<Contents><Key>prefix/k</Key><Size>1</Size></Contents>";
    let server = Server::answering(move |_, _| Some(Reply::new(200, format!("<ListBucketResult>{row}</ListBucketResult>"))));
    let error = store(&server).list("").unwrap_err();
    assert!(error.to_string().contains("without a time"), "{error}");
}

#[test]
fn wrong_options_are_denied_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        std::fs::write(folder.path().join(name), content).unwrap();
        folder.path().join(name)
    };
    let check = |options: S3Options, expected: &str| {
        let error = S3Store::open(options).err().unwrap();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    let base = || options("http://127.0.0.1:1".into());
    check(S3Options { bucket: String::new(), ..base() }, "the bucket has no name; write one as spec.state.store.s3.bucket or --store");
    check(S3Options { ca_file: Some(folder.path().join("missing")), ..base() }, "cannot read the CA file");
    let empty = Some(file("empty", ""));
    check(S3Options { ca_file: empty, ..base() }, "holds no PEM certificate; correct spec.state.store.s3.caFile or --s3-ca-file");
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    check(S3Options { ca_file: Some(file("nonsense", nonsense)), ..base() }, "cannot be read");
}

#[test]
fn the_preflight_refuses_a_server_that_ignores_conditions() {
    for (ignored, expected) in
        [("", None), ("PUT", Some("a put with If-None-Match")), ("POST", Some("an upload in parts with If-None-Match"))]
    {
        let objects = Mutex::new(BTreeMap::new());
        let server = Server::answering(move |request, _| Some(careless(request, ignored, &mut objects.lock().unwrap())));
        let outcome = store(&server).preflight();
        match expected {
            None => outcome.unwrap(),
            Some(expected) => {
                let error = outcome.unwrap_err();
                assert!(matches!(error, StoreError::Denied { .. }) && error.to_string().contains(expected), "{error}");
            }
        }
    }
}

/// A tiny S3 that ignores `If-None-Match` in requests of the method `ignored`. An upload has one part, which lies under its upload's id.
fn careless(request: &Request, ignored: &str, objects: &mut BTreeMap<String, (Vec<u8>, String)>) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let key = path.trim_start_matches("/bucket/").to_owned();
    let taken = |objects: &BTreeMap<_, _>| objects.contains_key(&key) && request.method != ignored;
    let crc32 = request.headers.get("x-amz-meta-crc32").cloned().unwrap_or_default();
    match request.method.as_str() {
        "GET" if query.contains("list-type") => {
            let rows = objects.iter().map(|(key, (body, _))| {
                let size = body.len();
                format!("<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2025-01-01T00:00:00Z</LastModified></Contents>")
            });
            Reply::new(200, format!("<ListBucketResult>{}</ListBucketResult>", rows.collect::<String>()))
        }
        "GET" | "HEAD" => match objects.get(&key) {
            Some((body, crc32)) => Reply::new(200, body.clone()).header("x-amz-meta-crc32", crc32.clone()),
            None => Reply::error(404, "NoSuchKey"),
        },
        "PUT" if query.contains("uploadId") => {
            objects.insert("upload".into(), (request.body.clone(), crc32));
            Reply::new(200, "").header("etag", "\"e\"")
        }
        "PUT" | "POST" if !query.contains("uploads") && !query.contains("delete") && taken(objects) => {
            Reply::error(412, "PreconditionFailed")
        }
        "PUT" => {
            objects.insert(key, (request.body.clone(), crc32));
            Reply::new(200, "")
        }
        "POST" if query.contains("uploadId") => {
            let part = objects.remove("upload").unwrap();
            objects.insert(key, part);
            Reply::new(200, UPLOAD_COMPLETE)
        }
        "POST" if query.contains("uploads") => Reply::new(200, UPLOAD_BEGUN),
        "POST" => {
            objects.clear();
            Reply::new(200, "<DeleteResult></DeleteResult>")
        }
        _ => {
            objects.remove("upload");
            Reply::new(204, "")
        }
    }
}
