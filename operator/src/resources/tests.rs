//! What is made for the flights example, with what a user would add to it.

use forebay_crds::Manifest;

use super::*;
use crate::plan::letters::ToldBy;

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
    Blueprint::new(Arc::new(resource), job, "forebay:1")
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

/// Method: the manifest is broken, and scaled; the config map of what is in force is as it was.
#[test]
fn a_job_whose_manifest_cannot_work_has_the_pods_that_it_had() {
    let before = blueprint(|manifest| manifest);
    let mut resource = (*before.resource).clone();
    (resource.spec.inputs, resource.spec.workers.replicas) = (Vec::new(), Some(3));
    assert!(forebay_crds::validate(&resource).is_err());
    let kept = Blueprint::of_config(Arc::new(resource.clone()), &config_map::build(&before)).unwrap();
    assert_eq!((&kept.template, &kept.manifest, &kept.revision), (&before.template, &before.manifest, &before.revision));
    assert_eq!((pod_of(&kept, 1), kept.replicas()), (pod_of(&before, 1), 3));
    resource.spec.suspend = true;
    assert_eq!(Blueprint::of_config(Arc::new(resource.clone()), &config_map::build(&before)).unwrap().replicas(), 0);
    assert!(Blueprint::of_config(Arc::new(resource), &ConfigMap::default()).is_none());
}

/// Method: a change of the key is compared with the config map of what is in force; then it is what is in force.
#[test]
fn what_contradicts_the_revision_in_force_is_found_and_nothing_else() {
    let good = config_map::build(&blueprint(|manifest| manifest));
    let contradictions = |from: &str, to: &str| {
        let changed = blueprint(|manifest| manifest.replace(from, to));
        let itself = changed.contradictions(&config_map::build(&changed));
        assert!(itself.is_empty(), "{itself:?}");
        changed.contradictions(&good).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(contradictions("", ""), Vec::<String>::new());
    assert_eq!(contradictions(".dep_delay > 60", ".dep_delay > 90"), Vec::<String>::new());
    let table = "        table: aircraft\n        set:";
    let found = contradictions(table, "        table: aircraft\n        key: .id\n        set:");
    assert!(found.len() == 1 && found[0].contains("upsert.key: was the record's key, is `.id`"), "{found:?}");
    assert_eq!(contradictions(table, "        table: planes\n        key: .id\n        set:"), Vec::<String>::new());
}

#[test]
fn a_job_is_paused_by_an_annotation_and_is_made_from_the_same_meanwhile() {
    let mut blueprint = blueprint(|manifest| manifest);
    let template = blueprint.template.clone();
    for (value, expected) in [("true", true), ("false", false), ("", false)] {
        Arc::make_mut(&mut blueprint.resource).metadata.annotations = Some([(PAUSED_ANNOTATION.to_owned(), value.to_owned())].into());
        assert_eq!(blueprint.is_paused(), expected, "{value}");
        assert_eq!(Blueprint::new(blueprint.resource.clone(), blueprint.job.clone(), "forebay:1").template, template);
    }
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
fn a_worker_is_told_which_rewind_has_failed() {
    let blueprint = blueprint(|manifest| manifest);
    let mut made = pod_of(&blueprint, 0);
    pod::note_failed(&mut made, "before-the-bug");
    let made = serde_json::to_value(made).unwrap();
    let annotation = "forebay.dev/rewind-failed";
    assert_eq!(made["metadata"]["annotations"][annotation], "before-the-bug");
    let told = made["spec"]["containers"][0]["env"].as_array().unwrap().iter().find(|variable| variable["name"] == "FOREBAY_REWIND_FAILED");
    assert_eq!(told.unwrap()["valueFrom"]["fieldRef"]["fieldPath"], format!("metadata.annotations['{annotation}']"));
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
    for (from, to) in [
        (".dep_delay > 60", ".dep_delay > 90"),
        ("kafka:9092", "kafka:9093"),
        ("memory: 2Gi", "memory: 3Gi"),
        ("name: s3", "name: s4"),
        ("replicas: 2", "restartedAt: now"),
    ] {
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
    let pod = task::copier(&blueprint, (&blueprint.template, &blueprint.revision), &savepoint, "before-3f2a9c", &["--at-rest".to_owned()]);
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
        serde_json::json!(["savepoint", "take", "--name", "before-3f2a9c", "--at-rest", "-f", "/etc/forebay/job.json"])
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

/// The job with something added to its pods.
fn with_template(template: &str) -> Blueprint {
    blueprint(|manifest| manifest.replace("  workers:\n", &format!("  workers:\n    podTemplate: {template}\n")))
}

const TEMPLATE: &str = r#"{metadata: {labels: {team: air}, annotations: {note: hello}}, spec: {serviceAccountName: reader, nodeSelector: {disk: fast},
      tolerations: [{key: spot, operator: Exists}], volumes: [{name: keys, secret: {secretName: keys}}], securityContext: {runAsUser: 1000},
      topologySpreadConstraints: [{topologyKey: zone, maxSkew: 1, whenUnsatisfiable: DoNotSchedule}],
      containers: [{name: proxy, image: "proxy:1", volumeMounts: [{name: tmp, mountPath: /scratch}]}, {name: worker, env: [{name: RUST_LOG, value: debug}],
      envFrom: [{configMapRef: {name: settings}}], volumeMounts: [{name: keys, mountPath: /keys}], livenessProbe: {httpGet: {path: /healthz, port: metrics}}}]}}"#;

#[test]
fn what_a_user_adds_is_merged_and_takes_nothing_away() {
    let blueprint = with_template(TEMPLATE);
    assert_eq!(Revision::read(&config_map::build(&blueprint)), Some(blueprint.revision.clone()));
    let pod = pod_of(&blueprint, 0);
    let plain = serde_json::to_value(pod_of(&self::blueprint(|manifest| manifest), 0)).unwrap();
    let pod = serde_json::to_value(pod).unwrap();
    let (labels, spec) = (&pod["metadata"]["labels"], &pod["spec"]);
    assert_eq!(
        (&labels["team"], &labels[JOB_LABEL], &pod["metadata"]["annotations"]["note"]),
        (&"air".into(), &"flights".into(), &"hello".into())
    );
    assert_eq!((&spec["serviceAccountName"], &spec["nodeSelector"]["disk"]), (&"reader".into(), &"fast".into()));
    assert_eq!((&spec["securityContext"]["runAsUser"], &spec["securityContext"]["runAsNonRoot"]), (&1000.into(), &true.into()));
    let names = |list: &serde_json::Value, field: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&spec["volumes"], "name"), ["job", "certificates", "state", "tmp", "keys"]);
    assert_eq!(names(&spec["topologySpreadConstraints"], "topologyKey"), ["kubernetes.io/hostname", "zone"]);
    assert_eq!(spec["topologySpreadConstraints"][1]["labelSelector"], spec["topologySpreadConstraints"][0]["labelSelector"]);
    assert_eq!(names(&spec["containers"], "name"), ["worker", "proxy"]);
    let (worker, before) = (&spec["containers"][0], &plain["spec"]["containers"][0]);
    assert_eq!((&worker["args"], &worker["ports"], &worker["image"]), (&before["args"], &before["ports"], &before["image"]));
    assert_eq!(worker["envFrom"], serde_json::json!([{"secretRef": {"name": "s3"}}, {"configMapRef": {"name": "settings"}}]));
    assert_eq!(
        names(&worker["env"], "name"),
        ["POD_NAME", "POD_UID", "FOREBAY_WORKER", "FOREBAY_TEMPLATE", "FOREBAY_REWIND_FAILED", "FOREBAY_KAFKA_SECRET_0", "RUST_LOG"]
    );
    assert_eq!(names(&worker["volumeMounts"], "name"), ["job", "certificates", "state", "tmp", "keys"]);
}

#[test]
fn pods_that_do_one_thing_inherit_as_whom_and_where_and_nothing_that_runs_beside() {
    let blueprint = with_template(TEMPLATE);
    let pod = serde_json::to_value(task::cleaner(&blueprint, &blueprint.revision)).unwrap();
    let spec = &pod["spec"];
    assert_eq!((&pod["metadata"]["labels"]["team"], &pod["metadata"]["labels"][JOB_LABEL]), (&"air".into(), &serde_json::Value::Null));
    assert_eq!((&spec["serviceAccountName"], &spec["tolerations"][0]["key"]), (&"reader".into(), &"spot".into()));
    let containers = spec["containers"].as_array().unwrap();
    assert_eq!((containers.len(), &containers[0]["livenessProbe"]), (1, &serde_json::Value::Null));
    assert!(containers[0]["env"].as_array().unwrap().iter().any(|variable| variable["name"] == "RUST_LOG"), "{spec:#}");
    assert!(containers[0]["volumeMounts"].as_array().unwrap().iter().any(|mount| mount["name"] == "keys"), "{spec:#}");
}

#[test]
fn the_pod_that_puts_letters_back_names_whose_and_workers_write_it_on_them() {
    let blueprint = blueprint(|manifest| manifest);
    let told_by = |told_by: &ToldBy| {
        let pod = serde_json::to_value(task::postman(&blueprint, ("3f2a9c1e5a", &blueprint.revision), told_by)).unwrap();
        pod["spec"]["containers"][0]["args"].clone()
    };
    let arguments = |which, name| serde_json::json!(["dlq", "replay", which, name, "-f", "/etc/forebay/job.json"]);
    assert_eq!(told_by(&ToldBy::Results("8c2f0a31b9de".into())), arguments("--revision", "8c2f0a31b9de"));
    assert_eq!(told_by(&ToldBy::Template), arguments("--template", "3f2a9c1e5a"));
    let worker = serde_json::to_value(pod_of(&blueprint, 0)).unwrap();
    let variables = worker["spec"]["containers"][0]["env"].as_array().unwrap();
    assert!(variables.contains(&serde_json::json!({"name": "FOREBAY_TEMPLATE", "value": blueprint.template})), "{variables:?}");
}

#[test]
fn a_change_of_what_is_added_is_a_change_of_the_template() {
    let before = blueprint(|manifest| manifest).template;
    let changed = [with_template("{}"), with_template("{spec: {nodeSelector: {a: b}}}"), with_template("{spec: {nodeSelector: {a: c}}}")];
    let [nothing, one, other] = changed.map(|blueprint| blueprint.template);
    assert_eq!(nothing, before);
    assert!(one != before && other != one, "{one} {other}");
}

#[test]
fn the_states_volume_is_a_claim_of_the_pods_own_when_asked_for_and_not_for_pods_without_state() {
    let claim = "    volumeClaimTemplate: {spec: {resources: {requests: {storage: 10Gi}}}}\n";
    let blueprint = blueprint(|manifest| manifest.replace("  workers:\n", &format!("  workers:\n{claim}")));
    let state = |pod: &k8s_openapi::api::core::v1::Pod| {
        let pod = serde_json::to_value(pod).unwrap();
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == "state").unwrap().clone()
    };
    let worker = state(&pod_of(&blueprint, 0));
    assert_eq!(worker["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"], "10Gi");
    assert_eq!(worker["ephemeral"]["volumeClaimTemplate"]["spec"]["accessModes"], serde_json::json!(["ReadWriteOnce"]));
    assert_eq!(state(&task::cleaner(&blueprint, &blueprint.revision)), serde_json::json!({"name": "state", "emptyDir": {}}));
    assert_ne!(blueprint.template, self::blueprint(|manifest| manifest).template);
}

/// Method: all names that the operator itself gives to parts of a pod are added by a user, one after another; the job must be refused each time.
#[test]
fn nothing_of_the_operators_own_can_be_replaced() {
    let pod = serde_json::to_value(pod_of(&blueprint(|manifest| manifest), 0)).unwrap();
    let worker = &pod["spec"]["containers"][0];
    let each = |list: &serde_json::Value, field: &str| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
    };
    let in_worker = |part: String| format!("{{spec: {{containers: [{{name: worker, {part}}}]}}}}");
    let labels = pod["metadata"]["labels"].as_object().unwrap().keys().map(|name| format!("{{metadata: {{labels: {{{name}: a}}}}}}"));
    let volumes = each(&pod["spec"]["volumes"], "name").into_iter().map(|name| format!("{{spec: {{volumes: [{{name: {name}}}]}}}}"));
    let variables = each(&worker["env"], "name").into_iter().map(|name| in_worker(format!("env: [{{name: {name}}}]")));
    let mounts = each(&worker["volumeMounts"], "mountPath").into_iter();
    let mounts = mounts.map(|path| in_worker(format!("volumeMounts: [{{name: v, mountPath: {path}}}]")));
    let parts =
        ["command: [a]", "args: [a]", "ports: [{containerPort: 1}]", "image: a", "resources: {}"].map(|part| in_worker(part.to_owned()));
    let all: Vec<String> = labels.chain(volumes).chain(variables).chain(mounts).chain(parts).collect();
    assert!(all.len() > 20, "{all:?}");
    for template in all {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/flights/job.yaml");
        let manifest = std::fs::read_to_string(path).unwrap() + &format!("  workers: {{podTemplate: {template}}}\n");
        let resource = Manifest::parse(&manifest, "job.yaml").unwrap().job;
        assert!(forebay_crds::validate(&resource).is_err(), "{template} was not refused");
    }
}

#[test]
fn the_operator_alone_reaches_the_workers_and_anybody_their_metrics() {
    let policy = network_policy::build(&blueprint(|manifest| manifest), "forebay-system");
    let spec = serde_json::to_value(policy.spec.unwrap()).unwrap();
    assert_eq!(
        spec,
        serde_json::json!({
            "podSelector": {"matchLabels": blueprint(|manifest| manifest).selector()},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "forebay-system"}},
                        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "forebay", "app.kubernetes.io/component": "operator"}},
                    }],
                    "ports": [{"port": 7070, "protocol": "TCP"}],
                },
                {"from": [{"namespaceSelector": {}}], "ports": [{"port": 9090, "protocol": "TCP"}]},
            ],
        })
    );
    // By these labels both ways to install it make the operator's pods.
    let deployment = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../kustomize/base/deployment.yaml")).unwrap();
    assert!(deployment.contains("matchLabels: {app.kubernetes.io/name: forebay, app.kubernetes.io/component: operator}"));
}

#[test]
fn a_savepoint_by_schedule_has_the_name_of_its_time_whoever_takes_it() {
    let due: k8s_openapi::jiff::Timestamp = "2026-11-26T03:00:00Z".parse().unwrap();
    let long = blueprint(|manifest| manifest.replace("name: flights\n  namespace", &format!("name: {}\n  namespace", "a".repeat(63))));
    for blueprint in [blueprint(|manifest| manifest), long] {
        let metadata = savepoint::scheduled(&blueprint, due).metadata;
        let (name, labels) = (metadata.name.unwrap(), metadata.labels.unwrap());
        assert!(name.ends_with("-0f3a9c-261126-0300") && name.len() <= 63, "{name}");
        assert_eq!((labels[DUE_LABEL].as_str(), labels.contains_key(TEMPLATE_LABEL)), ("1795662000", false));
    }
}
