//! From answers to a verdict, and what a person should look at although the sun is well. Pure.
//!
//! The sun looks at its devices less often than it is asked: what one look at a device found counts once
//! ([`Verdict::Again`] after that).

use super::config::{Checks, DiskRule};
use super::machine::Verdict;
use super::pressure::Pressure;
use super::probe::{Answer, Failure};
use crate::canary::{Device, Report};

/// What a round of probes is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// For the machine.
    pub verdict: Verdict,
    /// One word of what is wrong, for counting.
    pub cause: &'static str,
    /// What is not as it should be, and is no reason to withdraw.
    pub warnings: Vec<String>,
}

/// Judges one round after the other.
#[derive(Debug, Default)]
pub struct Judge {
    /// The looks at devices that have counted: (process, device, number).
    counted: Vec<(u32, String, u64)>,
}

impl Judge {
    /// Judges the answers of all addresses at `now`, seconds since 1970.
    #[must_use]
    pub fn judge(&mut self, answers: &[Answer], pressure: &Pressure, checks: &Checks, now: i64) -> Judged {
        let mut warnings: Vec<String> = answers.iter().filter_map(|answer| warning(answer, checks, now)).collect();
        if let Some((verdict, cause)) = failed(answers, now) {
            return Judged { verdict, cause, warnings };
        }
        let reports = || answers.iter().filter_map(|answer| answer.result.as_ref().ok());
        warnings.extend(reports().next().into_iter().flat_map(|report| devices(report, |_| true)));
        let ill = reports().find_map(|report| self.wrong(report, checks));
        let ill = ill.or_else(|| pressure.beyond(checks).map(|why| ("pressure", overloaded(why))));
        let (cause, verdict) = ill.unwrap_or(("", Verdict::Good));
        Judged { verdict, cause, warnings }
    }

    /// What is wrong by the sun's own report.
    fn wrong(&mut self, report: &Report, checks: &Checks) -> Option<(&'static str, Verdict)> {
        if let Some(why) = &report.ram {
            return Some(("ram", bad(format!("RAM: {why}"))));
        }
        let ill = |failed: &[String]| match checks.disk {
            DiskRule::Never => false,
            DiskRule::Any => !failed.is_empty(),
            DiskRule::All => !failed.is_empty() && failed.len() == report.devices.len(),
        };
        let failed = devices(report, |_| true);
        if ill(&failed) {
            let look = |device: &Device| (report.pid, device.name.clone(), device.round);
            let new = devices(report, |device| device.round == 0 || !self.counted.contains(&look(device)));
            if !ill(&new) {
                return Some(("disk", Verdict::Again));
            }
            self.counted = report.devices.iter().map(look).collect();
            return Some(("disk", bad(failed.join("; "))));
        }
        let percent = descriptors_percent(report)?;
        (percent > checks.descriptors_percent_max).then(|| {
            ("descriptors", overloaded(format!("{percent:.0} % of the descriptors that it may have are open")))
        })
    }
}

/// What is wrong by answers that are none, or are not to be believed.
fn failed(answers: &[Answer], now: i64) -> Option<(Verdict, &'static str)> {
    // One that is refused says most, and a failure more than what a report says.
    let refused = answers.iter().find(|answer| matches!(answer.result, Err(Failure::Refused(_))));
    let expired = answers.iter().find(|answer| answer.expires.is_some_and(|expires| expires < now));
    // A handshake fails by an expired certificate as by any other: the certificate says which it was.
    if let (None, Some(answer)) = (refused, expired) {
        return Some((bad(format!("{}: the certificate has expired", answer.address)), "certificate"));
    }
    // One that is only slow says least.
    let broken = answers.iter().find(|answer| answer.result.is_err() && !is_slow(answer));
    let failed = refused.or(broken).or_else(|| answers.iter().find(|answer| answer.result.is_err()))?;
    let failure = failed.result.as_ref().err()?;
    let (certain, slow) = (matches!(failure, Failure::Refused(_)), is_slow(failed));
    let reason = if slow { format!("{failure}; it answers late") } else { failure.to_string() };
    Some((Verdict::Bad { reason, certain, slow }, cause(failure)))
}

/// Whether it has too much to do, rather than hangs.
const fn is_slow(answer: &Answer) -> bool {
    matches!(answer.result, Err(Failure::TimedOut { .. })) && answer.answers_late
}

const fn bad(reason: String) -> Verdict {
    Verdict::Bad { reason, certain: false, slow: false }
}

/// It has too much to do.
const fn overloaded(reason: String) -> Verdict {
    Verdict::Bad { reason, certain: false, slow: true }
}

const fn cause(failure: &Failure) -> &'static str {
    match failure {
        Failure::Refused(_) => "refused",
        Failure::TimedOut { .. } => "timeout",
        Failure::NotLocal(_) => "address",
        Failure::Other { .. } => "answer",
    }
}

/// Open descriptors in percent of what the sun may have.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a count of descriptors")]
pub fn descriptors_percent(report: &Report) -> Option<f64> {
    let (open, most) = (report.descriptors?, report.descriptors_max.filter(|most| *most > 0)?);
    Some(100.0 * open as f64 / most as f64)
}

/// Those of the devices that `counts` that failed, and how.
fn devices(report: &Report, counts: impl Fn(&Device) -> bool) -> Vec<String> {
    let counted = report.devices.iter().filter(|device| counts(device));
    let failed = counted.filter_map(|device| Some((&device.name, device.failed.as_ref()?)));
    failed.map(|(name, why)| format!("{name}: {why}")).collect()
}

fn warning(answer: &Answer, checks: &Checks, now: i64) -> Option<String> {
    let left_s = answer.expires? - now;
    let warn_s = i64::from(checks.certificate_warn_days) * 86_400;
    (left_s >= 0 && left_s < warn_s)
        .then(|| format!("{}: the certificate expires in {:.1} days", answer.address, days(left_s)))
}

#[expect(clippy::cast_precision_loss, reason = "seconds of some years")]
fn days(seconds: i64) -> f64 {
    seconds as f64 / 86_400.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_sun_is_well_when_nothing_is_wrong() {
        check(&[good()], "");
        check(&[good(), good()], "");
        let recovering =
            Device { name: "a".into(), failed: None, unknown: Some("its index is being read".into()), round: 1 };
        check(&[with(|report| report.devices = vec![recovering.clone()])], "");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let refused = || answer(Err(Failure::Refused(address())));
        let silent = Failure::TimedOut { address: address(), timeout_ms: 400, stage: "waiting for the canary" };
        check(&[good(), refused()], "refused! nobody listens at 127.0.0.1:443");
        check(&[answer(Err(silent.clone())), refused()], "refused! nobody listens at 127.0.0.1:443");
        let odd = Failure::Other { address: address(), why: "TLS: odd".into() };
        check(&[good(), answer(Err(odd.clone()))], "answer 127.0.0.1:443: TLS: odd");
        let late = || Answer { answers_late: true, ..answer(Err(silent.clone())) };
        let why = "127.0.0.1:443: no answer within 400 ms, waiting for the canary";
        check(&[good(), answer(Err(silent.clone()))], &format!("timeout {why}"));
        check(&[good(), late()], &format!("timeout~ {why}; it answers late"));
        check(&[late(), answer(Err(odd))], "answer 127.0.0.1:443: TLS: odd");
        check(
            &[good(), answer(Err(Failure::NotLocal(address())))],
            "address 127.0.0.1:443: this machine does not answer for it any more: see `sunctl render addresses`",
        );
        check(&[with(|report| report.ram = Some("odd".into()))], "ram RAM: odd");
        check(
            &[with(|report| report.descriptors = Some(96))],
            "descriptors~ 96 % of the descriptors that it may have are open",
        );
        check(&[with(|report| report.descriptors = Some(95))], "");
        check(&[expiring(NOW - 1)], "certificate 127.0.0.1:443: the certificate has expired");
        let handshake = Failure::Other { address: address(), why: "TLS: invalid peer certificate".into() };
        let expired = || Answer { expires: Some(NOW - 1), ..answer(Err(handshake.clone())) };
        check(&[good(), expired()], "certificate 127.0.0.1:443: the certificate has expired");
        check(&[expired(), refused()], "refused! nobody listens at 127.0.0.1:443");
    }

    #[test]
    fn devices_count_as_configured() {
        let failed = |name: &str| failed(name, 1);
        let well = |name: &str| Device { name: name.into(), failed: None, unknown: None, round: 1 };
        let both = [with(|report| report.devices = vec![failed("a"), failed("b")])];
        let one = [with(|report| report.devices = vec![well("a"), failed("b")])];
        check(&both, "disk a: odd; b: odd");
        check(&one, "");
        assert_eq!(judged(&one, DiskRule::All).warnings, ["b: odd"]);
        assert!(matches!(judged(&one, DiskRule::Any).verdict, Verdict::Bad { .. }));
        assert_eq!(judged(&both, DiskRule::Never).verdict, Verdict::Good);
    }

    #[test]
    fn what_one_look_at_a_device_found_counts_once() {
        let mut judge = Judge::default();
        let mut told = |pid, a, b, disk| {
            let devices = vec![failed("a", a), failed("b", b)];
            let answers = [with(|report| (report.pid, report.devices) = (pid, devices))];
            let judged = judge.judge(&answers, &Pressure::default(), &Checks { disk, ..Checks::default() }, NOW);
            assert_eq!(judged.cause, "disk");
            judged.verdict != Verdict::Again
        };
        assert!(told(1, 1, 1, DiskRule::All));
        assert!(!told(1, 1, 1, DiskRule::All));
        assert!(!told(1, 2, 1, DiskRule::All), "one of them was looked at again");
        assert!(told(1, 2, 2, DiskRule::All));
        assert!(told(1, 3, 2, DiskRule::Any));
        assert!(!told(1, 3, 2, DiskRule::Any));
        assert!(told(2, 3, 2, DiskRule::All), "another process counts anew");
        assert!(told(2, 0, 0, DiskRule::All) && told(2, 0, 0, DiskRule::All), "one that does not say");
    }

    #[test]
    fn a_certificate_that_expires_soon_is_warned_of() {
        let told = |expires| judged(&[expiring(expires)], DiskRule::All).warnings;
        assert_eq!(told(NOW + 14 * 86_400), [""; 0]);
        assert_eq!(told(NOW + 36 * 3600), ["127.0.0.1:443: the certificate expires in 1.5 days"]);
    }

    #[track_caller]
    fn check(answers: &[Answer], expected: &str) {
        let judged = judged(answers, DiskRule::All);
        let said = match judged.verdict {
            Verdict::Good => String::new(),
            Verdict::Again => "again".to_owned(),
            Verdict::Bad { reason, certain, slow } => {
                format!("{}{}{} {reason}", judged.cause, if certain { "!" } else { "" }, if slow { "~" } else { "" })
            }
        };
        assert_eq!(said, expected);
    }

    fn judged(answers: &[Answer], disk: DiskRule) -> Judged {
        Judge::default().judge(answers, &Pressure::default(), &Checks { disk, ..Checks::default() }, NOW)
    }

    fn address() -> std::net::SocketAddr {
        ([127, 0, 0, 1], 443).into()
    }

    fn failed(name: &str, round: u64) -> Device {
        Device { name: name.into(), failed: Some("odd".into()), unknown: None, round }
    }

    fn good() -> Answer {
        with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Report)) -> Answer {
        let mut report = Report { descriptors: Some(10), descriptors_max: Some(100), ..Report::default() };
        change(&mut report);
        answer(Ok(report))
    }

    fn expiring(expires: i64) -> Answer {
        Answer { expires: Some(expires), ..good() }
    }

    fn answer(result: Result<Report, Failure>) -> Answer {
        Answer {
            address: address(),
            result,
            expires: Some(NOW + 365 * 86_400),
            took: Duration::from_millis(1),
            answers_late: false,
        }
    }
}
