//! The schedule of savepoints: what its text means, and when one was due. Reads no clock.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::check_count;
use crate::finding::Finding;
use crate::job::SavepointsSpec;
use crate::path::Path;

/// A week of nights.
const RETAIN: u32 = 7;
const RETAIN_MAX: u32 = 100;
const ZONE: &str = "UTC";

/// When savepoints are taken by themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    /// How many complete ones are kept.
    pub retain: u32,
}

impl Schedule {
    /// The last time at which a savepoint was due, at `now` or before. Times that a change of clocks leaves out come at the first one after, and those that it
    /// brings twice come once.
    pub fn last_due(&self, now: Timestamp) -> Option<Timestamp> {
        // Cron knows of nothing smaller than a second.
        let now = Timestamp::from_second(now.as_second()).ok()?.to_zoned(self.zone.clone());
        self.cron.find_previous_occurrence(&now, true).ok().map(|at| at.timestamp())
    }
}

/// `None` if it has findings.
pub(super) fn check_schedule(spec: &SavepointsSpec, at: &Path, findings: &mut Vec<Finding>) -> Option<Schedule> {
    let before = findings.len();
    let retain = spec.retain.unwrap_or(RETAIN);
    check_count(retain, 1, RETAIN_MAX, &at.key("retain"), findings);
    let zone = spec.time_zone.as_deref().unwrap_or(ZONE);
    let zone = TimeZone::get(zone).map_err(|_| {
        let help = "write a name of the IANA database, such as Europe/Berlin, or leave it out for UTC";
        findings.push(Finding::new(&at.key("timeZone"), format!("{zone:?} is no time zone"), help));
    });
    let cron = read_cron(&spec.schedule).map_err(|why| {
        let help = "write minute, hour, day of the month, month and day of the week, such as `0 3 * * *`";
        findings.push(Finding::new(&at.key("schedule"), format!("{:?} is no schedule: {why}", spec.schedule), help));
    });
    let schedule = Schedule { cron: cron.ok()?, zone: zone.ok()?, retain };
    // Every day that there is comes within 400 years; the same answer at any time.
    if schedule.last_due(Timestamp::UNIX_EPOCH).is_none() {
        findings.push(Finding::new(&at.key("schedule"), format!("{:?} never comes", spec.schedule), "write a day that its month has"));
    }
    (findings.len() == before).then_some(schedule)
}

fn read_cron(text: &str) -> Result<Cron, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    parser.parse(text).map_err(|error| error.to_string().trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(schedule: &str, zone: Option<&str>) -> Result<Schedule, String> {
        let spec = SavepointsSpec { schedule: schedule.to_owned(), time_zone: zone.map(str::to_owned), retain: None };
        let mut findings = Vec::new();
        check_schedule(&spec, &Path::root(), &mut findings)
            .ok_or_else(|| findings.iter().map(|finding| finding.to_string() + "\n").collect())
    }

    fn check(cron: &str, zone: &str, now: &str, expected: &str) {
        let due = schedule(cron, Some(zone)).unwrap().last_due(now.parse().unwrap());
        assert_eq!(due, Some(expected.parse().unwrap()), "{cron} {zone} at {now}");
    }

    #[test]
    fn the_last_time_that_was_due_is_found_by_the_clock_of_the_zone() {
        check("0 3 * * *", "UTC", "2026-11-26T03:00:00Z", "2026-11-26T03:00:00Z");
        check("0 3 * * *", "UTC", "2026-11-26T03:00:00.9Z", "2026-11-26T03:00:00Z");
        check("0 3 * * *", "UTC", "2026-11-26T02:59:59.9Z", "2026-11-25T03:00:00Z");
        check("@weekly", "UTC", "2026-11-26T00:00:00Z", "2026-11-22T00:00:00Z");
        check("0 0 29 2 *", "UTC", "2026-11-26T00:00:00Z", "2024-02-29T00:00:00Z");
        check("0 3 * * *", "Asia/Kolkata", "2026-11-26T03:00:00Z", "2026-11-25T21:30:00Z");
    }

    #[test]
    fn a_change_of_clocks_leaves_out_no_savepoint_and_makes_no_second_one() {
        // On 2026-03-29 there is no 02:30 in Berlin; on 2026-10-25 it comes twice.
        check("30 2 * * *", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29T01:00:00Z");
        let at = |time: &str| schedule("30 2 * * *", Some("Europe/Berlin")).unwrap().last_due(time.parse().unwrap()).unwrap();
        let times =
            ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:29:00Z", "2026-10-25T01:30:00Z", "2026-10-25T12:00:00Z"];
        assert_eq!(times.map(at), ["2026-10-25T00:30:00Z".parse::<Timestamp>().unwrap(); 5]);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_the_way_out() {
        let refused = |cron: &str, zone: Option<&str>| schedule(cron, zone).unwrap_err();
        for cron in ["", "0 3 * *", "0 0 3 * * *", "61 3 * * *", "0 3 * * *\n0 4 * * *", "0 3 1-0 * *", "soon", "@soon", "0 0 30 2 *"] {
            let said = refused(cron, None);
            assert!(said.starts_with("schedule: ") && said.contains("; write ") && said.lines().count() == 1, "{cron:?}: {said}");
        }
        assert_eq!(
            refused("0 3 * * *", Some("Mars/Olympus")),
            "timeZone: \"Mars/Olympus\" is no time zone; write a name of the IANA database, such as Europe/Berlin, or leave it out for UTC\n"
        );
    }
}
