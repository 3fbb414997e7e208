//! From when until when a certificate is valid: the fields of it that neither rustls nor webpki tells.
//!
//! ```text
//!   Certificate SEQUENCE
//!     TBSCertificate SEQUENCE
//!       [0] version (optional), serialNumber INTEGER, signature SEQUENCE, issuer SEQUENCE,
//!       validity SEQUENCE { notBefore Time, notAfter Time }, ...          (RFC 5280, section 4.1)
//! ```

use std::time::{Duration, UNIX_EPOCH};

/// Seconds since 1970, both of which it is still valid in (RFC 5280, section 4.1.2.5).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// It begins.
    pub not_before: i64,
    /// It ends.
    pub not_after: i64,
}

impl Validity {
    /// Of a certificate in DER; none: it cannot be read.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate, _) = element(certificate)?;
        let (_, mut fields, _) = element(certificate)?;
        if fields.first() == Some(&VERSION) {
            (_, _, fields) = element(fields)?;
        }
        for _serial_signature_issuer in 0..3 {
            (_, _, fields) = element(fields)?;
        }
        let (_, validity, _) = element(fields)?;
        let (tag, not_before, rest) = element(validity)?;
        let not_before = seconds(tag, std::str::from_utf8(not_before).ok()?)?;
        let (tag, not_after, _) = element(rest)?;
        let not_after = seconds(tag, std::str::from_utf8(not_after).ok()?)?;
        Some(Self { not_before, not_after })
    }

    /// Why it is not valid at `now`, seconds since 1970; none: it is.
    #[must_use]
    pub fn problem(&self, now: i64) -> Option<String> {
        if self.not_after < now {
            return Some(format!("it expired on {}, {} ago", date(self.not_after), days(now - self.not_after)));
        }
        let early = self.not_before > now;
        early.then(|| format!("it is not valid before {}, in {}", date(self.not_before), days(self.not_before - now)))
    }
}

/// `notAfter` of a certificate in DER, seconds since 1970; none: it cannot be read.
#[must_use]
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    Validity::of(certificate).map(|validity| validity.not_after)
}

/// A time for people, as in HTTP.
pub fn date(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST_DATE);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn days(seconds: i64) -> String {
    match seconds / 86_400 {
        0 => format!("{} h", seconds / 3600),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// Tag, content and what follows of the first element (X.690, section 8.1).
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > LENGTH_BYTES_MAX {
            return None;
        }
        let (digits, behind) = rest.split_at_checked(count)?;
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on (RFC 5280, section 4.1.2.5).
fn seconds(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match tag {
        UTC_TIME if digits.len() == 12 => {
            let (year, rest) = digits.split_at(2);
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME if digits.len() == 14 => {
            let (year, rest) = digits.split_at(4);
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(day_number(year, month, day) * 86_400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

/// Days since 1970 of a date of the Gregorian calendar. Years begin in March, so that a leap day is the last of its year.
const fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The end of the year 9999, seconds since 1970.
const LAST_DATE: u64 = 253_402_300_799;

const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Longer contents than 4 GiB are no certificate's.
const LENGTH_BYTES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let check = |tag, text, expected: Option<i64>| assert_eq!(seconds(tag, text), expected, "{text}");
        check(UTC_TIME, "700101000000Z", Some(0));
        check(UTC_TIME, "261121233058Z", Some(1_795_303_858));
        check(UTC_TIME, "491231235959Z", Some(2_524_607_999));
        check(UTC_TIME, "500101000000Z", Some(-631_152_000));
        check(GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000));
        check(GENERALIZED_TIME, "20000229120000Z", Some(951_825_600));
        check(GENERALIZED_TIME, "261121233058Z", None);
        check(UTC_TIME, "261321233058Z", None);
        check(UTC_TIME, "26112123305+Z", None);
        check(UTC_TIME, "261121233058", None);
    }

    #[test]
    fn a_certificate_is_valid_from_its_first_to_its_last_second() {
        let validity = Validity { not_before: 1_700_000_000, not_after: 1_700_200_000 };
        assert_eq!([1_700_000_000, 1_700_200_000].map(|now| validity.problem(now)), [None, None]);
        let told = |now| validity.problem(now).unwrap();
        assert_eq!(told(1_699_990_000), "it is not valid before Tue, 14 Nov 2023 22:13:20 GMT, in 2 h");
        assert_eq!(told(1_700_200_001), "it expired on Fri, 17 Nov 2023 05:46:40 GMT, 0 h ago");
        assert_eq!(told(1_700_400_000), "it expired on Fri, 17 Nov 2023 05:46:40 GMT, 2 days ago");
        assert!(date(i64::MAX).contains("9999"));
    }

    #[test]
    fn both_times_of_a_certificate_are_read() {
        let mut params = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2051, 1, 1));
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let expected = Validity { not_before: 978_307_200, not_after: 2_556_144_000 };
        assert_eq!(Validity::of(certificate.der()), Some(expected));
    }

    #[test]
    fn whatever_is_no_certificate_has_no_expiry() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 2, 0x30, 5], &[0xff; 64]] {
            assert_eq!(not_after(bytes), None, "{bytes:?}");
        }
    }
}
