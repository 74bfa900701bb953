//! Secrets: given themselves, or in a file that is read again whenever the secret is needed.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::renewal::Stamp;
use crate::value::Value;

/// Maximum size of a file with a secret, in bytes.
const LIMIT: u64 = 64 << 10;

/// A secret: given itself, or in a file, which may be replaced while the process runs.
#[derive(Clone)]
pub struct Secret<T>(Source<T>);

#[derive(Clone)]
enum Source<T> {
    Value(T),
    File(PathBuf),
}

/// Why a secret cannot be read now. It says nothing of the secret.
#[derive(Debug, Error)]
#[error("reading {}: {reason}", .file.display())]
pub struct SecretError {
    file: PathBuf,
    reason: String,
}

impl<T: Value + Clone> Secret<T> {
    /// The secret as it is now.
    ///
    /// # Errors
    /// Its file cannot be read, or what is in it makes no sense.
    pub fn get(&self) -> Result<T, SecretError> {
        match &self.0 {
            Source::Value(value) => Ok(value.clone()),
            Source::File(file) => T::parse_file(file).map_err(|reason| SecretError {
                file: file.clone(),
                reason,
            }),
        }
    }

    /// Whether it is in a file, and so may change.
    #[must_use]
    pub fn may_change(&self) -> bool {
        self.file().is_some()
    }

    /// Tells whether [`Self::get`] would be another one.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp::of(self.file())
    }

    fn file(&self) -> Option<&Path> {
        match &self.0 {
            Source::Value(_) => None,
            Source::File(file) => Some(file),
        }
    }
}

impl<T: Value> Value for Secret<T> {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        T::parse(raw).map(Source::Value).map(Self)
    }

    fn parse_file(file: &Path) -> Result<Self, String> {
        T::parse_file(file)?;
        Ok(Self(Source::File(file.to_owned())))
    }

    fn show(&self) -> String {
        match &self.0 {
            Source::Value(value) => value.show(),
            Source::File(file) => format!("file:{}", file.display()),
        }
    }
}

impl<T: Value> fmt::Debug for Secret<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.show())
    }
}

/// The text in `file`, without the line end at its end, if there is one.
pub(crate) fn read(file: &Path) -> Result<String, String> {
    let text = read_text(file).map_err(|error| error.to_string())?;
    let line = text.strip_suffix('\n');
    let line = line.map(|line| line.strip_suffix('\r').unwrap_or(line));
    let text = line.unwrap_or(&text);
    if text.is_empty() {
        return Err("the file is empty".to_owned());
    }
    Ok(text.to_owned())
}

fn read_text(file: &Path) -> io::Result<String> {
    // A pipe would give its text once only, and might be waited for.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    File::open(file)?.take(LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(io::Error::other("larger than 64KiB"));
    }
    String::from_utf8(text).map_err(|_| io::Error::other("not valid UTF-8"))
}

/// A name, such as one to log in with; empty if none is given.
#[derive(Clone, Debug)]
pub struct Name(String);

impl Name {
    /// The name, if there is one.
    #[must_use]
    pub fn given(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|name| !name.is_empty())
    }
}

impl Value for Name {
    fn parse(raw: &str) -> Result<Self, String> {
        Ok(Self(raw.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A password, of any characters; empty if none is given.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// The password, if there is one.
    #[must_use]
    pub fn given(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|password| !password.is_empty())
    }
}

impl Value for Password {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        Ok(Self(raw.to_owned()))
    }

    fn show(&self) -> String {
        self.given().map_or("", |_| "***").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// What is read from a file with these bytes.
    fn written(bytes: &[u8]) -> Result<String, String> {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, bytes).unwrap();
        read(&file)
    }

    #[test]
    fn one_newline_at_the_end_is_no_part_of_a_secret() {
        for text in ["word", "word\n", "word\r\n"] {
            assert_eq!(written(text.as_bytes()).as_deref(), Ok("word"), "{text:?}");
        }
        for (text, secret) in [
            (" p\n@ss \n\n", " p\n@ss \n"),
            ("word\r", "word\r"),
            ("word\r\r\n", "word\r"),
            ("word\n\r", "word\n\r"),
            ("\t word \u{a0}\r\n", "\t word \u{a0}"),
            (" \n", " "),
        ] {
            assert_eq!(written(text.as_bytes()).as_deref(), Ok(secret), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_holds_no_secret_is_refused() {
        for bytes in [&b""[..], b"\n", b"\r\n"] {
            assert_eq!(written(bytes).unwrap_err(), "the file is empty");
        }
        assert_eq!(written(b"hidden\xff").unwrap_err(), "not valid UTF-8");
        let large = vec![b'x'; (LIMIT + 1).try_into().unwrap()];
        assert_eq!(written(&large).unwrap_err(), "larger than 64KiB");
        assert_eq!(written(&large[1..]).unwrap().len(), large.len() - 1);
        let folder = TempDir::new().unwrap();
        assert_eq!(read(folder.path()).unwrap_err(), "not a regular file");
        assert!(read(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_file_is_read_again_each_time() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "first\n").unwrap();
        let secret = Secret::<Password>::parse_file(&file).unwrap();
        assert_eq!(secret.get().unwrap().given(), Some("first"));
        fs::write(&file, "second").unwrap();
        assert_eq!(secret.get().unwrap().given(), Some("second"));
        fs::write(&file, "").unwrap();
        let error = secret.get().map(drop).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("reading {}: the file is empty", file.display())
        );
        assert_eq!(format!("{secret:?}"), format!("file:{}", file.display()));
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let secret = Secret::<Password>::parse("hidden-word").unwrap();
        assert_eq!(format!("{secret:?} {}", secret.show()), "*** ***");
        let none = Secret::<Password>::parse("").unwrap();
        assert_eq!(
            (none.show().as_str(), none.get().unwrap().given()),
            ("", None)
        );
    }
}
