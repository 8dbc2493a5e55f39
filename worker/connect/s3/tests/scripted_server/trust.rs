//! A server whose certificate an authority of one's own has signed.

use std::path::PathBuf;
use std::sync::Arc;

use forebay_engine::store::{ObjectStore, Put, StoreError};
use forebay_s3::{S3Options, S3Store};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use crate::server::{Reply, Server};
use crate::{options, small};

/// An authority: its own certificate as PEM, and what it signs with.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// What a server at 127.0.0.1 shows.
    fn server_config(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap()
    }
}

/// Method: the same server by the file of its authority, without one, and by that of another authority, which says the same of itself.
#[test]
fn a_server_is_trusted_by_the_file_of_its_authority_and_by_nothing_else() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = Server::answering_by_tls(ours.server_config(), |_, _| Some(Reply::new(200, "")));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, authority: &Authority| {
        std::fs::write(folder.path().join(name), &authority.pem).unwrap();
        Some(folder.path().join(name))
    };
    let put = |ca_file: Option<PathBuf>| {
        let store = S3Store::open(S3Options { ca_file, ..options(server.url()) }).unwrap();
        store.put("k", &small())
    };
    assert_eq!(put(file("ours.pem", &ours)).unwrap(), Put::Created);
    let seen = server.seen().len();
    for refused in [None, file("other.pem", &other)] {
        let error = put(refused).unwrap_err();
        assert!(matches!(error, StoreError::Denied { .. }), "{error}");
        let way_out = "name the file of the authority that signed the server's certificate, by spec.state.store.s3.caFile or --s3-ca-file";
        assert!(error.to_string().contains(way_out), "{error}");
    }
    assert_eq!(server.seen().len(), seen, "a request went to a server that is not trusted");
}
