//! Reading a policy's TOML by hand: each table has known fields, each field a type, and what is refused says in which
//! line (PROTOCOL.md 16). Deriving isn't strict enough: a derived struct also takes an array. Not here: what the fields
//! mean (`read`).

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::{Datetime, Offset};

use super::PolicyError;
use crate::escape::escape;
use crate::scalar::{LATEST_TIME, Name, TEXT_BYTES, Text, Time};

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// The text, to find lines in it.
#[derive(Clone, Copy)]
pub(super) struct Source<'i>(pub(super) &'i str);

impl<'i> Source<'i> {
    /// The table of the whole text.
    pub(super) fn parse(self) -> Result<Spanned<DeTable<'i>>, PolicyError> {
        DeTable::parse(self.0).map_err(|error| {
            let words: Vec<&str> = error.message().lines().collect();
            self.refuse(error.span().unwrap_or(0..0), words.join(", "))
        })
    }

    /// Counted from 1.
    pub(super) fn line(self, at: usize) -> usize {
        let before = self.0.as_bytes().iter().take(at);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    /// Escaped, since the text may be anybody's and the error goes to a terminal.
    pub(super) fn refuse(self, at: Range<usize>, problem: impl AsRef<str>) -> PolicyError {
        PolicyError::Refused {
            line: self.line(at.start),
            problem: escape(problem.as_ref()),
        }
    }

    fn wanted<T>(self, value: &Value<'_>, field: &str, form: &str) -> Result<T, PolicyError> {
        Err(self.refuse(value.span(), format!("`{field}` must be {form}")))
    }

    pub(super) fn string<'v>(self, value: &'v Value<'_>, field: &str) -> Result<&'v str, PolicyError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.as_ref()),
            _ => self.wanted(value, field, "a string in quotes"),
        }
    }

    pub(super) fn boolean(self, value: &Value<'_>, field: &str) -> Result<bool, PolicyError> {
        match value.get_ref() {
            DeValue::Boolean(yes) => Ok(*yes),
            _ => self.wanted(value, field, "true or false"),
        }
    }

    /// A whole number from 1 to `most`.
    pub(super) fn number(self, value: &Value<'_>, field: &str, most: u64) -> Result<u64, PolicyError> {
        let number = match value.get_ref() {
            DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
            _ => None,
        };
        match number {
            Some(number) if (1..=most).contains(&number) => Ok(number),
            _ => self.wanted(value, field, &format!("a whole number from 1 to {most}")),
        }
    }

    /// A list with something in it: an empty one would read as "nobody" to one and "anybody" to another.
    pub(super) fn list<'v, 'd>(self, value: &'v Value<'d>, field: &str) -> Result<&'v [Value<'d>], PolicyError> {
        match value.get_ref() {
            DeValue::Array(list) if list.is_empty() => {
                self.wanted(value, field, "a list that isn't empty: leave the field out instead")
            }
            DeValue::Array(list) => Ok(list),
            _ => self.wanted(value, field, "a list in square brackets"),
        }
    }

    pub(super) fn table<'v, 'd>(self, value: &'v Value<'d>, field: &str) -> Result<&'v DeTable<'d>, PolicyError> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => self.wanted(value, field, "a table"),
        }
    }

    pub(super) fn name(self, value: &Value<'_>, field: &str) -> Result<Name, PolicyError> {
        let text = self.string(value, field)?;
        text.parse()
            .map_err(|error| self.refuse(value.span(), format!("`{field}`: {text} is {error}")))
    }

    pub(super) fn text(self, value: &Value<'_>, field: &str) -> Result<Text, PolicyError> {
        let text = self.string(value, field)?;
        Text::new(text).map_err(|_| {
            self.refuse(
                value.span(),
                format!("`{field}` holds a text longer than {TEXT_BYTES} bytes"),
            )
        })
    }

    /// Each of a list, as a set of plain strings.
    pub(super) fn set(
        self,
        value: &Value<'_>,
        field: &str,
        each: impl Fn(&Value<'_>) -> Result<String, PolicyError>,
    ) -> Result<BTreeSet<String>, PolicyError> {
        self.list(value, field)?.iter().map(each).collect()
    }

    /// A span in milliseconds.
    pub(super) fn span(self, value: &Value<'_>, field: &str) -> Result<u64, PolicyError> {
        match span_ms(self.string(value, field)?) {
            Some(span) => Ok(span),
            None => self.wanted(
                value,
                field,
                "a whole number followed by s, m, h or d, from \"1s\" to \"366d\"",
            ),
        }
    }

    /// An offset date-time; what is finer than a millisecond is cut.
    pub(super) fn time(self, value: &Value<'_>, field: &str) -> Result<Time, PolicyError> {
        let time = match value.get_ref() {
            DeValue::Datetime(datetime) => time_of(datetime),
            _ => None,
        };
        match time {
            Some(time) => Ok(time),
            None => self.wanted(
                value,
                field,
                "a date, a time and an offset without quotes, from 1970 on, as 2027-01-01T00:00:00Z",
            ),
        }
    }
}

/// One table, whose fields are all known.
pub(super) struct Fields<'v, 'd> {
    table: &'v DeTable<'d>,
}

impl<'v, 'd> Fields<'v, 'd> {
    pub(super) fn of(
        source: Source<'_>,
        table: &'v DeTable<'d>,
        place: &str,
        known: &[&str],
    ) -> Result<Self, PolicyError> {
        let unknown = table.keys().find(|key| !known.contains(&key.get_ref().as_ref()));
        match unknown {
            None => Ok(Self { table }),
            Some(key) => Err(source.refuse(
                key.span(),
                format!(
                    "unknown field `{}` in {place}; known are {}",
                    key.get_ref(),
                    known.join(", ")
                ),
            )),
        }
    }

    pub(super) fn find(&self, field: &str) -> Option<&'v Value<'d>> {
        let mut entries = self.table.iter();
        entries.find(|(key, _)| key.get_ref() == field).map(|(_, value)| value)
    }
}

const MOST_SPAN_MS: u64 = 366 * 24 * 60 * 60 * 1000;

fn span_ms(text: &str) -> Option<u64> {
    let units = [('s', 1000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000)];
    let (digits, unit) = units
        .into_iter()
        .find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)))?;
    // `parse` alone would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let span = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (1000..=MOST_SPAN_MS).contains(&span).then_some(span)
}

fn time_of(datetime: &Datetime) -> Option<Time> {
    let (date, time) = (datetime.date?, datetime.time?);
    let offset_minutes = match datetime.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    // TOML 1.1 lets the seconds out, TOML 1.0 doesn't; a leap second is no time that a clock of ours says.
    let second = time.second.filter(|second| *second < 60)?;
    let nanosecond = time.nanosecond.unwrap_or(0);
    let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day))?;
    let minutes = (days * 24 + i64::from(time.hour)) * 60 + i64::from(time.minute) - offset_minutes;
    let millis = (minutes * 60 + i64::from(second)) * 1000 + i64::from(nanosecond / 1_000_000);
    let millis = u64::try_from(millis).ok().filter(|millis| *millis <= LATEST_TIME)?;
    Time::from_millis(millis).ok()
}

/// The days from 1970-01-01 to this Gregorian date, if there is such a date. Years are counted from March, so that the
/// leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let month_days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=month_days).contains(&day) {
        return None;
    }
    let march_year = if month <= 2 { year - 1 } else { year };
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let leap_days = march_year.div_euclid(4) - march_year.div_euclid(100) + march_year.div_euclid(400);
    Some(march_year * 365 + leap_days + day_of_year - 719_468)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_span_is_a_second_to_a_year() {
        let spans = [
            ("1s", 1000),
            ("10m", 600_000),
            ("24h", 86_400_000),
            ("366d", MOST_SPAN_MS),
        ];
        for (text, millis) in spans {
            assert_eq!(span_ms(text), Some(millis), "{text}");
        }
        for bad in [
            "",
            "s",
            "0s",
            "367d",
            "+1s",
            "-1s",
            "1",
            "1w",
            "1 s",
            "1.5h",
            "99999999999999999999d",
            "1ms",
            "1S",
        ] {
            assert_eq!(span_ms(bad), None, "{bad}");
        }
    }

    #[test]
    fn dates_are_counted_as_the_calendar_does() {
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
        assert_eq!(days_since_1970(2000, 2, 29), Some(11_016));
        assert_eq!(days_since_1970(2027, 1, 1), Some(20_819));
        assert_eq!(days_since_1970(1969, 12, 31), Some(-1));
        for (year, month, day) in [
            (2023, 2, 29),
            (2100, 2, 29),
            (2024, 4, 31),
            (2024, 13, 1),
            (2024, 0, 1),
            (2024, 1, 0),
        ] {
            assert_eq!(days_since_1970(year, month, day), None);
        }
        let all = (1970..2101).flat_map(|year| {
            (1..=12).flat_map(move |month| (1..=31).filter_map(move |day| days_since_1970(year, month, day)))
        });
        assert!(all.eq(0..47_847), "every day follows the one before");
    }

    #[test]
    fn a_time_has_an_offset_and_seconds() {
        let time = |text: &str| time_of(&text.parse().unwrap()).map(Time::millis);
        assert_eq!(time("2027-01-01T00:00:00Z"), Some(1_798_761_600_000));
        assert_eq!(time("2027-01-01T01:00:00+01:00"), Some(1_798_761_600_000));
        assert_eq!(time("2027-01-01T00:00:00.1239Z"), Some(1_798_761_600_123));
        for bad in [
            "2027-01-01T00:00:00",
            "2027-01-01",
            "00:00:00",
            "1969-12-31T23:59:59Z",
            "2027-01-01T00:00Z",
        ] {
            assert_eq!(bad.parse().ok().and_then(|datetime| time_of(&datetime)), None, "{bad}");
        }
    }
}
