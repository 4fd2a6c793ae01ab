//! Times in access logs, in whole seconds. Lines of one second are many: the last text is remembered.

/// Reads times.
#[derive(Debug, Default)]
pub(super) struct Clock {
    text: String,
    seconds: i64,
}

impl Clock {
    /// `22/Nov/2026:10:00:00 +0000`
    pub(super) fn common(&mut self, text: &str) -> Option<i64> {
        self.remembered(text, |text| {
            let bytes = text.as_bytes();
            let number = |from: usize, length: usize| digits(bytes.get(from..from + length)?);
            let month = MONTHS.iter().position(|name| Some(name.as_bytes()) == bytes.get(3..6))?;
            let month = i8::try_from(month).ok()? + 1;
            let zone = digits(bytes.get(22..24)?)? * 3600 + digits(bytes.get(24..26)?)? * 60;
            let zone = if bytes.get(21) == Some(&b'-') { -zone } else { zone };
            let date = jiff::civil::DateTime::new(
                i16::try_from(number(7, 4)?).ok()?,
                month,
                i8::try_from(number(0, 2)?).ok()?,
                i8::try_from(number(12, 2)?).ok()?,
                i8::try_from(number(15, 2)?).ok()?,
                i8::try_from(number(18, 2)?).ok()?,
                0,
            );
            let utc = date.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
            Some(utc.timestamp().as_second() - zone)
        })
    }

    /// `2026-11-22T10:00:00.500Z`, rounded down.
    pub(super) fn iso(&mut self, text: &str) -> Option<i64> {
        self.remembered(text, |text| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second))
    }

    fn remembered(&mut self, text: &str, read: impl FnOnce(&str) -> Option<i64>) -> Option<i64> {
        if self.text != text {
            self.seconds = read(text)?;
            text.clone_into(&mut self.text);
        }
        Some(self.seconds)
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_a_time_are_read() {
        let mut clock = Clock::default();
        assert_eq!(clock.common("22/Nov/2026:10:00:00 +0000"), Some(1_795_341_600));
        assert_eq!(clock.common("22/Nov/2026:12:00:00 +0200"), Some(1_795_341_600));
        assert_eq!(clock.common("22/Nov/2026:04:30:00 -0530"), Some(1_795_341_600));
        assert_eq!(clock.iso("2026-11-22T10:00:00.999Z"), Some(1_795_341_600));
        assert_eq!(clock.iso("2026-11-22T12:00:00+02:00"), Some(1_795_341_600));
        for odd in
            ["", "22/Foo/2026:10:00:00 +0000", "99/Nov/2026:10:00:00 +0000", "22/Nov/2026:10:00:00", "é/Nov"]
        {
            assert_eq!(clock.common(odd), None, "{odd}");
            assert_eq!(clock.iso(odd), None, "{odd}");
        }
    }
}
