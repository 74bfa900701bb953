//! Settings: each is declared once, with its type, default and help, and comes from the environment or
//! from the flag of the same name (`OBJECT_TTL=30s`, `--object-ttl 30s`). The flag wins.
//!
//! A group of settings is declared with [`settings!`](crate::settings!); the documentation of a field
//! is what `--help` prints. Each number and duration has bounds within which the process can work.
//!
//! A secret can be given in a file instead, whose name the setting with `_FILE` at its end has:
//! `AMQP_PASSWORD_FILE=/run/secrets/amqp`. What is made of files is made again when they change ([`Renewal`]).

mod group;
mod load;
mod renewal;
mod secret;
mod spec;
#[cfg(test)]
mod tests;
mod value;
mod values;

pub use group::{Settings, once};
pub use load::{CommandLine, ConfigError, Loaded, load, parse};
pub use renewal::{Renewal, Stamp};
pub use secret::{Name, Password, Secret, SecretError};
pub use spec::{Bounds, Spec};
pub use value::{ByteSize, DurationOrZero, ENCODE, Ratio, Value, mask_password, parse_url};
pub use values::Values;
