//! The result of `datetime`: a time in UTC, with Go's `Format` and accessors.
//!
//! Time zones are not supported: a load balancer's clock is UTC, and a rendered time makes every
//! render differ anyway.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A time in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    /// Seconds since 1970.
    pub(crate) unix: i64,
    /// Nanoseconds of the second.
    pub(crate) nanos: u32,
}

/// The calendar date and time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Civil {
    /// The year, 1970 or later in practice.
    pub(crate) year: i64,
    /// 1–12.
    pub(crate) month: usize,
    /// 1–31.
    pub(crate) day: i64,
    /// 0–23.
    pub(crate) hour: i64,
    /// 0–59.
    pub(crate) minute: i64,
    /// 0–59.
    pub(crate) second: i64,
    /// 0 is Sunday.
    pub(crate) weekday: usize,
    /// 1–366.
    pub(crate) year_day: i64,
}

/// Nanoseconds from the first of January of the year 1 to 1970.
const SINCE_YEAR_1: i128 = 62_135_596_800 * 1_000_000_000;

/// Days since 1970 of the first of March of a year that begins in March.
fn days_before(year: i64) -> i64 {
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) - 719_468
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix: i64::try_from(since.as_secs()).unwrap_or(0), nanos: since.subsec_nanos() }
    }
}

impl Time {
    /// The calendar's view. Years are counted from March, so that a leap day is
    /// the last day of its year.
    pub(crate) fn civil(self) -> Civil {
        let days = self.unix.div_euclid(86_400);
        let clock = self.unix.rem_euclid(86_400);
        let mut march_year = (days + 719_468).div_euclid(365);
        while days_before(march_year) > days {
            march_year -= 1;
        }
        let day = days - days_before(march_year);
        let month = (5 * day + 2) / 153;
        let day_of_month = day - (153 * month + 2) / 5 + 1;
        let january = month >= 10;
        let year = march_year + i64::from(january);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        Civil {
            year,
            month: usize::try_from(if january { month - 9 } else { month + 3 }).unwrap_or(1),
            day: day_of_month,
            hour: clock / 3600,
            minute: clock / 60 % 60,
            second: clock % 60,
            weekday: usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0),
            year_day: if january { day - 305 } else { day + 60 + i64::from(leap) },
        }
    }

    /// The moment so many nanoseconds later; before 1970 and after all time there is none.
    pub(crate) fn plus(self, nanos: i64) -> Self {
        Self::at(self.all_nanos() + i128::from(nanos))
    }

    /// The moment so many calendar years, months and days later, as Go counts them: a month
    /// that is too short runs over into the next.
    pub(crate) fn plus_date(self, years: i64, months: i64, days: i64) -> Self {
        /// Beyond any year that can be printed, and far from an overflow.
        const MOST: i64 = 1_000_000;
        let [years, months, days] = [years, months, days].map(|n| n.clamp(-MOST, MOST));
        let civil = self.civil();
        let month = i64::try_from(civil.month).unwrap_or(1) - 1 + months;
        // Counted from March, as `days_before` does.
        let march = (civil.year + years) * 12 + month - 2;
        let in_year = march.rem_euclid(12);
        let first = days_before(march.div_euclid(12)) + (153 * in_year + 2) / 5;
        let unix = (first + civil.day - 1 + days) * 86_400 + self.unix.rem_euclid(86_400);
        Self { unix, ..self }
    }

    /// The last multiple of so many nanoseconds since the year 1, which is where Go begins.
    pub(crate) fn truncated(self, nanos: i64) -> Self {
        if nanos <= 0 {
            return self;
        }
        let all = self.all_nanos();
        Self::at(all - (all + SINCE_YEAR_1).rem_euclid(i128::from(nanos)))
    }

    /// In units of so many nanoseconds since 1970.
    pub(crate) fn since_1970(self, unit: i64) -> i64 {
        i64::try_from(self.all_nanos().div_euclid(i128::from(unit))).unwrap_or(i64::MAX)
    }

    fn all_nanos(self) -> i128 {
        i128::from(self.unix) * 1_000_000_000 + i128::from(self.nanos)
    }

    fn at(nanos: i128) -> Self {
        Self {
            unix: i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(i64::MAX),
            nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0),
        }
    }

    /// The month's English name.
    pub(crate) fn month(self) -> &'static str {
        MONTHS.get(self.civil().month - 1).unwrap_or(&"January")
    }

    /// The weekday's English name.
    pub(crate) fn weekday(self) -> &'static str {
        DAYS.get(self.civil().weekday).unwrap_or(&"Sunday")
    }

    /// Go's `Format`: the layout is how 2 January 2006, 15:04:05 would be written.
    pub(crate) fn format(self, layout: &str) -> String {
        let mut out = String::new();
        let mut rest = layout;
        while let Some(c) = rest.chars().next() {
            let found = ELEMENTS.iter().find(|element| rest.starts_with(*element));
            let taken = match found {
                // `Jan` inside a longer word is still `Jan`; Go has it so too.
                Some(element) => {
                    self.element(&mut out, element);
                    element.len()
                }
                None => match self.fraction(&mut out, rest) {
                    0 => {
                        out.push(c);
                        c.len_utf8()
                    }
                    taken => taken,
                },
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        out
    }

    fn element(self, out: &mut String, element: &str) {
        let civil = self.civil();
        let hour12 = if civil.hour % 12 == 0 { 12 } else { civil.hour % 12 };
        let half = if civil.hour < 12 { "AM" } else { "PM" };
        let text = match element {
            "January" => self.month().into(),
            "Jan" => self.month().chars().take(3).collect(),
            "Monday" => self.weekday().into(),
            "Mon" => self.weekday().chars().take(3).collect(),
            "2006" => format!("{:04}", civil.year),
            "MST" => "UTC".into(),
            "Z07:00" | "Z0700" => "Z".into(),
            "-07:00" => "+00:00".into(),
            "-0700" => "+0000".into(),
            "-07" => "+00".into(),
            "002" => format!("{:03}", civil.year_day),
            "01" => format!("{:02}", civil.month),
            "02" => format!("{:02}", civil.day),
            "03" => format!("{hour12:02}"),
            "04" => format!("{:02}", civil.minute),
            "05" => format!("{:02}", civil.second),
            "06" => format!("{:02}", civil.year.rem_euclid(100)),
            "15" => format!("{:02}", civil.hour),
            "PM" => half.into(),
            "pm" => half.to_lowercase(),
            "_2" => format!("{:2}", civil.day),
            "1" => civil.month.to_string(),
            "2" => civil.day.to_string(),
            "3" => hour12.to_string(),
            "4" => civil.minute.to_string(),
            _ => civil.second.to_string(),
        };
        out.push_str(&text);
    }

    /// `.000` or `.999` of a second: bytes taken, 0 when it is none.
    fn fraction(self, out: &mut String, rest: &str) -> usize {
        let Some(after) = rest.strip_prefix(['.', ',']) else { return 0 };
        let Some(kind) = after.chars().next().filter(|c| matches!(c, '0' | '9')) else { return 0 };
        let count = after.chars().take_while(|c| *c == kind).count();
        if count > 9 || after.chars().nth(count).is_some_and(|c| c.is_ascii_digit()) {
            return 0;
        }
        let nanos = format!("{:09}", self.nanos);
        let digits = nanos.get(..count).unwrap_or_default();
        let digits = if kind == '9' { digits.trim_end_matches('0') } else { digits };
        if !digits.is_empty() {
            out.extend(rest.chars().take(1));
            out.push_str(digits);
        }
        1 + count
    }
}

/// The elements of a layout, longer before shorter.
const ELEMENTS: [&str; 27] = [
    "January", "Jan", "Monday", "Mon", "2006", "MST", "Z07:00", "Z0700", "-07:00", "-0700", "-07",
    "002", "01", "02", "03", "04", "05", "06", "15", "PM", "pm", "_2", "1", "2", "3", "4", "5",
];

impl fmt::Display for Time {
    /// As Go prints a time, without the reading of the monotonic clock.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format("2006-01-02 15:04:05.999999999 -0700 MST"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_read_as_go_reads_them() {
        let time = Time { unix: 1_136_214_245, nanos: 120_000_000 };
        for (layout, want) in [
            ("Mon Jan _2 15:04:05 2006", "Mon Jan  2 15:04:05 2006"),
            ("2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05Z"),
            ("Jan 2, 2006 at 3:04pm (MST)", "Jan 2, 2006 at 3:04pm (UTC)"),
            ("02/01/06 03:04:5 PM -07", "02/01/06 03:04:5 PM +00"),
            ("15:04:05.000", "15:04:05.120"),
            ("15:04:05.999", "15:04:05.12"),
            ("002 nothing else", "002 nothing else"),
        ] {
            assert_eq!(time.format(layout), want, "{layout}");
        }
        assert_eq!(time.to_string(), "2006-01-02 15:04:05.12 +0000 UTC");
    }

    #[test]
    fn dates_are_added_as_go_does_it() {
        let time = |unix| Time { unix, nanos: 5 };
        // 2024-01-31 12:00
        let start = time(1_706_702_400);
        for (date, want) in [
            ((0, 1, 0), "2024-03-02"),
            ((1, 1, 0), "2025-03-03"),
            ((0, -2, 0), "2023-12-01"),
            ((0, 0, 30), "2024-03-01"),
            ((-1, 0, -31), "2022-12-31"),
            ((0, 11, 0), "2024-12-31"),
        ] {
            let got = start.plus_date(date.0, date.1, date.2);
            assert_eq!(got.format("2006-01-02 15:04"), format!("{want} 12:00"), "{date:?}");
        }
        assert_eq!(start.plus(-6), Time { unix: 1_706_702_399, nanos: 999_999_999 });
        assert_eq!(start.truncated(3_600_000_000_000), Time { unix: 1_706_702_400, nanos: 0 });
        assert_eq!(
            start.truncated(7 * 86_400_000_000_000).format("Mon 2006-01-02"),
            "Mon 2024-01-29"
        );
        assert_eq!(start.since_1970(1_000_000), 1_706_702_400_000);
    }

    #[test]
    fn the_calendar_knows_leap_days() {
        for (unix, year, month, day, year_day) in [
            (0, 1970, 1, 1, 1),
            (951_782_400, 2000, 2, 29, 60),
            (951_868_800, 2000, 3, 1, 61),
            (1_709_164_800, 2024, 2, 29, 60),
            (1_735_603_200, 2024, 12, 31, 366),
            (4_107_542_400, 2100, 3, 1, 60),
        ] {
            let civil = Time { unix, nanos: 0 }.civil();
            let got = (civil.year, civil.month, civil.day, civil.year_day);
            assert_eq!(got, (year, month, day, year_day), "{unix}");
        }
    }
}
