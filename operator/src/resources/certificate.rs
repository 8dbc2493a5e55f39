//! The secret with the certificate of a job's workers, and that of the authority by which they know the operator. Owned by the job.

use forebay_api::TLS_AUTHORITY;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;

use super::Blueprint;
use crate::certificates::{Authority, Holder};
use crate::credentials::data;

/// The secret with a certificate that is signed now. `Err` when there is no randomness for a key.
pub fn build(blueprint: &Blueprint, authority: &Authority, now: Timestamp) -> Result<Secret, rcgen::Error> {
    let pair = authority.sign(Holder::Workers(blueprint.uid()), now)?;
    let mut metadata = blueprint.metadata(name(blueprint), &[]);
    metadata.annotations = Some(authority.annotations(now));
    let authority = (TLS_AUTHORITY.to_owned(), ByteString(authority.pair().certificate.as_bytes().to_vec()));
    Ok(Secret {
        metadata,
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data(&pair).into_iter().chain([authority]).collect()),
        ..Secret::default()
    })
}

/// The secret's name.
pub fn name(blueprint: &Blueprint) -> String {
    format!("{}-tls", blueprint.prefix())
}
