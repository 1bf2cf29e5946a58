//! The format of the key cache file: a header line, then JSON.
//!
//! The header has a version and a checksum of the JSON, so that the file of another version is
//! distinguished from a damaged one. Pure; knows nothing of files and of their maximum age.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::tenants::key::{ApiKeyHasher, KeyHash};
use crate::tenants::role::Roles;
use crate::tenants::settings::{KeySettings, TenantSettings};
use crate::tenants::snapshot::{Key, KeyRow, Snapshot, Tenant, TenantStatus};

const NAME: &str = "recsys-ingest keys";
const VERSION: &str = "1";

/// The JSON of the file. Its keys are made one at a time when it is written: there may be a hundred
/// thousand.
#[derive(Debug, Serialize, Deserialize)]
struct Document<Keys> {
    confirmed_at_us: i64,
    tenants: Vec<TenantEntry>,
    keys: Keys,
}

/// The keys of a snapshot, which are written as entries.
struct Keys<'a>(Vec<(KeyHash, &'a Key)>);

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(hash, key)| {
            KeyEntry {
                id: key.id,
                tenant_id: key.tenant.id,
                key_hash: hash.to_hex(),
                roles: key
                    .roles
                    .iter()
                    .map(|role| role.name().to_owned())
                    .collect(),
                expires_at_us: key.expires_at_us,
                revoked: key.revoked,
                settings: key.settings.as_deref().cloned(),
            }
        }))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct TenantEntry {
    id: Uuid,
    external_id: String,
    status: String,
    #[serde(default, skip_serializing_if = "is_default")]
    settings: TenantSettings,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeyEntry {
    id: Uuid,
    tenant_id: Uuid,
    key_hash: String,
    roles: Vec<String>,
    expires_at_us: Option<i64>,
    revoked: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings: Option<KeySettings>,
}

fn is_default(settings: &TenantSettings) -> bool {
    *settings == TenantSettings::default()
}

/// Writes a snapshot. The same snapshot gives the same bytes.
///
/// The checksum stands before the JSON, so the JSON is made twice: to keep it takes more memory than
/// the snapshot.
pub(crate) fn write(
    snapshot: &Snapshot,
    confirmed_at_us: i64,
    hasher: &ApiKeyHasher,
    to: impl Write,
) -> io::Result<()> {
    let tenants = snapshot.each_tenant().map(|tenant| TenantEntry {
        id: tenant.id,
        external_id: tenant.external_id.clone(),
        status: tenant.status.name().to_owned(),
        settings: tenant.settings.clone(),
    });
    let mut document = Document {
        confirmed_at_us,
        tenants: tenants.collect(),
        keys: Keys(snapshot.keys_by_id()),
    };
    document.tenants.sort_unstable_by_key(|tenant| tenant.id);
    let mut seal = BufWriter::new(hasher.seal());
    serde_json::to_writer(&mut seal, &document)?;
    let seal = seal.into_inner()?.into_hex();
    let mut to = BufWriter::new(to);
    writeln!(to, "{NAME} {VERSION} {seal}")?;
    serde_json::to_writer(&mut to, &document)?;
    to.flush()
}

/// Decodes the snapshot and the time of its last confirmation, in µs since 1970.
pub(crate) fn decode(bytes: &[u8], hasher: &ApiKeyHasher) -> Result<(Snapshot, i64)> {
    let rest = bytes
        .strip_prefix(NAME.as_bytes())
        .and_then(|rest| rest.strip_prefix(b" "))
        .context("is not a copy of API keys")?;
    let end = rest.iter().position(|&byte| byte == b'\n');
    let (line, json) = end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + 1..]));
    let line = String::from_utf8_lossy(line);
    let (version, seal) = line.split_once(' ').unwrap_or((&line, ""));
    if version != VERSION {
        bail!("has version {version}, and this program reads version {VERSION}");
    }
    ensure!(
        hasher.has_sealed(json, seal),
        "is damaged, or was made under another API_KEY_HASH_SECRET"
    );
    let document: Document<Vec<KeyEntry>> =
        serde_json::from_slice(json).context("is whole, but does not hold what it should")?;
    let tenants = document.tenants.into_iter().map(|tenant| Tenant {
        id: tenant.id,
        external_id: tenant.external_id,
        status: TenantStatus::from_name(&tenant.status),
        settings: tenant.settings,
    });
    let mut snapshot = Snapshot::new(tenants);
    for key in &document.keys {
        snapshot.add_key(&KeyRow {
            id: key.id,
            tenant_id: key.tenant_id,
            key_hash: &key.key_hash,
            roles: Roles::from_names(key.roles.iter().map(String::as_str)),
            expires_at_us: key.expires_at_us,
            revoked: key.revoked,
            settings: key.settings.clone().map(Arc::new),
        });
    }
    Ok((snapshot, document.confirmed_at_us))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenants::role::Role;

    const AT_US: i64 = 1_790_000_000_000_000;

    fn hasher() -> ApiKeyHasher {
        ApiKeyHasher::new(b"pepper")
    }

    fn snapshot() -> Snapshot {
        let statuses = [
            TenantStatus::Active,
            TenantStatus::Suspended,
            TenantStatus::Deleted,
        ];
        let tenants = (1..).zip(statuses).map(|(n, status)| Tenant {
            id: Uuid::from_u128(n),
            external_id: format!("tenant \"{n}\"\n"),
            status,
            settings: match n {
                1 => serde_json::from_str(r#"{"surfaces":["home"],"event_names":{"a":"view"}}"#)
                    .unwrap(),
                _ => TenantSettings::default(),
            },
        });
        let mut snapshot = Snapshot::new(tenants);
        for n in 1..=3 {
            snapshot.add_key(&KeyRow {
                id: Uuid::from_u128(100 + n),
                tenant_id: Uuid::from_u128(n),
                key_hash: &hasher().hash(&format!("secret {n}")).to_hex(),
                roles: Role::ALL.into_iter().take(n as usize * 2).collect(),
                expires_at_us: (n > 1).then_some(i64::MAX),
                revoked: n == 3,
                settings: (n == 2).then(|| {
                    let text = r#"{"origins":["https://shop.example"]}"#;
                    Arc::new(serde_json::from_str(text).unwrap())
                }),
            });
        }
        snapshot
    }

    fn written(snapshot: &Snapshot) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(snapshot, AT_US, &hasher(), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let bytes = written(&snapshot());
        assert_eq!(decode(&bytes, &hasher()).unwrap(), (snapshot(), AT_US));
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            !text.contains("secret") && !text.contains("pepper"),
            "{text}"
        );
    }

    #[test]
    fn a_file_of_version_1_stays_readable() {
        let file = concat!(
            "recsys-ingest keys 1 ",
            "81cde20b9834d226d2222b1586d03e5794913878dd3fd4b861fb116fc6921eb7\n",
            r#"{"confirmed_at_us":1790000000000000,"tenants":[{"id":"00000000-0000-0000-0000-000000000001","#,
            r#""external_id":"demo","status":"active"}],"keys":[{"id":"00000000-0000-0000-0000-000000000065","#,
            r#""tenant_id":"00000000-0000-0000-0000-000000000001","key_hash":"#,
            r#""804e6d854739162fdea0d455b3aafe67f40d2919406186a27be601596ac6d306","#,
            r#""roles":["ingest"],"expires_at_us":null,"revoked":false}]}"#,
        );
        let (snapshot, confirmed_at_us) = decode(file.as_bytes(), &hasher()).unwrap();
        assert_eq!(confirmed_at_us, AT_US);
        let caller = snapshot.lookup(hasher().hash("secret"), AT_US).unwrap();
        assert_eq!(caller.tenant.external_id, "demo");
        let again = written(&snapshot);
        assert_eq!(String::from_utf8(again).unwrap(), file);
    }

    #[test]
    fn a_file_that_is_cut_or_changed_anywhere_is_refused() {
        let bytes = written(&snapshot());
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at], &hasher()).is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(decode(&changed, &hasher()).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn a_file_of_another_version_or_secret_says_so() {
        let bytes = written(&snapshot());
        let other = decode(&bytes, &ApiKeyHasher::new(b"another")).unwrap_err();
        assert!(other.to_string().contains("another API_KEY_HASH_SECRET"));
        let newer = String::from_utf8(bytes).unwrap();
        let newer = newer.replacen("keys 1 ", "keys 2 ", 1);
        let newer = decode(newer.as_bytes(), &hasher()).unwrap_err();
        assert!(newer.to_string().contains("version 2"), "{newer}");
    }
}
