//! From the SDK's errors to the port's: what passes by itself, what does not, and then the way out. Never prints credentials.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use forebay_engine::store::StoreError;

use crate::options::{BUCKET_FIELD, CA_FILE_FIELD, ENDPOINT_FIELD, KMS_KEY_FIELD, REGION_FIELD};
use crate::{Bucket, Encryption};

/// An error of the SDK with what matters in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The server answered.
    Answer {
        status: u16,
        /// S3's code; empty where there is none (answers to HEAD have no body).
        code: String,
        message: String,
    },
    /// There was no answer in time.
    Late,
    /// No connection, or it broke; or the request could not be made.
    NoAnswer { causes: String },
    /// Who hands out credentials did not, and may be back soon.
    NotLent { causes: String },
    /// The server's certificate was not accepted.
    Untrusted { causes: String },
    /// There was nothing to sign the request with.
    NoCredentials { causes: String },
}

/// What kind of error the port makes of it.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    NotFound,
    Denied(WayOut),
    Unavailable,
}

/// What somebody must do before it can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WayOut {
    Bucket,
    Permission,
    Credentials,
    Clock,
    Region,
    EncryptionKey,
    Server,
    Certificate,
    /// Only the server's own words help.
    None,
}

impl Bucket {
    /// The error of the port for an error of the SDK.
    pub(crate) fn refused<E>(&self, action: &'static str, key: &str, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        self.store_error(action, key, &Refused::of(&error))
    }

    fn store_error(&self, action: &'static str, key: &str, refused: &Refused) -> StoreError {
        let words = self.words(refused);
        match refused.kind() {
            Kind::NotFound => StoreError::NotFound { action, key: self.url(key) },
            Kind::Unavailable => StoreError::Unavailable { action, key: self.url(key), reason: words },
            Kind::Denied(way_out) => {
                let reason = match self.advice(action, way_out) {
                    Some(advice) => format!("{words}; {advice}"),
                    None => words,
                };
                StoreError::Denied { action, key: self.url(key), reason }
            }
        }
    }

    fn words(&self, refused: &Refused) -> String {
        match refused {
            Refused::Answer { status, code, message } if code.is_empty() && message.is_empty() => {
                format!("{} answered {status} without an error of S3 in it", self.server())
            }
            Refused::Answer { status, code, message } => format!("the store answered {status} {code}: {message}"),
            Refused::Late => {
                let (time, attempts) = (self.attempt_timeout, self.attempts);
                let reach = self.reach();
                format!("no answer in time ({time:?}, more for large bodies), tried {attempts} times; {reach}")
            }
            Refused::NoAnswer { causes } => format!("no answer, tried up to {} times: {causes}; {}", self.attempts, self.reach()),
            Refused::NotLent { causes } => {
                let way_out = "there are no credentials: give access key and secret, or see to whoever should hand them out";
                format!("no answer, tried up to {} times: {causes}; {way_out}", self.attempts)
            }
            Refused::Untrusted { causes } | Refused::NoCredentials { causes } => causes.clone(),
        }
    }

    /// The way out where nobody answers. It may pass by itself, too.
    fn reach(&self) -> String {
        let reach = format!("see to it that {} is reached from here, or correct", self.server());
        match &self.endpoint {
            Some(_) => format!("{reach} {ENDPOINT_FIELD}"),
            None => format!("{reach} {REGION_FIELD}; a server that is not AWS is named by {ENDPOINT_FIELD}"),
        }
    }

    fn advice(&self, action: &'static str, way_out: WayOut) -> Option<String> {
        let (bucket, root) = (&self.name, &self.root);
        Some(match way_out {
            WayOut::Bucket => {
                format!("create the bucket {bucket}, or correct its name ({BUCKET_FIELD}) or the endpoint ({ENDPOINT_FIELD})")
            }
            WayOut::Permission if action == "list" => format!("grant these credentials s3:ListBucket on arn:aws:s3:::{bucket}"),
            WayOut::Permission => {
                let permission = match action {
                    "put" => "s3:PutObject",
                    "delete" => "s3:DeleteObject",
                    "get" | "download" => "s3:GetObject",
                    _ => "s3:AbortMultipartUpload",
                };
                format!("grant these credentials {permission} on arn:aws:s3:::{bucket}/{root}*")
            }
            WayOut::Credentials => {
                let variables = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (in a cluster by spec.workers.envFrom)";
                format!("give credentials that the store knows: access key, secret, and session token where there is one, by {variables}")
            }
            WayOut::Clock => "set this machine's clock right".into(),
            WayOut::Region => format!("name the region that the bucket {bucket} lies in, by {REGION_FIELD}; it is {} now", self.region()),
            WayOut::EncryptionKey => {
                let key = match &self.encryption {
                    Encryption::Kms { key_id } => format!("the KMS key {key_id} ({KMS_KEY_FIELD})"),
                    Encryption::BucketDefault | Encryption::S3 => "the bucket's KMS key".into(),
                };
                format!("correct {key}, or grant kms:GenerateDataKey and kms:Decrypt on it")
            }
            WayOut::Server => format!("{} lacks what Forebay needs of S3; name another by {ENDPOINT_FIELD}", self.server()),
            WayOut::Certificate => format!("name the file of the authority that signed the server's certificate, by {CA_FILE_FIELD}"),
            WayOut::None => return None,
        })
    }
}

impl Refused {
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(answer) = error.raw_response()
            && let SdkError::ServiceError(_) = error
        {
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            return Self::Answer { status: answer.status().as_u16(), code: text(error.code()), message: text(error.message()) };
        }
        let causes = causes(error);
        if let SdkError::TimeoutError(_) = error {
            Self::Late
        } else if has_cause(error, |cause| matches!(cause.downcast_ref(), Some(CredentialsError::CredentialsNotLoaded(_)))) {
            Self::NoCredentials { causes }
        } else if has_cause(error, |cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))) {
            Self::Untrusted { causes }
        } else if has_cause(error, |cause| cause.is::<CredentialsError>()) {
            Self::NotLent { causes }
        } else {
            Self::NoAnswer { causes }
        }
    }

    /// A create-only put met an object.
    pub(crate) fn precondition_failed(&self) -> bool {
        matches!(self, Self::Answer { status: 412, .. }) || self.code() == "PreconditionFailed"
    }

    /// Another request for the same key was under way.
    pub(crate) fn conflict(&self) -> bool {
        matches!(self, Self::Answer { status: 409, .. }) || self.code() == "ConditionalRequestConflict"
    }

    /// A HEAD met no object: answers to it have no body, and so no code.
    pub(crate) fn nothing_there(&self) -> bool {
        matches!(self, Self::Answer { status: 404, .. })
    }

    /// The server has no such request, or not in the form that the SDK makes.
    pub(crate) fn unknown_request(&self) -> bool {
        matches!(self, Self::Answer { status: 405 | 501, .. })
            || matches!(self.code(), "NotImplemented" | "MethodNotAllowed" | "MissingContentMD5" | "InvalidRequest" | "MalformedXML")
    }

    fn code(&self) -> &str {
        match self {
            Self::Answer { code, .. } => code,
            Self::Late | Self::NoAnswer { .. } | Self::NotLent { .. } | Self::Untrusted { .. } | Self::NoCredentials { .. } => "",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Answer { status, code, .. } => kind_of_answer(*status, code),
            Self::Late | Self::NoAnswer { .. } | Self::NotLent { .. } => Kind::Unavailable,
            Self::Untrusted { .. } => Kind::Denied(WayOut::Certificate),
            Self::NoCredentials { .. } => Kind::Denied(WayOut::Credentials),
        }
    }
}

/// By S3's code where it is known, since servers choose their status numbers freely; else by the status.
fn kind_of_answer(status: u16, code: &str) -> Kind {
    match code {
        "NoSuchKey" | "NotFound" => return Kind::NotFound,
        "NoSuchBucket" | "InvalidBucketName" => return Kind::Denied(WayOut::Bucket),
        "AccessDenied" | "AccountProblem" | "AllAccessDisabled" => return Kind::Denied(WayOut::Permission),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken" | "TokenRefreshRequired" | "InvalidSecurity" => {
            return Kind::Denied(WayOut::Credentials);
        }
        "RequestTimeTooSkewed" => return Kind::Denied(WayOut::Clock),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => return Kind::Denied(WayOut::Region),
        "NotImplemented" | "MethodNotAllowed" => return Kind::Denied(WayOut::Server),
        // What went wrong on the way, or was cleaned up under us: the next put begins from the start.
        "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody" | "RequestTimeout" | "NoSuchUpload" | "InvalidPart" | "SlowDown" => {
            return Kind::Unavailable;
        }
        _ if code.starts_with("KMS.") || code.starts_with("Kms") => return Kind::Denied(WayOut::EncryptionKey),
        _ => {}
    }
    match status {
        // A 404 without S3's code comes from something in between (an ingress without its backend): it says nothing about the object, and
        // a checkpoint that is there must not be given up for it.
        404 => Kind::Unavailable,
        301 | 307 | 308 => Kind::Denied(WayOut::Region),
        401 => Kind::Denied(WayOut::Credentials),
        403 => Kind::Denied(WayOut::Permission),
        405 | 501 => Kind::Denied(WayOut::Server),
        408 | 409 | 412 | 423 | 425 | 429 => Kind::Unavailable,
        400..=499 => Kind::Denied(WayOut::None),
        _ => Kind::Unavailable,
    }
}

/// All that an error and its causes say, outermost first.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = chain(error).map(|cause| cause.to_string()).collect();
    texts.dedup();
    // Some causes are written over several lines.
    texts.join(": ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has_cause(error: &(dyn Error + 'static), is_it: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    chain(error).any(is_it)
}

/// Goes through what `io::Error` wraps as well, which it does not call its source.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{S3Options, S3Store};

    #[test]
    fn causes_are_found_inside_io_errors_and_told_once() {
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = io::Error::other(io::Error::other(certificate));
        assert!(has_cause(&error, |cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))));
        assert_eq!(causes(&error), "invalid peer certificate: UnknownIssuer");
    }

    /// Method: a store on AWS, of which nothing is asked, and one on a server of one's own.
    #[test]
    fn a_way_out_names_the_field_with_its_flag_and_what_it_says_now() {
        let aws = S3Options { region: Some("eu-west-9".into()), ..S3Options::new("b", "p") };
        let own = S3Options { endpoint: Some("http://s3.example".into()), ..aws.clone() };
        let check = |options: &S3Options, refused: &Refused, expected: &[&str]| {
            let text = S3Store::open(options.clone()).unwrap().bucket.store_error("list", "k", refused).to_string();
            for needed in expected {
                assert!(text.contains(needed), "{text} lacks {needed}");
            }
        };
        let answer = |status: u16, code: &str| Refused::Answer { status, code: code.into(), message: "words".into() };
        let gone = Refused::NoAnswer { causes: "connection refused".into() };
        let reached = "see to it that the endpoint http://s3.example is reached from here, or correct spec.state.store.s3.endpoint or";
        check(&own, &gone, &["no answer", "connection refused; see to it", reached, "--s3-endpoint"]);
        check(&own, &Refused::Late, &["no answer in time", reached, "--s3-endpoint"]);
        check(&aws, &gone, &["S3 in region eu-west-9 is reached from here", REGION_FIELD, ENDPOINT_FIELD]);
        let bucket = ["create the bucket b", "spec.state.store.s3.bucket", "--store", "spec.state.store.s3.endpoint", "--s3-endpoint"];
        check(&own, &answer(404, "NoSuchBucket"), &bucket);
        let region = ["name the region that the bucket b lies in", "spec.state.store.s3.region", "--s3-region", "it is eu-west-9 now"];
        check(&aws, &answer(301, "PermanentRedirect"), &region);
        check(&own, &answer(403, "SignatureDoesNotMatch"), &["give credentials", "AWS_SECRET_ACCESS_KEY", "spec.workers.envFrom"]);
        check(&own, &answer(501, "NotImplemented"), &["the endpoint http://s3.example lacks", ENDPOINT_FIELD]);
        let untrusted = Refused::Untrusted { causes: "unknown issuer".into() };
        check(&own, &untrusted, &["name the file of the authority", "spec.state.store.s3.caFile", "--s3-ca-file"]);
        let encrypted = S3Options { encryption: Encryption::Kms { key_id: "alias/k".into() }, ..aws };
        check(&encrypted, &answer(400, "KMS.NotFoundException"), &["alias/k", "spec.state.store.s3.sseKmsKeyId", "--s3-sse-kms-key-id"]);
    }

    #[test]
    fn an_answer_is_sorted_by_its_code_and_without_one_by_its_status() {
        let check = |status: u16, code: &str, expected: Kind| assert_eq!(kind_of_answer(status, code), expected, "{status} {code}");
        check(404, "NoSuchKey", Kind::NotFound);
        check(404, "", Kind::Unavailable);
        check(404, "NoSuchBucket", Kind::Denied(WayOut::Bucket));
        check(404, "NoSuchUpload", Kind::Unavailable);
        check(403, "AccessDenied", Kind::Denied(WayOut::Permission));
        check(403, "SignatureDoesNotMatch", Kind::Denied(WayOut::Credentials));
        check(403, "RequestTimeTooSkewed", Kind::Denied(WayOut::Clock));
        check(403, "", Kind::Denied(WayOut::Permission));
        check(400, "KMS.DisabledException", Kind::Denied(WayOut::EncryptionKey));
        check(400, "RequestTimeout", Kind::Unavailable);
        check(400, "InvalidArgument", Kind::Denied(WayOut::None));
        check(301, "", Kind::Denied(WayOut::Region));
        check(501, "NotImplemented", Kind::Denied(WayOut::Server));
        check(503, "SlowDown", Kind::Unavailable);
        check(500, "InternalError", Kind::Unavailable);
        check(200, "InternalError", Kind::Unavailable);
    }
}
