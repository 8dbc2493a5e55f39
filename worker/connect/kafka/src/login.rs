//! Logging in by token (SASL OAUTHBEARER): a file holds the token, and whoever renews it there is none of our business (a sidecar, Kubernetes, a
//! cron job). It is read again when four fifths of its life are over.
//!
//! Each client is given the token when it is made and before each longer use. librdkafka's own way, an event that asks for a token, does not
//! suit: only a client that is polled hears it. Neither the token nor any part of it is ever logged.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientContext;
use rdkafka::client::Client;

use crate::native;

/// The property that names the file. It is ours; librdkafka has none for this.
pub(crate) const TOKEN_FILE: &str = "sasl.oauthbearer.token.file";

/// How long a token without an expiry of its own is taken for good.
const OPAQUE_LIFE: Duration = Duration::from_secs(300);

/// The least time between two looks at a file that holds no usable token, or one that is almost over.
const AGAIN: Duration = Duration::from_secs(1);

/// A token as librdkafka takes it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub text: String,
    /// Who it is for. Goes to librdkafka's log and nowhere else.
    pub principal: String,
    pub expires_millis: i64,
}

/// How the clients of one log get in by token.
pub(crate) struct Login {
    path: PathBuf,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    outcome: Result<Token, String>,
    /// Grows whenever the file is read.
    number: u64,
    again: Instant,
}

impl Login {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), kept: Mutex::default() }
    }

    /// Sees to it that a client has the current token. `held` is the number of the one that it has. `Err` says why there is none to give.
    pub(crate) fn log_in<C: ClientContext>(&self, client: &Client<C>, held: &AtomicU64) -> Result<(), String> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if kept.as_ref().is_none_or(|kept| kept.again <= now) {
            let number = kept.as_ref().map_or(1, |kept| kept.number + 1);
            *kept = Some(self.read(number, now));
        }
        let Some(Kept { outcome, number, .. }) = &*kept else { return Ok(()) };
        if held.swap(*number, Ordering::SeqCst) == *number {
            return Ok(());
        }
        let set = outcome.clone().and_then(|token| native::set_token(client, &token));
        set.map_err(|reason| format!("the token in {} (`{TOKEN_FILE}`): {reason}", self.path.display()))
    }

    fn read(&self, number: u64, now: Instant) -> Kept {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let outcome = std::fs::read_to_string(&self.path).map_err(|error| error.to_string()).and_then(|text| parse(text.trim(), unix));
        let life = outcome.as_ref().map_or(Duration::ZERO, |token| life(token, unix));
        Kept { outcome, number, again: now + (life * 4 / 5).max(AGAIN) }
    }
}

fn life(token: &Token, now: Duration) -> Duration {
    Duration::from_millis(u64::try_from(token.expires_millis).unwrap_or_default()).saturating_sub(now)
}

/// A JSON web token says itself for how long it is good and for whom; anything else is taken as it is. Nothing is verified: that is up to the
/// broker.
fn parse(text: &str, now: Duration) -> Result<Token, String> {
    if text.is_empty() {
        return Err("the file is empty".into());
    }
    let claims = text.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok());
    let claims: serde_json::Value = claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default();
    let expires = claims["exp"].as_f64().map_or(now + OPAQUE_LIFE, |seconds| Duration::from_secs_f64(seconds.clamp(0.0, 1e11)));
    Ok(Token {
        text: text.to_owned(),
        principal: claims["sub"].as_str().unwrap_or("forebay").to_owned(),
        expires_millis: i64::try_from(expires.as_millis()).unwrap_or(i64::MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_token_tells_its_end_and_its_subject_and_anything_else_is_good_for_a_while() {
        let now = Duration::from_secs(1_000);
        let check = |text: &str, principal: &str, expires_millis: i64| {
            let token = parse(text, now).unwrap();
            assert_eq!((token.text.as_str(), token.principal.as_str(), token.expires_millis), (text, principal, expires_millis));
        };
        let claims = |json: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(json));
        check(&claims(r#"{"sub":"alice","exp":2000.5}"#), "alice", 2_000_500);
        check(&claims(r#"{"exp":1500}"#), "forebay", 1_500_000);
        check(&claims("no json"), "forebay", 1_300_000);
        check("opaque", "forebay", 1_300_000);
        assert_eq!(parse("", now).err().as_deref(), Some("the file is empty"));
    }

    #[test]
    fn the_file_is_read_again_before_its_token_is_over() {
        let file = std::env::temp_dir().join(format!("forebay-token-{}", std::process::id()));
        let now = Instant::now();
        let login = Login::new(&file);
        assert!(login.read(1, now).outcome.is_err_and(|reason| reason.contains("No such file")));
        std::fs::write(&file, "opaque\n").unwrap();
        let kept = login.read(2, now);
        let _ = std::fs::remove_file(&file);
        assert!(kept.outcome.is_ok_and(|token| token.text == "opaque"));
        let wait = kept.again - now;
        assert!(wait > OPAQUE_LIFE / 2 && wait < OPAQUE_LIFE, "{wait:?}");
    }
}
