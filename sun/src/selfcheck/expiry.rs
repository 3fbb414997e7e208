//! Until when a certificate is valid: the one field of it that neither rustls nor webpki tells.
//!
//! ```text
//!   Certificate SEQUENCE
//!     TBSCertificate SEQUENCE
//!       [0] version (optional), serialNumber INTEGER, signature SEQUENCE, issuer SEQUENCE,
//!       validity SEQUENCE { notBefore Time, notAfter Time }, ...          (RFC 5280, section 4.1)
//! ```

/// `notAfter` of a certificate in DER, seconds since 1970; none: it cannot be read.
#[must_use]
pub fn not_after(certificate: &[u8]) -> Option<i64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&VERSION) {
        (_, _, fields) = element(fields)?;
    }
    for _serial_signature_issuer in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    seconds(tag, std::str::from_utf8(time).ok()?)
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
    Some(days(year, month, day) * 86_400 + part(4)? * 3600 + part(6)? * 60 + part(8)?)
}

/// Days since 1970 of a date of the Gregorian calendar. Years begin in March, so that a leap day is the last of its year.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

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
    fn whatever_is_no_certificate_has_no_expiry() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 2, 0x30, 5], &[0xff; 64]] {
            assert_eq!(not_after(bytes), None, "{bytes:?}");
        }
    }
}
