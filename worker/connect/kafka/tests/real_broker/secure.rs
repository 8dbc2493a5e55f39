//! A broker with TLS, SASL and ACLs: every way to get in, and what is said to those who may not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forebay_engine::ids::{Incarnation, InputId, JournalOffset, ShardId};
use forebay_engine::log::{Log, LogError, Producer, StartFrom, View};
use forebay_kafka::{KafkaLog, KafkaOptions, Severity};

use crate::world::{journal_of, not_tested, topics, unique};

/// The secure broker's addresses and files.
struct Secure {
    plain: String,
    sasl: String,
    mtls: String,
    tls: PathBuf,
}

/// The one that the environment names, else one that `FOREBAY_STACK` starts; or a loud word that a test did not run.
fn secure() -> Option<&'static Secure> {
    static FOUND: OnceLock<Option<Secure>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut named: BTreeMap<String, String> = std::env::vars().filter(|(name, _)| name.starts_with("FOREBAY_TEST_KAFKA_")).collect();
        if !named.contains_key("FOREBAY_TEST_KAFKA_SASL_SSL") {
            let stack = std::env::var_os("FOREBAY_STACK")?;
            let up = Command::new(stack).args(["up", "kafka-secure"]).output().unwrap();
            assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
            let lines = String::from_utf8(up.stdout).unwrap();
            named.extend(lines.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let mut take = |name: &str| named.remove(&format!("FOREBAY_TEST_KAFKA_{name}")).unwrap_or_default();
        Some(Secure { plain: take("SECURE"), sasl: take("SASL_SSL"), mtls: take("MTLS"), tls: take("TLS").into() })
    });
    if found.is_none() {
        not_tested("set FOREBAY_STACK, or the variables that `stack up kafka-secure` prints");
    }
    found.as_ref()
}

impl Secure {
    fn options(&self, address: &str, protocol: &str) -> KafkaOptions {
        let options = KafkaOptions::new(address, topics(&unique(), 1)).property("security.protocol", protocol);
        options.property("ssl.ca.location", self.file("ca.pem"))
    }

    fn sasl(&self, mechanism: &str) -> KafkaOptions {
        self.options(&self.sasl, "SASL_SSL").property("sasl.mechanism", mechanism)
    }

    fn password(&self, mechanism: &str, user: &str, password: &str) -> KafkaOptions {
        self.sasl(mechanism).property("sasl.username", user).property("sasl.password", password)
    }

    fn token(&self, file: &Path) -> KafkaOptions {
        self.sasl("OAUTHBEARER").property("sasl.oauthbearer.token.file", file.to_string_lossy())
    }

    /// Grants operations on one resource to a user.
    fn grant(&self, user: &str, operations: &[&str], resource: &str, name: &str) {
        let stack = std::env::var_os("FOREBAY_STACK").expect("whoever started the broker by it says where it is");
        let mut command = Command::new(stack);
        command.args(["tool", "org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.plain, "--add"]);
        command.args(["--allow-principal", &format!("User:{user}"), resource, name]);
        command.args(operations.iter().flat_map(|operation| ["--operation", operation]));
        let granted = command.output().unwrap();
        assert!(granted.status.success(), "{}{}", String::from_utf8_lossy(&granted.stdout), String::from_utf8_lossy(&granted.stderr));
    }

    fn file(&self, name: &str) -> String {
        self.tls.join(name).to_string_lossy().into_owned()
    }
}

/// A file of a test's own that holds a token, unsigned, for a subject and so many seconds.
struct TokenFile(PathBuf);

impl TokenFile {
    fn new(subject: &str, seconds: i64) -> Self {
        let file = Self(std::env::temp_dir().join(unique()));
        file.write(subject, seconds);
        file
    }

    fn write(&self, subject: &str, seconds: i64) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let claims = format!(r#"{{"sub":"{subject}","iat":{now},"exp":{}}}"#, now + seconds as f64);
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        std::fs::write(&self.0, format!("{}.{}.\n", part(r#"{"alg":"none"}"#), part(&claims))).unwrap();
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// All that a job does with a cluster, by every kind of client that it has.
fn use_it(options: KafkaOptions) {
    let mechanism = options.properties["sasl.mechanism"].clone();
    let input = options.topics.inputs[0].clone();
    // What makes outputs makes an input too.
    let mut maker = options.clone();
    maker.topics.outputs.push(input);
    KafkaLog::open(maker).unwrap_or_else(|error| panic!("{mechanism}: {error}")).ensure_outputs(1).unwrap();
    let log = KafkaLog::open(options).unwrap();
    log.ensure_journal().unwrap();
    assert_eq!(log.describe().unwrap().len(), 3, "{mechanism}");
    log.open_producer(&Incarnation::new("w.1")).unwrap().commit(&journal_of(0, &[b"a", b"b"])).unwrap();
    log.bar(&Incarnation::new("w.1")).unwrap();
    let mut found = Vec::new();
    log.read_journal(ShardId::new(0), JournalOffset::new(0), View::CommittedToEnd, &mut |entry| found.push(entry.bytes)).unwrap();
    assert_eq!(found, [b"a", b"b"], "{mechanism}");
    log.cut_journal(ShardId::new(0), JournalOffset::new(1)).unwrap();
    let starts = log.start_positions(InputId::new(0), StartFrom::Earliest).unwrap();
    log.open_input(ShardId::new(0), &starts).unwrap();
    let errors: Vec<_> = log.preflight().into_iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{mechanism}: {errors:?}");
}

fn refusal(mut options: KafkaOptions) -> String {
    options.request_timeout = Duration::from_secs(10);
    let error = KafkaLog::open(options).map(drop).unwrap_err();
    assert!(matches!(error, LogError::Denied { .. }), "{error}");
    error.to_string()
}

#[test]
fn a_job_runs_whichever_way_it_logs_in() {
    let Some(secure) = secure() else { return };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        use_it(secure.password(mechanism, "admin", "admin-secret"));
    }
    let file = TokenFile::new("admin", 3600);
    use_it(secure.token(&file.0));
}

#[test]
fn a_token_is_renewed_from_its_file() {
    // Method: the first token is over before the second producer is opened, each over connections of its own.
    let Some(secure) = secure() else { return };
    let file = TokenFile::new("admin", 4);
    let mut options = secure.token(&file.0);
    options.request_timeout = Duration::from_secs(10);
    let log = KafkaLog::open(options).unwrap();
    log.ensure_journal().unwrap();
    let mut first = log.open_producer(&Incarnation::new("w.1")).unwrap();
    file.write("admin", 3600);
    let over = SystemTime::now() + Duration::from_secs(5);
    while SystemTime::now() < over {
        // Whoever is logged in stays so.
        first.commit(&journal_of(0, &[b"a"])).unwrap();
    }
    log.open_producer(&Incarnation::new("w.2")).unwrap().commit(&journal_of(0, &[b"b"])).unwrap();
}

#[test]
fn who_may_not_get_in_is_told_why_and_no_secret_with_it() {
    let Some(secure) = secure() else { return };
    let wrong = refusal(secure.password("SCRAM-SHA-512", "admin", "hunter2"));
    assert!(wrong.contains("uthentication failed") && wrong.contains("sasl.*") && !wrong.contains("hunter2"), "{wrong}");
    assert!(wrong.contains("`spec.kafka.properties`, `spec.kafka.propertiesFrom` or `--kafka-property`"), "{wrong}");
    let stranger = secure.password("PLAIN", "admin", "admin-secret").property("ssl.ca.location", secure.file("stranger.pem"));
    let stranger = refusal(stranger);
    assert!(stranger.contains("certificate"), "{stranger}");
    let over = TokenFile::new("admin", -60);
    let message = refusal(secure.token(&over.0));
    assert!(message.contains("sasl.oauthbearer.token.file") && message.contains("unexpired"), "{message}");
    let absent = refusal(secure.token(Path::new("/nowhere/token")));
    assert!(absent.contains("/nowhere/token") && absent.contains("No such file"), "{absent}");
}

#[test]
fn who_is_let_in_and_may_do_nothing_is_told_which_permission_is_missing() {
    let Some(secure) = secure() else { return };
    let certificate = secure.options(&secure.mtls, "SSL");
    let certificate =
        certificate.property("ssl.certificate.location", secure.file("client.pem")).property("ssl.key.location", secure.file("client.key"));
    for options in [certificate, secure.password("PLAIN", "alice", "alice-secret")] {
        let log = KafkaLog::open(options).unwrap();
        let refused = [
            log.ensure_journal().unwrap_err(),
            log.open_producer(&Incarnation::new("w.1")).map(drop).unwrap_err(),
            log.start_positions(InputId::new(0), StartFrom::Group).unwrap_err(),
        ];
        for error in refused {
            assert!(error.to_string().contains("grant this principal"), "{error}");
        }
    }
}

#[test]
fn the_preflight_names_each_permission_that_is_missing() {
    // Method: whoever comes without TLS may do everything and makes the topics; alice gets a part of what a job needs.
    let Some(secure) = secure() else { return };
    let options = secure.password("PLAIN", "alice", "alice-secret");
    let topics = options.topics.clone();
    let mut maker = KafkaOptions::new(&secure.plain, topics.clone());
    maker.topics.outputs.extend(topics.inputs.clone());
    let maker = KafkaLog::open(maker).unwrap();
    maker.ensure_outputs(1).unwrap();
    maker.ensure_journal().unwrap();
    secure.grant("alice", &["Describe"], "--topic", &topics.inputs[0]);
    secure.grant("alice", &["Describe", "DescribeConfigs"], "--topic", &topics.outputs[0]);
    secure.grant("alice", &["Read", "Write", "DescribeConfigs"], "--topic", &topics.journal);

    let found = KafkaLog::open(options).unwrap().preflight();
    let of = |severity: Severity| found.iter().filter(|finding| finding.severity == severity).map(ToString::to_string).collect::<Vec<_>>();
    let check = |found: &[String], expected: &[&str]| {
        let lacking: Vec<_> = expected.iter().filter(|words| !found.iter().any(|finding| finding.contains(**words))).collect();
        assert!(lacking.is_empty() && found.len() == expected.len(), "{found:#?} lacks {lacking:?}");
    };
    let (input, output) = (format!("may not Read topic {}", topics.inputs[0]), format!("may not Write topic {}", topics.outputs[0]));
    check(&of(Severity::Error), &[&input, &output, "Read on the job's consumer group", "Describe on transactional ids"]);
    check(&of(Severity::Warning), &["grant it Delete", "DescribeConfigs on the cluster", "the cluster's number of brokers is 1"]);
}
