//! Printing.

use std::io::{ErrorKind, Write};

/// Prints a text.
///
/// # Errors
/// The standard output cannot be written. That nobody reads it any more, as `head` does, is none.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A line about messages that did not come, or nothing.
#[must_use]
pub(crate) fn missing(missing: u32) -> String {
    if missing == 0 {
        return String::new();
    }
    format!("{missing} of them did not come: another consumer has them, or the management UI\n")
}

/// The text with its control characters escaped: reasons quote what somebody else chose, and nothing
/// in them is to move the cursor.
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}
