//! Bodies and rows to measure with: realistic in size and shape, the same every time.

use anyhow::Context as _;
use jiff::Timestamp;
use uuid::Uuid;

use crate::generate::{Bodies, Plan, Settings, only};
use crate::service::{
    Body, Code, Context, Decoded, Format, Framing, Limits, Micros, Pseudonymizer, Rows, Table,
    Tenants, decode,
};

/// 2026-05-24T10:00:00Z.
pub const NOW: Micros = Micros(1_779_616_800_000_000);
const TENANT: Uuid = Uuid::from_u128(0x7e4a_0000_0000_4000_8000_0000_0000_0001);
/// Ten years, in microseconds: how old an event may be.
const HORIZON_US: i64 = 10 * 365 * 86_400_000_000;
/// As the service does by default.
const ITEMS_MAX: usize = 1000;

/// The text of a body of native events: a JSON array.
pub fn body(table: Table, events: usize) -> String {
    let events = u32::try_from(events).expect("a body has fewer events than a run");
    let plan = Plan::new(Settings {
        events,
        body_events: events..=events,
        mix: only(table),
        days: 1.0 / 24.0,
        until: Timestamp::from_microsecond(NOW.0).ok(),
        ..Settings::default()
    });
    let plan = plan.expect("native events go into both tables");
    let body = Bodies::new(&plan)
        .next()
        .expect("all events are in one body");
    String::from_utf8(body.bytes.into()).expect("JSON is UTF-8")
}

/// Splits and decodes a body of [`body`], as a request does.
pub fn decode_body(text: &str, table: Table, pseudonymizer: &Pseudonymizer) -> Decoded {
    let request = Request {
        table,
        format: Format::Native,
        framing: Framing::Json,
        tenant: TENANT,
        received_at: NOW,
    };
    let decoded = request.decode(text.as_bytes(), pseudonymizer);
    decoded.expect("the body is sound")
}

/// The rows of a body of this many events.
pub fn rows(table: Table, events: usize) -> Rows {
    let decoded = decode_body(&body(table, events), table, &Pseudonymizer::new(b"salt"));
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    decoded.rows
}

/// What decoding has to know of a request.
pub(crate) struct Request {
    pub(crate) table: Table,
    pub(crate) format: Format,
    pub(crate) framing: Framing,
    /// Of the key; also of every tenant that an event names.
    pub(crate) tenant: Uuid,
    pub(crate) received_at: Micros,
}

impl Tenants for Request {
    fn resolve(&self, _named: &str) -> Result<Uuid, Code> {
        Ok(self.tenant)
    }
}

impl Request {
    /// The rows of a body, made by the service's own decoder and encoder.
    pub(crate) fn decode(
        &self,
        body: &[u8],
        pseudonymizer: &Pseudonymizer,
    ) -> anyhow::Result<Decoded> {
        let limits = Limits {
            events_max: usize::MAX,
            event_bytes_max: usize::MAX,
        };
        let body = Body::split(body, self.framing, &limits).context("a body cannot be read")?;
        let context = Context {
            table: self.table,
            format: Some(self.format),
            tenant: self.tenant,
            tenants: self,
            // The role of the key that posts the same events.
            source: "ingest",
            is_public: false,
            pseudonymizer,
            received_at: self.received_at,
            earliest: Micros(self.received_at.0 - HORIZON_US),
            latest: Micros(i64::MAX),
            items_max: ITEMS_MAX,
            strict: false,
            new_event_id: &Uuid::now_v7,
            skew_ms: None,
        };
        Ok(decode(&body, &context))
    }
}
