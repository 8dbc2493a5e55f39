//! What is made for the flights example, with what a user would add to it.

use forebay_crds::Manifest;

use super::*;

const ADDED: &str = r#"
  kafka:
    bootstrapServers: kafka:9092
    properties: {security.protocol: SASL_SSL}
    propertiesFrom:
      sasl.password: {secretKeyRef: {name: kafka, key: password}}
      ssl.key.location: {file: /keys/tls.key}
  state: {store: {s3: {bucket: bucket, endpoint: "http://s3:9000", pathStyle: true}}}
  workers:
    replicas: 2
    envFrom: [{secretRef: {name: s3}}]
    resources: {limits: {memory: 2Gi}}
"#;
const FILE_NAME: &str = config_map::FILE;

fn blueprint(change: impl Fn(String) -> String) -> Blueprint {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml");
    let manifest = change(std::fs::read_to_string(path).unwrap() + ADDED);
    let mut resource = Manifest::parse(&manifest, "job.yaml").unwrap().job;
    resource.metadata.uid = Some("0f3a9c1e-5a34-4b7e-9d7e-000000000000".into());
    let job = forebay_crds::validate(&resource).unwrap();
    Blueprint::new(resource, job, "forebay:1")
}

fn pod_of(blueprint: &Blueprint, slot: u32) -> k8s_openapi::api::core::v1::Pod {
    pod::build(blueprint, (&blueprint.template, &blueprint.revision), slot)
}

#[test]
fn a_revision_can_be_made_again_from_its_config_map_alone() {
    let blueprint = blueprint(|manifest| manifest);
    let config = config_map::build(&blueprint);
    assert_eq!(Revision::read(&config), Some(blueprint.revision.clone()));
    assert!(!blueprint.revision.secrets.is_empty() && config.immutable == Some(true));
    assert_eq!(Revision::read(&k8s_openapi::api::core::v1::ConfigMap::default()), None);
}

#[test]
fn what_workers_read_is_the_job_with_its_uid_and_without_secrets_in_it() {
    let blueprint = blueprint(|manifest| manifest);
    let read = Manifest::parse(&blueprint.manifest, FILE_NAME).unwrap().validate().unwrap();
    assert_eq!(forebay_crds::revision(&read), forebay_crds::revision(&blueprint.job));
    assert_eq!(read.uid.as_deref(), Some(blueprint.uid()));
    assert_eq!((read.store, read.pipeline), (blueprint.job.store.clone(), blueprint.job.pipeline.clone()));
    let kafka = read.kafka.unwrap();
    assert_eq!(kafka.properties["sasl.password"], forebay_crds::validate::Property::Env("FOREBAY_KAFKA_SECRET_0".into()));
    assert_eq!(kafka.properties["ssl.key.location"], forebay_crds::validate::Property::File("/keys/tls.key".into()));
    let pod = serde_json::to_value(pod_of(&blueprint, 0)).unwrap();
    let environment = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let secret = environment.iter().find(|variable| variable["name"] == "FOREBAY_KAFKA_SECRET_0").unwrap();
    assert_eq!(secret["valueFrom"]["secretKeyRef"], serde_json::json!({"name": "kafka", "key": "password"}));
}

#[test]
fn names_carry_the_uid_and_fit_into_dns_labels() {
    let first = blueprint(|manifest| manifest);
    assert_eq!(pod_of(&first, 3).metadata.name.as_deref(), Some("flights-0f3a9c-3"));
    assert_eq!(service::build(&first).metadata.name.as_deref(), Some("flights-0f3a9c"));
    let long = blueprint(|manifest| manifest.replace("name: flights\n  namespace", &format!("name: {}.b\n  namespace", "a".repeat(61))));
    let name = pod_of(&long, 1023).metadata.name.unwrap();
    assert!(name.len() <= 63 && !name.contains('.'), "{name}");
}

#[test]
fn the_template_changes_with_what_a_worker_sees_and_with_nothing_else() {
    let template = |from: &'static str, to: &'static str| blueprint(|manifest| manifest.replace(from, to)).template;
    let before = template("", "");
    assert_eq!(template("replicas: 2", "replicas: 5"), before);
    assert_eq!(template("  workers:\n", "  upgrade: {observe: 5s}\n  workers:\n"), before);
    for (from, to) in
        [(".dep_delay > 60", ".dep_delay > 90"), ("kafka:9092", "kafka:9093"), ("memory: 2Gi", "memory: 3Gi"), ("name: s3", "name: s4")]
    {
        assert_ne!(template(from, to), before, "{from} -> {to}");
    }
}

#[test]
fn pods_meet_the_restricted_standard_and_have_no_token() {
    let pod = serde_json::to_value(pod_of(&blueprint(|manifest| manifest), 0)).unwrap();
    let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let security = &container["securityContext"];
    assert_eq!((&security["allowPrivilegeEscalation"], &security["readOnlyRootFilesystem"]), (&false.into(), &true.into()));
    assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(container["resources"]["limits"], serde_json::json!({"memory": "2Gi"}));
    assert_eq!(container["envFrom"], serde_json::json!([{"secretRef": {"name": "s3"}}]));
    assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "0f3a9c1e-5a34-4b7e-9d7e-000000000000");
}

#[test]
fn the_pod_that_copies_a_savepoint_is_no_worker_of_the_job_to_anybody() {
    let blueprint = blueprint(|manifest| manifest);
    let spec = serde_json::from_str(r#"{"job": "flights"}"#).unwrap();
    let mut savepoint = forebay_crds::IngestionSavepoint::new("before", spec);
    savepoint.metadata.uid = Some("3f2a9c1e-5a34-4b7e-9d7e-000000000000".into());
    let pod = task::copier(&blueprint, (&blueprint.template, &blueprint.revision), &savepoint, "before-3f2a9c", &[2, 3].into());
    let labels = pod.metadata.labels.clone().unwrap();
    assert!(blueprint.selector().iter().any(|(name, value)| labels.get(name) != Some(value)), "{labels:?}");
    let pod = serde_json::to_value(pod).unwrap();
    assert_eq!(
        (&pod["metadata"]["name"], &pod["metadata"]["ownerReferences"][0]["kind"]),
        (&"before-3f2a9c".into(), &"IngestionSavepoint".into())
    );
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["args"],
        serde_json::json!(["savepoint", "take", "--name", "before-3f2a9c", "--empty", "2,3", "-f", "/etc/forebay/job.json"])
    );
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
}

#[test]
fn the_pod_that_cleans_up_outlives_its_job_and_reads_a_config_map_of_its_own() {
    let blueprint = blueprint(|manifest| manifest);
    let (pod, config) = (task::cleaner(&blueprint, &blueprint.revision), config_map::for_cleaner(&blueprint));
    assert!(pod.metadata.owner_references.is_none() && config.metadata.owner_references.is_none());
    let pod = serde_json::to_value(pod).unwrap();
    assert_eq!(pod["spec"]["volumes"][0]["configMap"]["name"], "flights-0f3a9c-cleanup");
    assert_eq!(config.metadata.name.as_deref(), Some("flights-0f3a9c-cleanup"));
    assert_eq!(pod["spec"]["containers"][0]["args"], serde_json::json!(["cleanup", "--delete", "-f", "/etc/forebay/job.json"]));
    assert!(config.data.unwrap().contains_key(FILE_NAME));
}
