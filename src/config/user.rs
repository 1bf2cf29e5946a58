//! Which user a command is about.

use std::path::PathBuf;

use clap::{ArgMatches, Args};

use super::parse;
use super::secret::{Secret, in_a_file, resolved};

/// How to give the salt to a command that does not always need it.
const HINT: &str = "--user-id is hashed with the salt of the service: set --exposure-hash-salt, EXPOSURE_HASH_SALT or EXPOSURE_HASH_SALT_FILE, or name the hash itself with --user-key";

/// A user of a tenant.
#[derive(Clone, Debug)]
pub struct User {
    /// The tenant, by external id or UUID.
    pub tenant: String,
    pub named: Named,
}

/// How the user is named.
#[derive(Clone, Debug)]
pub enum Named {
    /// A raw id, and the key of its hash.
    Id(String, Secret),
    /// The hash of the id.
    Key([u8; 32]),
}

#[derive(Args)]
#[group(skip)]
struct UserArguments {
    /// The tenant, by external id or UUID
    #[arg(long)]
    tenant: String,

    /// The user's id, or an anonymous id, as events name it
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "user_key",
        conflicts_with = "user_key"
    )]
    user_id: Option<String>,

    /// The hash of the id, as user_key has it: 64 hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = key)]
    user_key: Option<Key>,

    /// Key of the HMAC that replaces raw ids; only for --user-id
    #[arg(
        id = "user_salt",
        long = "exposure-hash-salt",
        env = "EXPOSURE_HASH_SALT",
        value_name = "SECRET",
        hide_env_values = true
    )]
    user_salt: Option<Secret>,

    /// A file that holds it; a line end at its end does not count
    #[arg(id = "user_salt_file", long = "exposure-hash-salt-file", env = "EXPOSURE_HASH_SALT_FILE", value_name = "FILE", value_parser = parse::path())]
    user_salt_file: Option<PathBuf>,
}

/// A hash, which is one value to the parser.
#[derive(Clone, Copy)]
struct Key([u8; 32]);

fn key(text: &str) -> Result<Key, String> {
    let text = text.trim();
    let digits = text.strip_prefix("\\x").unwrap_or(text);
    let mut key = [0; 32];
    match hex::decode_to_slice(digits, &mut key) {
        Ok(()) => Ok(Key(key)),
        Err(_) => Err("it has to be 64 hexadecimal digits".to_owned()),
    }
}

resolved!(User, UserArguments);

impl UserArguments {
    fn resolve(self, matches: &ArgMatches) -> Result<User, clap::Error> {
        let named = match (self.user_key, self.user_id) {
            (Some(Key(key)), _) => Named::Key(key),
            (None, id) => {
                let names = ("user_salt", "EXPOSURE_HASH_SALT");
                let salt = in_a_file(matches, names, self.user_salt, self.user_salt_file, HINT)?;
                Named::Id(id.unwrap_or_default(), salt)
            }
        };
        Ok(User {
            tenant: self.tenant,
            named,
        })
    }
}
