//! Promise: credentials for S3 come from where the AWS SDK finds them: environment, profile, a program that a profile names, web identity,
//! container, instance; a session's token goes with them. Where there are none it is said.
//!
//! Method: `forebay snapshot ls` on a server in this process, which hands out credentials at some paths and takes note of who asks for objects.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::support::{Said, World, said};

/// The access key that a request for objects is signed with, and the session's token.
type Asker = (String, Option<String>);

/// Hands out credentials, and refuses objects.
struct Server {
    address: SocketAddr,
    askers: Arc<Mutex<Vec<Asker>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let askers = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&askers);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                answer(client.unwrap(), &noted);
            }
        });
        Self { address, askers }
    }
}

/// One request without a body that matters, one answer.
fn answer(mut client: TcpStream, askers: &Mutex<Vec<Asker>>) {
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let named = |line: &&String| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        head.iter().find(named).map(|line| line.split_once(':').unwrap().1.trim().to_owned())
    };
    let path = request.split(' ').nth(1).unwrap_or_default();
    let expires = "2999-01-01T00:00:00Z";
    let keys = |id: &str| {
        format!(r#"{{"AccessKeyId": "{id}", "SecretAccessKey": "s", "Token": "{id}-token", "Expiration": "{expires}", "Code": "Success"}}"#)
    };
    let (status, body) = match path {
        "/container" if header("authorization").as_deref() == Some("of-the-pod") => (200, keys("CONTAINER")),
        "/latest/api/token" => (200, "token-of-the-instance".to_owned()),
        "/latest/meta-data/iam/security-credentials/" => (200, "role".to_owned()),
        "/latest/meta-data/iam/security-credentials/role" => (200, keys("INSTANCE")),
        "/sts/" => (200, assumed(expires)),
        path if path.starts_with("/bucket") => {
            let signed = header("authorization").unwrap_or_default();
            let key = signed.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
            askers.lock().unwrap().push((key.to_owned(), header("x-amz-security-token")));
            (403, "<Error><Code>AccessDenied</Code><Message>noted</Message></Error>".to_owned())
        }
        _ => (404, String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status} Noted\r\nconnection: close\r\nx-aws-ec2-metadata-token-ttl-seconds: 300\r\ncontent-length: {}",
        body.len()
    );
    // A client that has gone is its own business.
    let _ = write!(client, "{head}\r\n\r\n{body}");
}

/// What STS says to who shows a token.
fn assumed(expires: &str) -> String {
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>WEB</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>WEB-token</SessionToken><Expiration>{expires}</Expiration>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
}

/// `forebay snapshot ls` on the server, with nothing in its environment that a client of AWS would go by.
fn list(world: &World, server: &Server, environment: &[(&str, String)]) -> Said {
    let mut command: Command = world.command(&["snapshot", "ls", "--store", "s3://bucket/prefix"]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.to_lowercase().ends_with("_proxy")) {
        command.env_remove(name);
    }
    let nothing = world.path("nothing");
    command.env("HOME", &nothing).env("AWS_CONFIG_FILE", &nothing).env("AWS_SHARED_CREDENTIALS_FILE", &nothing);
    command.env("FOREBAY_S3_ENDPOINT", format!("http://{}", server.address));
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    said(command.output().unwrap())
}

#[test]
fn credentials_come_from_where_the_sdk_finds_them() {
    let (world, server) = (World::new(), Server::start());
    let file = |name: &str, text: &str| world.write(name, text).to_str().unwrap().to_owned();
    let no_instance = ("AWS_EC2_METADATA_DISABLED", "true".to_owned());
    let at = |path: &str| format!("http://{}{path}", server.address);
    let check = |environment: &[(&str, String)], key: &str, token: Option<&str>| {
        server.askers.lock().unwrap().clear();
        let said = list(&world, &server, environment);
        let askers = server.askers.lock().unwrap().clone();
        let expected = (key.to_owned(), token.map(str::to_owned));
        assert!(!askers.is_empty() && askers.iter().all(|asker| *asker == expected), "{askers:?} instead of {expected:?}: {said:?}");
        assert!(said.code == Some(2) && said.stderr.contains("grant these credentials s3:ListBucket"), "{said:?}");
    };
    let environment = [("AWS_ACCESS_KEY_ID", "ENV".to_owned()), ("AWS_SECRET_ACCESS_KEY", "s".to_owned())];
    check(&environment, "ENV", None);
    check(&[&environment[..], &[("AWS_SESSION_TOKEN", "ENV-token".to_owned())]].concat(), "ENV", Some("ENV-token"));

    let profiles = "[default]\naws_access_key_id = DEFAULT\naws_secret_access_key = s\n[other]\naws_access_key_id = OTHER\naws_secret_access_key = s\n";
    let profiles = ("AWS_SHARED_CREDENTIALS_FILE", file("credentials", profiles));
    check(&[profiles.clone(), no_instance.clone()], "DEFAULT", None);
    check(&[profiles, ("AWS_PROFILE", "other".to_owned()), no_instance.clone()], "OTHER", None);

    let said_by_program = file("said.json", r#"{"Version": 1, "AccessKeyId": "PROGRAM", "SecretAccessKey": "s"}"#);
    let config = file("config", &format!("[default]\ncredential_process = cat {said_by_program}\n"));
    check(&[("AWS_CONFIG_FILE", config), no_instance.clone()], "PROGRAM", None);

    let identity = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file("token", "of the service account")),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/forebay".to_owned()),
        ("AWS_ENDPOINT_URL_STS", at("/sts")),
        no_instance.clone(),
    ];
    check(&identity, "WEB", Some("WEB-token"));

    let container = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", at("/container")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file("pod-token", "of-the-pod")),
        no_instance,
    ];
    check(&container, "CONTAINER", Some("CONTAINER-token"));

    check(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", at(""))], "INSTANCE", Some("INSTANCE-token"));
}

#[test]
fn without_credentials_it_is_said_how_to_give_some() {
    let (world, server) = (World::new(), Server::start());
    let said = list(&world, &server, &[("AWS_EC2_METADATA_DISABLED", "true".to_owned())]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("access key") && said.stderr.contains("s3://bucket/prefix"), "{said:?}");
    assert!(server.askers.lock().unwrap().is_empty(), "something was asked for all the same");
}
