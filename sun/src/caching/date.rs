//! HTTP dates, strictly in form and leniently in case (RFC 9110, section 5.6.7).
//!
//! ```text
//!   Sun, 06 Nov 1994 08:49:37 GMT     IMF-fixdate, what is sent today
//!   Sunday, 06-Nov-94 08:49:37 GMT    RFC 850: a year of two digits is at most 50 years ahead
//!   Sun Nov  6 08:49:37 1994          asctime
//! ```
//!
//! Why not the `httpdate` crate for this: it takes letters only in the standard's case, and recipients are
//! told to be lenient about that (section 5.6.7: "robust in parsing"), while a date in any other *form* must
//! count as invalid, since a response whose `Expires` is invalid is already stale (RFC 9111, section 5.3).

/// Seconds since 1970, or nothing for what is no HTTP date; dates before 1970 are 0. `now` is in the same clock,
/// for years of two digits.
#[must_use]
pub fn parse(text: &str, now: u64) -> Option<u64> {
    let text = text.trim_matches([' ', '\t']);
    imf_fixdate(text).or_else(|| rfc850(text, now)).or_else(|| asctime(text))
}

fn imf_fixdate(text: &str) -> Option<u64> {
    let (weekday, rest) = text.split_once(", ")?;
    named(weekday, &WEEKDAYS)?;
    let [day, month, year, time, zone] = split(rest, ' ')?;
    gmt(zone)?;
    seconds(number(year, 4)?, named(month, &MONTHS)?, number(day, 2)?, clock(time)?)
}

fn rfc850(text: &str, now: u64) -> Option<u64> {
    let (weekday, rest) = text.split_once(", ")?;
    named(weekday, &WEEKDAYS_LONG)?;
    let [date, time, zone] = split(rest, ' ')?;
    let [day, month, year] = split(date, '-')?;
    gmt(zone)?;
    let (month, day, clock, year) = (named(month, &MONTHS)?, number(day, 2)?, clock(time)?, number(year, 2)?);
    // RFC 9110, section 5.6.7: what seems more than 50 years ahead is the most recent such year in the past.
    let this_year = 1970 + now / YEAR_S;
    let year = this_year / 100 * 100 + year;
    let year = if year > this_year + 50 { year - 100 } else { year };
    seconds(year, month, day, clock)
}

fn asctime(text: &str) -> Option<u64> {
    let (weekday, rest) = text.split_once(' ')?;
    named(weekday, &WEEKDAYS)?;
    let (month, rest) = rest.split_once(' ')?;
    let (day, rest) = rest.split_at_checked(2)?;
    let day = match day.strip_prefix(' ') {
        Some(day) => number(day, 1)?,
        None => number(day, 2)?,
    };
    let [time, year] = split(rest.strip_prefix(' ')?, ' ')?;
    seconds(number(year, 4)?, named(month, &MONTHS)?, day, clock(time)?)
}

/// Exactly `N` parts.
fn split<const N: usize>(text: &str, separator: char) -> Option<[&str; N]> {
    let mut parts = text.split(separator);
    let mut array = [""; N];
    for part in &mut array {
        *part = parts.next()?;
    }
    parts.next().is_none().then_some(array)
}

/// Position in a list of names, counted from one.
fn named(text: &str, names: &[&str]) -> Option<u64> {
    names.iter().position(|name| name.eq_ignore_ascii_case(text)).map(|position| position as u64 + 1)
}

fn number(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

fn gmt(zone: &str) -> Option<()> {
    zone.eq_ignore_ascii_case("GMT").then_some(())
}

/// `08:49:37` in seconds; 60 is a leap second.
fn clock(text: &str) -> Option<u64> {
    let [hours, minutes, seconds] = split(text, ':')?;
    let (hours, minutes, seconds) = (number(hours, 2)?, number(minutes, 2)?, number(seconds, 2)?);
    (hours < 24 && minutes < 60 && seconds <= 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Days of the proleptic Gregorian calendar, counted from a March so that the leap day comes last.
fn seconds(year: u64, month: u64, day: u64, clock: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_of_month = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if day == 0 || day > days_of_month {
        return None;
    }
    if year < 1970 {
        return Some(0);
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - DAYS_TO_1970) * 86_400 + clock)
}

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const WEEKDAYS_LONG: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Of 365.2425 days.
const YEAR_S: u64 = 31_556_952;
/// From 1 March of the year 0 to 1 January 1970.
const DAYS_TO_1970: u64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read() {
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777));
        check("Sun Nov  6 08:49:37 1994", Some(784_111_777));
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("Thu, 29 Feb 2024 12:00:00 GMT", Some(1_709_208_000));
        check("Sun, 21 Nov 2286 04:46:39 GMT", Some(10_000_039_599));
        check("Mon, 01 Jan 1900 00:00:00 GMT", Some(0));
    }

    #[test]
    fn case_does_not_matter() {
        for text in ["SUN, 06 Nov 1994 08:49:37 GMT", "Sun, 06 NOV 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 gMT"]
        {
            check(text, Some(784_111_777));
        }
    }

    #[test]
    fn a_year_of_two_digits_is_at_most_fifty_years_ahead() {
        check("Thursday, 18-Aug-50 02:01:18 GMT", parse("Thu, 18 Aug 2050 02:01:18 GMT", 0));
        check("Thursday, 18-Aug-99 02:01:18 GMT", parse("Wed, 18 Aug 1999 02:01:18 GMT", 0));
    }

    #[test]
    fn any_other_form_is_no_date() {
        for text in [
            "",
            "0",
            "784111777",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun Nov \u{e9} 08:49:37 1994",
        ] {
            check(text, None);
        }
    }

    #[track_caller]
    fn check(text: &str, expected: Option<u64>) {
        // 2026.
        assert_eq!(parse(text, 1_780_000_000), expected, "{text}");
    }
}
