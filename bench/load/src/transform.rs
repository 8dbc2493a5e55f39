//! The workload `transform` written by hand: what is passed on is copied, not written anew.

use anyhow::Result;
use serde::Deserialize;

use crate::action::write_number;
use crate::by_hand::Work;
use crate::librdkafka::{Consumed, Outgoing};

/// The outputs' places, in the order that `workload.json` has them in.
const BROWSING: usize = 0;
const CARTS: usize = 1;
const ORDERS: usize = 2;
const ACCOUNTS: usize = 3;
const REJECTED: usize = 4;

/// Strings are borrowed as they stand in JSON: the generator escapes nothing, and one with an escape would be rejected.
#[derive(Deserialize)]
struct Event<'r> {
    tenant: &'r str,
    user: &'r str,
    event_id: &'r str,
    ts: i64,
    sent_us: u64,
    #[serde(rename = "type")]
    kind: &'r str,
    #[serde(borrow)]
    attrs: Attributes<'r>,
    #[serde(borrow)]
    identifiers: Identifiers<'r>,
}

#[derive(Deserialize)]
struct Attributes<'r> {
    page: &'r str,
    referrer: &'r str,
    amount: f64,
    currency: &'r str,
    sku: &'r str,
    campaign: &'r str,
}

#[derive(Deserialize)]
struct Identifiers<'r> {
    email: &'r str,
    device: &'r str,
}

pub struct Transform;

impl Work for Transform {
    fn process(&mut self, record: &Consumed<'_>, outgoing: &mut [Outgoing]) {
        let event = sonic_rs::from_slice::<Event<'_>>(record.value).ok();
        let with_domain = event.and_then(|event| Some((event.identifiers.email.split_once('@')?.1, event)));
        let Some((domain, event)) = with_domain else {
            outgoing[REJECTED].push(record.partition, record.key, |into| into.extend_from_slice(record.value));
            return;
        };
        let output = match event.kind {
            "heartbeat" => return,
            "page_view" | "click" | "search" => BROWSING,
            "add_to_cart" => CARTS,
            "purchase" | "refund" => ORDERS,
            _ => ACCOUNTS,
        };
        outgoing[output].push(record.partition, record.key, |into| write(into, &event, domain));
    }

    fn save(&mut self) -> Result<()> {
        Ok(())
    }
}

fn write(into: &mut Vec<u8>, event: &Event<'_>, domain: &str) {
    let attributes = &event.attrs;
    let text = |into: &mut Vec<u8>, before: &str, value: &str| {
        into.extend_from_slice(before.as_bytes());
        into.extend_from_slice(value.as_bytes());
    };
    text(into, r#"{"tenant":""#, event.tenant);
    text(into, r#"","user":""#, event.user);
    text(into, r#"","event_id":""#, event.event_id);
    text(into, r#"","ts":"#, "");
    write_number(into, u64::try_from(event.ts).unwrap_or(0));
    text(into, r#","sent_us":"#, "");
    write_number(into, event.sent_us);
    text(into, r#","attrs":{"page":""#, attributes.page);
    text(into, r#"","referrer":""#, attributes.referrer);
    text(into, r#"","currency":""#, attributes.currency);
    text(into, r#"","sku":""#, attributes.sku);
    text(into, r#""},"identifiers":{"device":""#, event.identifiers.device);
    text(into, r#""},"kind":""#, "");
    into.extend(event.kind.bytes().map(|byte| byte.to_ascii_uppercase()));
    text(into, r#"","cents":"#, "");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "amounts are small and positive")]
    write_number(into, (attributes.amount * 100.0).round() as u64);
    text(into, r#","domain":""#, domain);
    text(into, r#"","channel":""#, if attributes.referrer == "direct" { "direct" } else { "referred" });
    text(into, r#"","campaign":""#, "");
    into.extend(attributes.campaign.bytes().map(|byte| if byte == b'-' { b'_' } else { byte }));
    text(into, r#""}"#, "");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(value: &str) -> Vec<Outgoing> {
        let mut outgoing: Vec<_> = (0..5).map(|_| Outgoing::default()).collect();
        Transform.process(&Consumed { partition: 3, offset: 0, key: b"k", value: value.as_bytes() }, &mut outgoing);
        outgoing
    }

    fn event(kind: &str) -> String {
        format!(
            r#"{{"tenant":"t1","user":"u1","event_id":"e","ts":5,"sent_us":6,"type":"{kind}","attrs":{{"page":"/p","referrer":"direct","amount":12.34,"currency":"EUR","sku":"s","campaign":"a-b-c"}},"identifiers":{{"email":"x@y.z","device":"d"}}}}"#
        )
    }

    #[test]
    fn an_event_is_mapped_and_goes_where_its_type_says() {
        let outgoing = run(&event("refund"));
        let text = String::from_utf8(outgoing[ORDERS].bytes.clone()).unwrap();
        let expected = r#"k{"tenant":"t1","user":"u1","event_id":"e","ts":5,"sent_us":6,"attrs":{"page":"/p","referrer":"direct","currency":"EUR","sku":"s"},"identifiers":{"device":"d"},"kind":"REFUND","cents":1234,"domain":"y.z","channel":"direct","campaign":"a_b_c"}"#;
        assert_eq!(text, expected);
        assert_eq!(outgoing.iter().filter(|outgoing| !outgoing.is_empty()).count(), 1);
    }

    #[test]
    fn a_heartbeat_goes_nowhere_and_what_is_no_event_is_rejected_as_it_came() {
        assert!(run(&event("heartbeat")).iter().all(Outgoing::is_empty));
        let cut = &event("click")[..100];
        assert_eq!(run(cut)[REJECTED].bytes, [b"k", cut.as_bytes()].concat());
    }
}
