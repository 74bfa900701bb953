//! The types that settings can have.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::secret;

/// A type that a setting can have.
pub trait Value: Sized {
    /// Whether the value, or a part of it, must not be shown.
    const SECRET: bool = false;

    /// Reads the value as it is written in the environment or after a flag.
    ///
    /// # Errors
    /// Says what is wrong with `raw`.
    fn parse(raw: &str) -> Result<Self, String>;

    /// Reads the value from a file.
    ///
    /// # Errors
    /// Says why the file cannot be read, or what is wrong with the text in it, which is not shown.
    fn parse_file(file: &Path) -> Result<Self, String> {
        Self::parse(&secret::read(file)?)
    }

    /// The value as the start-up log shows it; secrets are masked.
    fn show(&self) -> String;
}

fn from_text<T: FromStr<Err: ToString>>(raw: &str) -> Result<T, String> {
    raw.trim()
        .parse()
        .map_err(|error: T::Err| error.to_string())
}

macro_rules! value_from_text {
    ($($Type:ty),*) => {$(
        impl Value for $Type {
            fn parse(raw: &str) -> Result<Self, String> {
                from_text(raw)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
value_from_text!(u64, NonZeroU16, NonZeroUsize, SocketAddr);

impl Value for bool {
    fn parse(raw: &str) -> Result<Self, String> {
        // OpenTelemetry's settings may also be written True or TRUE.
        from_text(&raw.to_lowercase())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Duration {
    fn parse(raw: &str) -> Result<Self, String> {
        match DurationOrZero::parse(raw)? {
            DurationOrZero(duration) if duration < Self::from_millis(1) => {
                Err("shorter than 1ms".to_owned())
            }
            DurationOrZero(duration) => Ok(duration),
        }
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

/// A duration that may be 0. A time-out or an interval may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationOrZero(pub Duration);

impl Value for DurationOrZero {
    fn parse(raw: &str) -> Result<Self, String> {
        humantime::parse_duration(raw.trim())
            .map(Self)
            .map_err(|error| format!("{error}; write it as 30s or 250ms"))
    }

    fn show(&self) -> String {
        humantime::format_duration(self.0).to_string()
    }
}

/// Advice for a URL whose parts are not where they were meant to be.
pub const ENCODE: &str = "if user or password have other characters than letters and digits, \
     percent-encode those (/ is %2F, ? is %3F, # is %23, @ is %40)";

/// Parses a URL that may hold a password. No error shows any part of it.
///
/// # Errors
/// `raw` is no URL, or has an `@` after its host, so that it is not the URL that was meant.
pub fn parse_url(raw: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(raw.trim()).map_err(|error| {
        if raw.contains('@') {
            format!("{error}; {ENCODE}")
        } else {
            error.to_string()
        }
    })?;
    if url[url::Position::BeforePath..].contains('@') {
        return Err(format!("an @ stands after the host; {ENCODE}"));
    }
    Ok(url)
}

impl Value for url::Url {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        let url = parse_url(raw)?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            _ => Err("it does not begin with http:// or https://".to_owned()),
        }
    }

    fn show(&self) -> String {
        mask_password(self)
    }
}

/// The URL with `***` in place of its password, which may stand before the host or in the query.
#[must_use]
pub fn mask_password(url: &url::Url) -> String {
    let mut masked = url.clone();
    if url.password().is_some() && masked.set_password(Some("***")).is_err() {
        return format!("{}://***", url.scheme());
    }
    if url
        .query()
        .is_some_and(|query| query.to_lowercase().contains("password"))
    {
        masked.set_query(Some("***"));
    }
    masked.to_string()
}

/// A number from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

impl Ratio {
    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Value for Ratio {
    fn parse(raw: &str) -> Result<Self, String> {
        let ratio: f64 = from_text(raw)?;
        if (0.0..=1.0).contains(&ratio) {
            Ok(Self(ratio))
        } else {
            Err("not from 0 to 1".to_owned())
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A number of bytes, written plain or with `KiB`, `MiB`, `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(usize);

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }
}

impl Value for ByteSize {
    fn parse(raw: &str) -> Result<Self, String> {
        let raw = raw.trim();
        let digits = raw.find(|c: char| !c.is_ascii_digit()).unwrap_or(raw.len());
        let unit = match raw[digits..].trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            unit => return Err(format!("{unit:?} is not B, KiB, MiB or GiB")),
        };
        let number: usize = from_text(&raw[..digits])?;
        number
            .checked_mul(unit)
            .map(Self)
            .ok_or_else(|| "too large".to_owned())
    }

    fn show(&self) -> String {
        match self.0 {
            n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{}MiB", n >> 20),
            n if n >= 1 << 10 && n % (1 << 10) == 0 => format!("{}KiB", n >> 10),
            n => n.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_masked() {
        let url = <url::Url as Value>::parse("http://user:secret@host/path").unwrap();
        assert_eq!(Value::show(&url), "http://user:***@host/path");
        let url = <url::Url as Value>::parse("http://host/path?a=b&password=secret").unwrap();
        assert_eq!(Value::show(&url), "http://host/path?***");
    }

    #[test]
    fn a_url_that_cannot_be_right_is_refused_and_not_shown() {
        for raw in [
            "http://user:2024/secret@host/",
            "http://user:2024?secret@host/",
            "http://user:20#secret@host/",
            "http://user:secret/word@host/",
            "http://user:secret@host:port/",
            "secret:secret@host",
        ] {
            let error = <url::Url as Value>::parse(raw).unwrap_err();
            assert!(!error.contains("secret"), "{raw}: {error}");
            assert!(error.contains("percent-encode"), "{raw}: {error}");
        }
    }

    #[test]
    fn a_time_out_of_0_is_refused_and_a_wait_of_0_is_not() {
        assert!(<Duration as Value>::parse("0s").is_err());
        assert!(<Duration as Value>::parse("999us").is_err());
        assert_eq!(
            <Duration as Value>::parse("1ms").unwrap(),
            Duration::from_millis(1)
        );
        assert_eq!(
            DurationOrZero::parse("0s").unwrap(),
            DurationOrZero(Duration::ZERO)
        );
    }

    #[test]
    fn sizes_are_read_and_shown_in_binary_units() {
        for (raw, bytes) in [("0", 0), ("17", 17), ("1KiB", 1 << 10), ("3 MiB", 3 << 20)] {
            assert_eq!(ByteSize::parse(raw).unwrap().bytes(), bytes, "{raw}");
        }
        assert_eq!(ByteSize::parse("2048KiB").unwrap().show(), "2MiB");
        for raw in ["", "KiB", "1MB", "-1", "99999999999GiB"] {
            assert!(ByteSize::parse(raw).is_err(), "{raw} was accepted");
        }
    }
}
