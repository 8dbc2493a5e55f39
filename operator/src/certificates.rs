//! The certificates by which operator and workers know each other: an authority of the operator's own, a certificate for the operator that is good for
//! asking and nothing else, one per job that is good for answering and nothing else. Pure but for the keys, which are random.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, Error, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use sha2::{Digest, Sha256};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the certificates of operator and jobs are good. A third of it is left when they are renewed, for an operator that is away.
const LIFETIME: Duration = DAY.saturating_mul(90);
const RENEWED_AFTER: Duration = DAY.saturating_mul(60);
/// Longer than anybody leaves a cluster as it is. To have another one, its secret is deleted.
const AUTHORITY_LIFETIME: Duration = DAY.saturating_mul(3650);
/// Clocks may differ by so much.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// On a job's secret: when it is to be renewed.
const RENEW_ANNOTATION: &str = "forebay.dev/renew-after";
/// On a job's secret: by which authority its certificate is.
const AUTHORITY_ANNOTATION: &str = "forebay.dev/authority";

/// A certificate with its key, as PEM. Never logged.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// Who signs.
pub struct Authority {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    /// The operator, which asks.
    Operator,
    /// The workers of the job with this uid, which answer.
    Workers(&'a str),
}

impl Authority {
    /// A new one.
    pub fn make(now: Timestamp) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let mut params = authority_params();
        set_validity(&mut params, now, AUTHORITY_LIFETIME);
        let pair = Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() };
        Ok(Self { pair, issuer: Issuer::new(params, key) })
    }

    /// The one that was made earlier. `Err` when its key is none.
    pub fn of(pair: Pair) -> Result<Self, Error> {
        let key = KeyPair::from_pem(&pair.key)?;
        Ok(Self { pair, issuer: Issuer::new(authority_params(), key) })
    }

    /// Its certificate, by which others know it, and its key.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// A new certificate, good from now on for 90 days.
    pub fn sign(&self, holder: Holder<'_>, now: Timestamp) -> Result<Pair, Error> {
        let (name, usage) = match holder {
            Holder::Operator => ("operator.forebay.dev".to_owned(), ExtendedKeyUsagePurpose::ClientAuth),
            Holder::Workers(job) => (workers_name(job), ExtendedKeyUsagePurpose::ServerAuth),
        };
        let mut params = CertificateParams::new(vec![name.clone()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LIFETIME);
        let key = KeyPair::generate()?;
        Ok(Pair { certificate: params.signed_by(&key, &self.issuer)?.pem(), key: key.serialize_pem() })
    }

    /// What stands on a secret with a certificate that was signed just now.
    pub fn annotations(&self, now: Timestamp) -> BTreeMap<String, String> {
        let renew = (now + RENEWED_AFTER).to_string();
        [(RENEW_ANNOTATION.to_owned(), renew), (AUTHORITY_ANNOTATION.to_owned(), self.id())].into()
    }

    /// Whether a secret with these annotations needs a new certificate: it is not there, its time has come, or another authority signed it.
    pub fn is_due(&self, annotations: Option<&BTreeMap<String, String>>, now: Timestamp) -> bool {
        let read = |name: &str| annotations.and_then(|annotations| annotations.get(name));
        let renew: Option<Timestamp> = read(RENEW_ANNOTATION).and_then(|at| at.parse().ok());
        renew.is_none_or(|at| at <= now) || read(AUTHORITY_ANNOTATION) != Some(&self.id())
    }

    /// A word for it: two authorities have different ones.
    fn id(&self) -> String {
        Sha256::digest(self.pair.certificate.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The name in the certificate of a job's workers. It is in no DNS: pods are dialled by their address, and must prove this name.
pub fn workers_name(job: &str) -> String {
    format!("{job}.workers.forebay.dev")
}

/// Whether a certificate that was signed then is to be replaced.
pub fn is_old(signed: Timestamp, now: Timestamp) -> bool {
    signed + RENEWED_AFTER <= now
}

/// What its certificates name as their issuer: the same for every authority; they are told apart by their keys.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "forebay-operator");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, lifetime: Duration) {
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default());
    (params.not_before, params.not_after) = (now - CLOCK_TOLERANCE, now + lifetime);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_when_two_thirds_of_its_time_are_over_or_its_authority_is_another() {
        let authority = Authority::make(at(0)).unwrap();
        let annotations = authority.annotations(at(0));
        assert!(authority.is_due(None, at(0)));
        assert!(authority.is_due(Some(&BTreeMap::new()), at(0)));
        assert!(!authority.is_due(Some(&annotations), at(59)));
        assert!(authority.is_due(Some(&annotations), at(60)));
        assert!(Authority::make(at(0)).unwrap().is_due(Some(&annotations), at(1)));
        assert!(!is_old(at(0), at(59)) && is_old(at(0), at(60)));
    }

    #[test]
    fn an_authority_goes_on_from_its_secret() {
        let first = Authority::make(at(0)).unwrap();
        let again = Authority::of(first.pair().clone()).unwrap();
        assert!(!again.is_due(Some(&first.annotations(at(0))), at(1)));
        let (one, two) = (first.sign(Holder::Workers("uid"), at(0)).unwrap(), again.sign(Holder::Workers("uid"), at(1)).unwrap());
        assert_ne!(one.certificate, two.certificate);
        assert!(Authority::of(Pair { certificate: String::new(), key: "no key".into() }).is_err());
    }
}
