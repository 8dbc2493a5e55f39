//! Who may ask a worker: whoever has a certificate of the operator's authority that is good for asking. The files are looked at for each connection, so
//! what is renewed is in force at once and without a restart; nothing is cached that could grow old.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_api::{TLS_AUTHORITY, TLS_CERTIFICATE, TLS_KEY};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Why the files of a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One cannot be read.
    #[error("read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One holds something else.
    #[error("read {path}: {problem}; it must hold PEM")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// They do not fit together.
    #[error("use the certificates of {folder}: {problem}")]
    Unusable {
        /// Where they are.
        folder: PathBuf,
        /// What is wrong with them.
        problem: String,
    },
}

/// A folder with the certificate of this worker, its key, and the certificate of the authority that signs whoever may ask.
#[derive(Debug)]
pub struct Certificates {
    folder: PathBuf,
    last: Option<(Vec<Vec<u8>>, Arc<ServerConfig>)>,
}

impl Certificates {
    /// Reads them for the first time.
    pub fn in_folder(folder: &Path) -> Result<Self, TlsError> {
        let mut certificates = Self { folder: folder.to_owned(), last: None };
        certificates.load()?;
        Ok(certificates)
    }

    /// For the next connection. Files that cannot be used, because they are being replaced just now, change nothing.
    pub fn acceptor(&mut self) -> Option<TlsAcceptor> {
        if let Err(error) = self.load() {
            tracing::warn!(%error, "the certificates of before stay in use");
        }
        self.last.as_ref().map(|(_, config)| TlsAcceptor::from(config.clone()))
    }

    fn load(&mut self) -> Result<(), TlsError> {
        let files = [TLS_CERTIFICATE, TLS_KEY, TLS_AUTHORITY].map(|name| {
            let path = self.folder.join(name);
            std::fs::read(&path).map_err(|source| TlsError::Read { path, source })
        });
        let files = files.into_iter().collect::<Result<Vec<_>, _>>()?;
        if self.last.as_ref().is_some_and(|(before, _)| *before == files) {
            return Ok(());
        }
        let config = Arc::new(self.config(&files)?);
        if self.last.is_some() {
            tracing::info!("certificates that were renewed are in use");
        }
        self.last = Some((files, config));
        Ok(())
    }

    fn config(&self, files: &[Vec<u8>]) -> Result<ServerConfig, TlsError> {
        let content = |name: &str, problem: String| TlsError::Content { path: self.folder.join(name), problem };
        let certificates = |name: &str, bytes: &[u8]| {
            let all = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
            all.map_err(|error| content(name, error.to_string()))
        };
        let unusable = |problem: String| TlsError::Unusable { folder: self.folder.clone(), problem };
        let chain = certificates(TLS_CERTIFICATE, &files[0])?;
        let key = PrivateKeyDer::from_pem_slice(&files[1]).map_err(|error| content(TLS_KEY, error.to_string()))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(TLS_AUTHORITY, &files[2])? {
            roots.add(authority).map_err(|error| content(TLS_AUTHORITY, error.to_string()))?;
        }
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = verifier.build().map_err(|error| unusable(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
            .map_err(|error| unusable(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    use forebay_api::v1::DescribeRequest;
    use forebay_api::v1::worker_client::WorkerClient;
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

    use super::*;
    use crate::assignment::AssignmentFile;
    use crate::control::{Assigner, Checkpoints, Control, Facts, serve};
    use crate::prefetch::Prefetcher;

    struct Authority {
        certificate: String,
        issuer: Issuer<'static, KeyPair>,
    }

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        Authority { certificate: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    impl Authority {
        fn sign(&self, usage: ExtendedKeyUsagePurpose) -> (String, String) {
            let mut params = CertificateParams::new(vec!["workers".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
        }

        fn write(&self, folder: &Path) {
            let (certificate, key) = self.sign(ExtendedKeyUsagePurpose::ServerAuth);
            let files = BTreeMap::from([(TLS_CERTIFICATE, certificate), (TLS_KEY, key), (TLS_AUTHORITY, self.certificate.clone())]);
            files.into_iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        }
    }

    fn serve_in(folder: &Path) -> SocketAddr {
        let facts = Facts {
            worker: "w".into(),
            job: "job".into(),
            revision: "r".into(),
            shards: 1,
            timeline: forebay_engine::ids::Timeline::new(0),
            rewind: String::new(),
            rewinds_given_up: Vec::new(),
        };
        let parts = (Box::new(|_, _| {}) as Assigner, Box::new(|| ()) as Checkpoints, Prefetcher::start(|_, _, _| Ok(())));
        let control = Control::resume(facts, Arc::default(), parts, AssignmentFile::in_folder(folder)).unwrap();
        serve("127.0.0.1:0".parse().unwrap(), Arc::new(control), Some(Certificates::in_folder(folder).unwrap())).unwrap().address
    }

    /// Whether a worker answers who comes with this, and trusts this authority.
    fn is_answered(address: SocketAddr, trusts: &Authority, identity: Option<(String, String)>) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&trusts.certificate)).domain_name("workers");
            if let Some((certificate, key)) = identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
            let Ok(channel) = endpoint.connect().await else { return false };
            WorkerClient::new(channel).describe(DescribeRequest {}).await.is_ok_and(|said| said.into_inner().worker == "w")
        })
    }

    /// Method: a worker is asked by the operator, by nobody in particular, by another worker, by the operator of another authority, and in plain text.
    #[test]
    fn a_worker_answers_the_operator_and_nobody_else() {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let (folder, ours, theirs) = (tempfile::tempdir().unwrap(), authority(), authority());
        ours.write(folder.path());
        let address = serve_in(folder.path());
        assert!(is_answered(address, &ours, Some(ours.sign(ClientAuth))));
        assert!(!is_answered(address, &ours, None));
        assert!(!is_answered(address, &ours, Some(ours.sign(ServerAuth))));
        assert!(!is_answered(address, &ours, Some(theirs.sign(ClientAuth))));
        assert!(!is_answered(address, &theirs, Some(ours.sign(ClientAuth))), "it passed for a worker of another authority");
    }

    /// Method: the files are replaced by those of another authority while the worker serves, and then by nonsense.
    #[test]
    fn renewed_certificates_are_in_force_without_a_restart() {
        use ExtendedKeyUsagePurpose::ClientAuth;
        let (folder, old, new) = (tempfile::tempdir().unwrap(), authority(), authority());
        old.write(folder.path());
        let address = serve_in(folder.path());
        assert!(is_answered(address, &old, Some(old.sign(ClientAuth))));
        new.write(folder.path());
        assert!(is_answered(address, &new, Some(new.sign(ClientAuth))));
        assert!(!is_answered(address, &old, Some(old.sign(ClientAuth))));
        std::fs::write(folder.path().join(TLS_CERTIFICATE), "half a file").unwrap();
        assert!(is_answered(address, &new, Some(new.sign(ClientAuth))));
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let said = |folder: &Path| Certificates::in_folder(folder).unwrap_err().to_string();
        assert!(said(folder.path()).contains(TLS_CERTIFICATE));
        authority().write(folder.path());
        std::fs::write(folder.path().join(TLS_KEY), "no key").unwrap();
        assert!(said(folder.path()).contains(TLS_KEY));
        let (_, another) = authority().sign(ExtendedKeyUsagePurpose::ServerAuth);
        std::fs::write(folder.path().join(TLS_KEY), another).unwrap();
        assert!(said(folder.path()).starts_with("use the certificates of "), "{}", said(folder.path()));
    }
}
