//! By what this operator proves who it is, and knows whom it asks. Keeps the authority in a secret of the operator's own namespace; its own certificate
//! lies in memory only, and is renewed there.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::certificates::{Authority, Holder, Pair, is_old, workers_name};

/// The authority's secret.
const NAME: &str = "forebay-operator-authority";
/// The names that Kubernetes has for them in secrets of this type.
pub const CERTIFICATE: &str = "tls.crt";
/// Likewise.
pub const KEY: &str = "tls.key";

/// The authority, and the certificate that it last signed for this operator.
pub struct Credentials {
    authority: Authority,
    own: Mutex<Own>,
}

struct Own {
    /// One for all connections: each of its own takes as much memory as the connection.
    tls: Arc<ClientConfig>,
    signed: Timestamp,
    /// Grows with each renewal.
    number: u64,
}

impl Credentials {
    /// With the authority of this operator's namespace, which is made if there is none.
    pub async fn load(client: &Client) -> anyhow::Result<Self> {
        let api: Api<Secret> = Api::default_namespaced(client.clone());
        let attempt = || format!("read the secret {NAME}; without it workers cannot be asked, and once it is deleted a new one is made");
        let secret = match api.get_opt(NAME).await.with_context(attempt)? {
            Some(secret) => secret,
            None => make(&api).await?,
        };
        let authority = Authority::of(read(&secret).with_context(attempt)?).map_err(|error| anyhow!(error)).with_context(attempt)?;
        Self::of(authority, Timestamp::now()).context("sign the operator's certificate")
    }

    /// With an authority that is there.
    pub fn of(authority: Authority, now: Timestamp) -> anyhow::Result<Self> {
        let tls = sign(&authority, now)?;
        Ok(Self { authority, own: Mutex::new(Own { tls, signed: now, number: 0 }) })
    }

    /// Who signs.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The number of the operator's certificate, renewed if its time has come: a connection that was made with another is to be made anew.
    pub fn number(&self, now: Timestamp) -> u64 {
        let mut own = self.own();
        if is_old(own.signed, now) {
            match sign(&self.authority, now) {
                Ok(tls) => *own = Own { tls, signed: now, number: own.number + 1 },
                // The old one is good for another month.
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the operator's certificate is not renewed"),
            }
        }
        own.number
    }

    /// How to speak with the workers of a job, and with nobody else.
    pub fn for_workers(&self, job: &str) -> (ServerName<'static>, Arc<ClientConfig>) {
        let name = ServerName::try_from(workers_name(job)).expect("a uid and a domain make a name");
        (name, self.own().tls.clone())
    }

    fn own(&self) -> std::sync::MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new certificate for this operator, and whom it trusts.
fn sign(authority: &Authority, now: Timestamp) -> anyhow::Result<Arc<ClientConfig>> {
    let pair = authority.sign(Holder::Operator, now)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pair().certificate.as_bytes())?)?;
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()?;
    let mut tls = builder.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // A connection lasts: what would make the next one cheaper is kept for nothing.
    tls.resumption = Resumption::disabled();
    Ok(Arc::new(tls))
}

/// The data of a secret with a pair in it.
pub fn data(pair: &Pair) -> Vec<(String, ByteString)> {
    let entry = |name: &str, text: &str| (name.to_owned(), ByteString(text.as_bytes().to_vec()));
    vec![entry(CERTIFICATE, &pair.certificate), entry(KEY, &pair.key)]
}

async fn make(api: &Api<Secret>) -> anyhow::Result<Secret> {
    let authority = Authority::make(Timestamp::now()).context("make a certificate authority")?;
    let secret = Secret {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data(authority.pair()).into_iter().collect()),
        ..Secret::default()
    };
    tracing::info!(secret = NAME, "a certificate authority is made");
    match api.create(&PostParams::default(), &secret).await {
        // Somebody was faster: theirs is the one.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(api.get(NAME).await?),
        made => made.with_context(|| format!("make the secret {NAME}")),
    }
}

fn read(secret: &Secret) -> anyhow::Result<Pair> {
    let text = |name: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(name)).with_context(|| format!("it has no entry {name}"))?;
        String::from_utf8(bytes.0.clone()).with_context(|| format!("its entry {name} is no text"))
    };
    Ok(Pair { certificate: text(CERTIFICATE)?, key: text(KEY)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: the role that is installed, and the names in the code.
    #[test]
    fn in_its_own_namespace_the_operator_may_read_one_secret_and_one_lease() {
        let role = include_str!("../../kustomize/base/own-role.yaml");
        let names: Vec<&str> = role.lines().filter_map(|line| line.trim().strip_prefix("resourceNames: ")).collect();
        assert_eq!(names, [format!("[{}]", forebay_api::look::LEASE), format!("[{NAME}]")]);
        let reading = role.split("  - apiGroups:").filter(|rule| rule.contains("get") || rule.contains("update"));
        assert!(reading.into_iter().all(|rule| rule.contains("resourceNames")), "{role}");
    }

    #[test]
    fn the_operators_certificate_is_renewed_in_time() {
        let at = |day: i64| Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap();
        let credentials = Credentials::of(Authority::make(at(0)).unwrap(), at(0)).unwrap();
        assert_eq!([0, 59, 60, 61, 120].map(|day| credentials.number(at(day))), [0, 0, 1, 1, 2]);
    }
}
