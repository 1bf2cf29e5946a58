//! What an API key may do.
//!
//! A set of roles is one byte. Unknown names grant nothing and are ignored: the table is shared
//! with a suite that has other roles.
//!
//! Knows nothing of keys or tenants; the API decides what a role permits.

use std::fmt;

/// One use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Both kinds of event, for the key's own tenant.
    Ingest,
    /// Interactions only; safe in a browser.
    Publish,
    /// May name the tenant of each event: for recsys-service.
    Service,
    /// Reads the admin API.
    Viewer,
    /// Reads and writes the admin API.
    Operator,
    /// Everything in the admin API.
    Admin,
}

/// A set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Ingest,
        Self::Publish,
        Self::Service,
        Self::Viewer,
        Self::Operator,
        Self::Admin,
    ];

    /// The name in the database and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Publish => "publish",
            Self::Service => "service",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role with that name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.trim();
        Self::ALL
            .into_iter()
            .find(|role| role.name().eq_ignore_ascii_case(name))
    }

    fn bit(self) -> u8 {
        match self {
            Self::Ingest => 1,
            Self::Publish => 1 << 1,
            Self::Service => 1 << 2,
            Self::Viewer => 1 << 3,
            Self::Operator => 1 << 4,
            Self::Admin => 1 << 5,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Roles {
    /// The known roles among `names`.
    #[must_use]
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(Role::from_name).collect()
    }

    /// Whether `role` is in the set.
    #[must_use]
    pub fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// Whether at least one of `roles` is in the set.
    #[must_use]
    pub fn contains_any(self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.contains(*role))
    }

    /// Whether the set is `role` and nothing else.
    #[must_use]
    pub fn is_only(self, role: Role) -> bool {
        self.0 == role.bit()
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The roles in the set, in the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL
            .into_iter()
            .filter(move |role| self.contains(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |set, role| set | role.bit()))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_left_out_and_known_ones_kept() {
        let roles = Roles::from_names(["ingest", "superhero", " Viewer ", ""]);
        assert_eq!(
            roles.iter().collect::<Vec<_>>(),
            [Role::Ingest, Role::Viewer]
        );
        assert!(roles.contains_any(&[Role::Admin, Role::Viewer]));
        assert!(!roles.contains(Role::Service));
        assert!(Roles::from_names(["superhero"]).is_empty());
    }

    #[test]
    fn every_role_is_found_by_its_own_name() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
            assert_eq!(
                [role]
                    .into_iter()
                    .collect::<Roles>()
                    .iter()
                    .collect::<Vec<_>>(),
                [role]
            );
        }
    }
}
