//! From the SDK's errors to the port's: what passes by itself, what does not, and then the way out. Never prints credentials.

use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use forebay_engine::store::StoreError;

use crate::Bucket;

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
                format!("the endpoint answered {status} without an error of S3 in it")
            }
            Refused::Answer { status, code, message } => format!("the store answered {status} {code}: {message}"),
            Refused::Late => {
                let (time, attempts) = (self.attempt_timeout, self.attempts);
                format!("no answer in time ({time:?}, more for large bodies), tried {attempts} times; check the endpoint and the network")
            }
            Refused::NoAnswer { causes } => format!("no answer, tried up to {} times: {causes}", self.attempts),
            Refused::Untrusted { causes } | Refused::NoCredentials { causes } => causes.clone(),
        }
    }

    fn advice(&self, action: &'static str, way_out: WayOut) -> Option<String> {
        let (bucket, root) = (&self.name, &self.root);
        Some(match way_out {
            WayOut::Bucket => format!("create the bucket {bucket}, or correct its name or the endpoint"),
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
            WayOut::Credentials => "give credentials that the store knows: access key, secret, and session token where there is one".into(),
            WayOut::Clock => "set this machine's clock right".into(),
            WayOut::Region => format!("name the region that the bucket {bucket} lies in"),
            WayOut::EncryptionKey => "correct the KMS key, or grant kms:GenerateDataKey and kms:Decrypt on it".into(),
            WayOut::Server => "this server lacks what Forebay needs of S3".into(),
            WayOut::Certificate => "name the file of the authority that signed the server's certificate".into(),
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
            // Who hands them out may be back soon.
            let way_out = "there are no credentials: give access key and secret, or see to whoever should hand them out";
            Self::NoAnswer { causes: format!("{causes}; {way_out}") }
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
            Self::Late | Self::NoAnswer { .. } | Self::Untrusted { .. } | Self::NoCredentials { .. } => "",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Answer { status, code, .. } => kind_of_answer(*status, code),
            Self::Late | Self::NoAnswer { .. } => Kind::Unavailable,
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

    #[test]
    fn causes_are_found_inside_io_errors_and_told_once() {
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = io::Error::other(io::Error::other(certificate));
        assert!(has_cause(&error, |cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))));
        assert_eq!(causes(&error), "invalid peer certificate: UnknownIssuer");
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
