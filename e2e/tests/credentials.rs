//! Promise: a real S3 server takes the credentials that the AWS SDK finds: environment, profile, a program that a profile names, a role that a profile
//! names, web identity, container, instance. A job writes its checkpoints with what a service account's token gives it. A token with a
//! wrong signature is refused with the way out.
//!
//! Sessions are the server's own STS's. Only what lends credentials to containers and instances is played: it exists nowhere but in a cloud.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use forebay_e2e::flights::{Flights, SHARDS, records};
use forebay_e2e::in_folder;
use forebay_e2e::job::Forebay;
use forebay_e2e::s3::S3;
use serde_json::{Value, json};

/// One request without a body, one answer: what lends a session to the containers of a pod at `/container`, and to an instance.
fn lend(mut client: TcpStream, session: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    // All of it is read, or the client would find the connection reset.
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let (status, body) = match request.split(' ').nth(1).unwrap_or_default() {
        "/container" | "/latest/meta-data/iam/security-credentials/role" => (200, session),
        "/latest/api/token" => (200, "of-the-instance"),
        "/latest/meta-data/iam/security-credentials/" => (200, "role"),
        _ => (404, ""),
    };
    let lifetime = "x-aws-ec2-metadata-token-ttl-seconds: 300";
    write!(client, "HTTP/1.1 {status} Lent\r\nconnection: close\r\n{lifetime}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The address of a service that lends this session.
fn lender(session: String) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // A client that has gone is its own business.
    std::thread::spawn(move || listener.incoming().for_each(|client| drop(client.and_then(|client| lend(client, &session)))));
    Ok(address)
}

/// The same job without any credentials.
fn bare(forebay: &Forebay, s3: &S3, folder: &Path) -> Forebay {
    let nothing = folder.join("nothing").to_string_lossy().into_owned();
    let forebay = forebay.clone().without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    // Also not those of whoever runs the tests.
    let forebay =
        ["HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"].iter().fold(forebay, |forebay, name| forebay.with(name, &nothing));
    forebay.with("AWS_EC2_METADATA_DISABLED", "true").with("AWS_ENDPOINT_URL_STS", &s3.url)
}

/// Method: a job runs with web identity; then its checkpoints are verified, every byte read, with credentials from each other place.
#[test]
fn a_job_and_its_checkpoints_are_reached_with_credentials_from_each_place() -> Result<()> {
    in_folder("credentials", |folder| {
        let (flights, s3) = Flights::on_shared_servers(folder)?;
        let records = records(2_000)?;
        flights.feed(&records)?;
        let bare = bare(&flights.forebay, &s3, folder);
        let role = forebay_e2e::variable("FOREBAY_TEST_S3_ROLE")?;
        let token = forebay_e2e::variable("FOREBAY_TEST_S3_TOKEN")?;
        let file = |name: &str, text: String| -> Result<String> {
            let path = folder.join(name);
            fs::write(&path, text)?;
            Ok(path.to_string_lossy().into_owned())
        };

        let web = bare.clone().with("AWS_ROLE_ARN", &role).with("AWS_WEB_IDENTITY_TOKEN_FILE", &token);
        let mut job = web.run("one", &flights.state_dir("one"), &["--until-end", "--checkpoint-on-stop"])?;
        job.success()?;
        flights.check(&records, &["one"])?;

        let verified = |source: &str, forebay: &Forebay| -> Result<()> {
            let said: Value =
                serde_json::from_str(&forebay.ask(&["snapshot", "verify", "-o", "json"]).with_context(|| source.to_owned())?)?;
            ensure!(said["checkpoints"] == SHARDS && said["objects"].as_u64() >= Some(1) && said["damaged"] == 0, "{source}: {said}");
            Ok(())
        };
        verified("web identity", &web)?;
        let keys = format!("aws_access_key_id = {}\naws_secret_access_key = {}\n", s3.access_key, s3.secret_key);
        verified("environment", &bare.clone().with("AWS_ACCESS_KEY_ID", &s3.access_key).with("AWS_SECRET_ACCESS_KEY", &s3.secret_key))?;
        let profiles = file("credentials", format!("[default]\n{keys}[other]\n{keys}"))?;
        let profiles = bare.clone().with("AWS_SHARED_CREDENTIALS_FILE", &profiles);
        verified("profile", &profiles)?;
        verified("profile by name", &profiles.with("AWS_PROFILE", "other"))?;
        let said = json!({"Version": 1, "AccessKeyId": s3.access_key, "SecretAccessKey": s3.secret_key});
        let said = file("said.json", said.to_string())?;
        let program = file("program", format!("[default]\ncredential_process = cat {said}\n"))?;
        verified("program", &bare.clone().with("AWS_CONFIG_FILE", &program))?;
        let assumed = file("assumed", format!("[default]\nrole_arn = {role}\nsource_profile = own\n[profile own]\n{keys}"))?;
        verified("role of a profile", &bare.clone().with("AWS_CONFIG_FILE", &assumed))?;

        let lender = lender(s3.session(&role)?)?;
        verified("container", &bare.clone().with("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{lender}/container")))?;
        let instance = bare.clone().without("AWS_EC2_METADATA_DISABLED");
        verified("instance", &instance.with("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{lender}")))?;

        let stranger = fs::read_to_string(&token)?.rsplit_once('.').map(|(signed, _)| format!("{signed}.AAAA")).context("a token")?;
        let refused = web.with("AWS_WEB_IDENTITY_TOKEN_FILE", file("stranger", stranger)?).call(&["snapshot", "verify"])?;
        let said = String::from_utf8_lossy(&refused.stderr);
        let way_out = "there are no credentials: give access key and secret, or see to whoever should hand them out";
        ensure!(
            !refused.status.success() && said.contains("token signature is invalid") && said.contains(way_out),
            "{}: {said}",
            refused.status
        );
        Ok(())
    })
}
