//! What names may look like: those that Kubernetes, Kafka and S3 would refuse are refused here, with the rule.

/// At most 63 of `a-z`, `0-9` and `-`, neither first nor last a `-`. `Err` is the way out.
pub(crate) fn check_label(name: &str) -> Result<(), &'static str> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_legal = !name.is_empty() && name.len() <= 63 && name.bytes().all(is_inner) && !name.starts_with('-') && !name.ends_with('-');
    if is_legal { Ok(()) } else { Err("use at most 63 of a-z, 0-9 and -, with a letter or digit at both ends") }
}

/// Labels joined by dots, at most 63 in all: the name is a label's value on every pod of the job.
pub(crate) fn check_job(name: &str) -> Result<(), &'static str> {
    if name.len() <= 63 && name.split('.').all(|label| check_label(label).is_ok()) {
        Ok(())
    } else {
        Err("use at most 63 of a-z, 0-9, - and ., with a letter or digit at both ends")
    }
}

/// What Kafka takes as a topic, less those that it keeps for itself. `Err` is the way out.
pub(crate) fn check_topic(topic: &str) -> Result<(), &'static str> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if matches!(topic, "__consumer_offsets" | "__transaction_state") {
        return Err("Kafka keeps this topic for itself");
    }
    if (1..=249).contains(&topic.len()) && topic.bytes().all(is_legal) && !matches!(topic, "." | "..") {
        Ok(())
    } else {
        Err("use at most 249 letters, digits, `.`, `_` and `-`")
    }
}

/// S3's rule for buckets, as far as it can be told from the name alone. `Err` is the way out.
pub(crate) fn check_bucket(bucket: &str) -> Result<(), &'static str> {
    if (3..=63).contains(&bucket.len()) && bucket.split('.').all(|label| check_label(label).is_ok()) {
        Ok(())
    } else {
        Err("use 3 to 63 of a-z, 0-9, - and ., with a letter or digit at both ends")
    }
}

/// `host:port`, separated by commas. `Err` names the one that is wrong.
pub(crate) fn check_servers(servers: &str) -> Result<(), String> {
    for server in servers.split(',').map(str::trim) {
        let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            return Err(format!("{server:?} is no host:port"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_systems_around_would_refuse_are_refused() {
        let check = |verdict: Result<(), &str>, legal: bool, name: &str| assert_eq!(verdict.is_ok(), legal, "{name}");
        for (name, legal) in [("a", true), ("a-1", true), ("", false), ("-a", false), ("a-", false), ("A", false), ("a.b", false)] {
            check(check_label(name), legal, name);
        }
        for (name, legal) in [("flights", true), ("a.b", true), ("a..b", false), ("a_b", false), (&"a".repeat(64), false)] {
            check(check_job(name), legal, name);
        }
        for (name, legal) in [("A_b.c-d", true), (".", false), ("..", false), ("a b", false), ("", false), ("__consumer_offsets", false)] {
            check(check_topic(name), legal, name);
        }
        for (name, legal) in [("abc", true), ("ab", false), ("my.bucket", true), ("My", false), ("a_b_c", false)] {
            check(check_bucket(name), legal, name);
        }
        for (servers, legal) in
            [("a:1", true), ("a:1, b:2", true), ("[::1]:9092", true), ("a", false), (":1", false), ("a:0", false), ("a:1,", false)]
        {
            assert_eq!(check_servers(servers).is_ok(), legal, "{servers}");
        }
    }
}
