//! What the tests of this folder share: bodies decoded to rows as JSON.

use serde_json::Value;
use uuid::Uuid;

use super::body::framing::Framing;
use super::body::{Body, Limits};
use super::context::{Context, Tenants};
use super::decode::{DecodeError, RowLimits, decode_within};
use super::format::Format;
use super::identity::Pseudonymizer;
use super::rejection::Code;
use super::row_json::row_to_json;
use super::table::Table;
use super::time::Micros;

/// The tenant of the caller, also known as `demo`.
pub(super) const DEMO: Uuid = Uuid::from_u128(0x11111111_1111_4111_8111_111111111111);
/// Another tenant, also known as `other`.
pub(super) const OTHER: Uuid = Uuid::from_u128(0x22222222_2222_4222_8222_222222222222);
/// When bodies arrive.
pub(super) const NOW: &str = "2026-05-24T10:00:00Z";
/// Most rows of a body.
pub(super) const ROWS_MAX: usize = 1000;

const DAY_US: i64 = 86_400_000_000;

struct Two;

impl Tenants for Two {
    fn resolve(&self, named: &str) -> Result<Uuid, Code> {
        [(DEMO, "demo"), (OTHER, "other")]
            .into_iter()
            .find(|(id, name)| *name == named || Uuid::try_parse(named) == Ok(*id))
            .map(|(id, _)| id)
            .ok_or(Code::UnknownTenant)
    }
}

/// What became of a body.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) rows: Vec<Value>,
    pub(super) row_index: Vec<(u32, u32)>,
    /// Code and field.
    pub(super) rejected: Vec<(&'static str, String)>,
    /// Code, field and count.
    pub(super) warnings: Vec<(&'static str, String, usize)>,
}

impl Told {
    /// The only rejection: code and field.
    pub(super) fn rejection(&self) -> Option<(&str, &str)> {
        match &self.rejected[..] {
            [] => None,
            [(code, field)] => Some((code, field)),
            more => panic!("{more:?}"),
        }
    }

    /// Codes and fields of the warnings.
    pub(super) fn warned(&self) -> Vec<(&str, &str)> {
        let warnings = self.warnings.iter();
        warnings.map(|(code, field, _)| (*code, &**field)).collect()
    }
}

/// Decodes a JSON body in the format that its events look like.
pub(super) fn decode(table: Table, body: &str) -> Told {
    decode_as(table, None, false, body).unwrap()
}

/// Decodes a JSON body in a format, strictly or not.
pub(super) fn decode_as(
    table: Table,
    format: Option<Format>,
    strict: bool,
    body: &str,
) -> Result<Told, DecodeError> {
    let received_at = Micros::parse(NOW).unwrap();
    let pseudonymizer = Pseudonymizer::new(b"salt");
    let context = Context {
        table,
        format,
        tenant: DEMO,
        tenants: &Two,
        source: "ingest",
        is_public: false,
        pseudonymizer: &pseudonymizer,
        received_at,
        earliest: Micros(received_at.0 - 90 * DAY_US),
        latest: Micros(received_at.0 + DAY_US),
        items_max: 100,
        strict,
        new_event_id: &|| Uuid::from_u128(7),
        skew_ms: None,
    };
    let limits = Limits {
        events_max: 100,
        event_bytes_max: 1 << 20,
    };
    let body = Body::split(body.as_bytes(), Framing::Json, &limits).unwrap();
    let limits = RowLimits {
        bytes_max: usize::MAX,
        rows_max: ROWS_MAX,
        memory: &super::body::Unlimited,
    };
    let decoded = decode_within(&body, &context, limits)?;
    let row = |row| serde_json::from_str(&row_to_json(table, row).unwrap()).unwrap();
    let rejected = decoded.rejected.into_iter();
    let warnings = decoded.warnings.named().chain(decoded.warnings.others());
    Ok(Told {
        rows: decoded.rows.iter().map(row).collect(),
        row_index: decoded.row_index,
        rejected: rejected
            .map(|one| {
                let field = one.rejection.field.unwrap_or_default();
                (one.rejection.code.as_str(), field.into_owned())
            })
            .collect(),
        warnings: warnings
            .map(|one| (one.code.as_str(), one.field.clone(), one.count))
            .collect(),
    })
}
