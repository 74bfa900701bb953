//! The rights of the roles that work with the schema. None of them owns it.

use settings::Value;

use crate::schema::SchemaError;
use crate::store::Store;

/// What a role may do with the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// To store rows, as fetchers do.
    Store,
    /// To delete rows, and to set them right after the clock was set back, as janitors do.
    Delete,
    /// To read the rows that have not expired.
    Read,
}

impl Privileges {
    fn grant(self) -> &'static str {
        match self {
            Self::Store => "grant select, insert, update on objects to",
            Self::Delete => "grant select, update, delete on objects to",
            Self::Read => "grant select on live_objects to",
        }
    }
}

/// Name of a role of the database. Without a name there is no such role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role(String);

impl Role {
    /// The name as an identifier of a statement.
    fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl Value for Role {
    fn parse(raw: &str) -> Result<Self, String> {
        // PostgreSQL would cut a longer one off.
        const MAX: usize = 63;
        let name = raw.trim();
        if name.len() > MAX {
            return Err(format!("longer than {MAX} bytes"));
        }
        if name.contains('\0') {
            return Err("it has a NUL character".to_owned());
        }
        Ok(Self(name.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

impl Store {
    /// Grants `privileges` to `role`, if there is one. To grant them again changes nothing.
    ///
    /// # Errors
    /// There is no such role, or the role of this process may not grant; or the database does not answer.
    pub async fn grant(&self, role: &Role, privileges: Privileges) -> Result<(), SchemaError> {
        if role.0.is_empty() {
            return Ok(());
        }
        let statement = format!("{} {}", privileges.grant(), role.quoted());
        let granted = self.run(async |connection| connection.batch_execute(&statement).await);
        granted
            .await
            .map_err(|error| SchemaError::of_grant(error, &role.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_as_it_is_whatever_its_characters() {
        let role = Role::parse(r#" a "b"; drop table objects "#).unwrap();
        assert_eq!(role.quoted(), r#""a ""b""; drop table objects""#);
        assert!(Role::parse(&"a".repeat(64)).is_err());
    }
}
