//! The gRPC contract between operator and workers, generated from `api/proto/worker.proto`, which says what each call promises; and what the operator
//! tells `kubectl forebay` ([`look`]). Types only: who serves and who dials is for others.

pub mod look;

#[allow(missing_docs, clippy::all, clippy::unwrap_used, reason = "generated; the documentation stands in the proto file")]
#[rustfmt::skip]
pub mod v1;

/// Where a worker listens, unless it is told otherwise.
pub const PORT: u16 = 7070;
/// A worker's own certificate, in the folder that it is told.
pub const TLS_CERTIFICATE: &str = "tls.crt";
/// The key of that.
pub const TLS_KEY: &str = "tls.key";
/// The certificate of the authority that signs whoever may ask.
pub const TLS_AUTHORITY: &str = "ca.crt";
/// Where a worker serves its metrics and health in a pod.
pub const METRICS_PORT: u16 = 9090;

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    #[test]
    fn what_is_generated_is_of_this_very_contract() {
        // The generated file names the hash of the contract that it was made from.
        let hash: String = Sha256::digest(include_bytes!("../proto/worker.proto")).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(include_str!("v1.rs").contains(&hash), "stale; run `make generate`");
    }
}
