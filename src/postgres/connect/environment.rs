//! libpq's environment variables: what a connection string leaves out.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The variables of libpq, and the home directory with its files. Holds a password, so it shows
/// nothing.
#[derive(Clone, Default)]
pub struct LibpqEnvironment {
    variables: BTreeMap<String, String>,
}

impl LibpqEnvironment {
    /// Keeps those of `variables` that libpq knows.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let is_known = |name: &str| name.starts_with("PG") || name == "HOME";
        Self {
            variables: variables
                .into_iter()
                .filter(|(name, value)| is_known(name) && !value.trim().is_empty())
                .collect(),
        }
    }

    /// A variable that is set and not blank. White space is part of a password alone.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?;
        Some(match name {
            "PGPASSWORD" => value,
            _ => value.trim(),
        })
    }

    /// A file or directory of the user's home directory.
    pub(crate) fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.get("HOME").map(|home| PathBuf::from(home).join(name))
    }
}

impl fmt::Debug for LibpqEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LibpqEnvironment(..)")
    }
}
