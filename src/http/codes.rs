//! The codes of problems: what each means, and what a caller does about it.
//!
//! The description and the page of codes are made from this table. A test compares it with the
//! source: a code that is not here fails it.

/// What a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Any request.
    Any,
    /// Requests to paths that monitoring does not use: they need a place among the connections.
    Placed,
    /// Posts of events.
    Events,
    /// Requests that need a key.
    Keyed,
    /// Paths that only a listener for operators serves.
    Operators,
}

/// A code of problems.
#[derive(Debug)]
pub(crate) struct ProblemKind {
    pub(crate) code: &'static str,
    pub(crate) status: u16,
    pub(crate) scope: Scope,
    /// What happened.
    pub(crate) meaning: &'static str,
    /// What the caller does about it.
    pub(crate) remedy: &'static str,
}

const fn kind(
    status: u16,
    code: &'static str,
    scope: Scope,
    meaning: &'static str,
    remedy: &'static str,
) -> ProblemKind {
    ProblemKind {
        code,
        status,
        scope,
        meaning,
        remedy,
    }
}

const AGAIN: &str = "Send the same events again after the seconds in Retry-After.";
const ELSEWHERE: &str =
    "Send the same events to another instance, or again after the seconds in Retry-After.";

/// All codes, by status.
#[rustfmt::skip]
pub(crate) const PROBLEM_KINDS: [ProblemKind; 44] = [
    kind(400, "malformed_body", Scope::Events, "The body is not JSON in the framing that its Content-Type names.", "Correct the body at the place that the detail names."),
    kind(400, "no_events", Scope::Events, "The body holds no event.", "Send at least one event, or nothing."),
    kind(400, "invalid_ack", Scope::Events, "?ack= has an unknown value.", "Use received, durable or committed."),
    kind(400, "invalid_format", Scope::Events, "?format= has an unknown value, or one that does not belong to this endpoint.", "Use a format that the detail names, or leave it out: formats are recognised."),
    kind(400, "invalid_query", Scope::Any, "The query has an unknown parameter, or one twice, or cannot be decoded.", "Use the parameters that the detail names, each once."),
    kind(400, "invalid_sent_at", Scope::Events, "sent_at in the envelope is not a time.", "Write it as RFC 3339 with an offset: 2026-05-01T12:00:00Z."),
    kind(400, "invalid_compression", Scope::Events, "The body is not what Content-Encoding says, is cut off, or inflates beyond what is sensible.", "Compress the whole body once, in the way that the header names."),
    kind(400, "body_incomplete", Scope::Events, "The connection ended before the body did, or its framing is wrong.", "Send the request again."),
    kind(400, "duplicate_field", Scope::Events, "A member of the envelope, or of a batch of messages, stands twice.", "Send it once."),
    kind(400, "unknown_field", Scope::Events, "The envelope has a member beside events and sent_at, and ?strict=true asks to refuse it.", "Leave the member out, or put it into the events."),
    kind(400, "invalid_host", Scope::Any, "The request has no Host header, more than one, or one that is no host.", "Send one Host header: the host of the URL."),
    kind(400, "https_required", Scope::Any, "The request came without TLS to a port for HTTPS.", "Use https:// in the URL."),
    kind(401, "missing_api_key", Scope::Keyed, "The request has no API key.", "Send it in X-API-Key, as Authorization: Bearer, as the user of Basic authentication, or as ?key=."),
    kind(401, "invalid_api_key", Scope::Keyed, "There is no such API key, or it was revoked or has expired.", "Use a valid key: recsys-ingest keys create makes one."),
    kind(403, "role_not_allowed", Scope::Keyed, "The key has no role that is allowed here.", "Use a key with one of the roles that the detail names."),
    kind(403, "unknown_tenant", Scope::Events, "There is no tenant as X-Org-Id names it.", "Correct the header, or create the tenant: recsys-ingest tenants create."),
    kind(403, "tenant_mismatch", Scope::Events, "The key may not write for the tenant in X-Org-Id.", "Leave the header out, or use a key of that tenant, or one with the role service."),
    kind(403, "tenant_not_active", Scope::Keyed, "The tenant is suspended or deleted.", "Keep the events until an operator has activated the tenant."),
    kind(403, "origin_not_allowed", Scope::Events, "The web page is of an origin that neither the key, nor its tenant, nor the service lists.", "Add the origin: recsys-ingest keys grant KEY --origin ORIGIN."),
    kind(403, "host_not_allowed", Scope::Any, "Only with dev: the request names a host that is not this machine's.", "Use http://localhost, or start dev with --allow-host."),
    kind(404, "not_found", Scope::Operators, "There is nothing at this path, or another listener serves it.", "Post events to /v1/exposures and /v1/interactions."),
    kind(405, "method_not_allowed", Scope::Any, "The path takes another method.", "Use a method that the header Allow names."),
    kind(408, "body_timeout", Scope::Events, "The body came too slowly, or stopped coming.", "Send it again, in smaller pieces if the line is slow."),
    kind(413, "body_too_large", Scope::Events, "The body is larger than one may be, or its rows are.", "Send fewer events in one request; events_that_fit says how many where it is known."),
    kind(413, "too_many_events", Scope::Events, "The body holds more events than one may.", "Send them in several requests."),
    kind(415, "unsupported_media_type", Scope::Events, "Content-Type names no framing that is taken.", "Use application/json, application/x-ndjson or text/plain."),
    kind(415, "unsupported_charset", Scope::Events, "The body, or its Content-Type, is in another encoding of text than UTF-8.", "Send UTF-8."),
    kind(415, "unsupported_encoding", Scope::Events, "Content-Encoding names no compression that is taken.", "Use gzip, deflate, zstd or br, once."),
    kind(422, "all_events_rejected", Scope::Events, "No event of the body is valid; rejected says why of each.", "Correct the events; sending them again as they are changes nothing."),
    kind(422, "some_events_rejected", Scope::Events, "With partial=false: some events of the body are not valid, and none was taken.", "Correct or leave out the events that rejected names, and send the body again."),
    kind(429, "rate_limited", Scope::Events, "The tenant, the key or the address has sent as much as its limit allows.", AGAIN),
    kind(500, "internal_error", Scope::Any, "The service made a mistake with this request.", "Send the same events again, each with its event_id and occurred_at: they may be stored or not."),
    kind(501, "unsupported_transfer_encoding", Scope::Any, "Transfer-Encoding is something else than chunked.", "Compress with Content-Encoding instead."),
    kind(503, "overloaded", Scope::Events, "The memory for events on their way is used up.", AGAIN),
    kind(503, "too_many_slow_bodies", Scope::Events, "Bodies under this key that have not arrived in full hold its share of the memory.", AGAIN),
    kind(503, "spool_full", Scope::Events, "The spool, the tenant's share of it, or the free space that is left to others on its disk, is used up.", AGAIN),
    kind(503, "disk_failed", Scope::Events, "The disk of the spool failed.", ELSEWHERE),
    kind(503, "log_away", Scope::Events, "The log between intake and writers (Kafka) does not acknowledge, has just lowered its limit on messages, or this instance takes no events.", "Send the same events again, each with its event_id and occurred_at: they may be stored or not."),
    kind(503, "disk_stalled", Scope::Events, "The disk of the spool does not answer.", "Send the same events again, each with its event_id and occurred_at: they may be stored or not."),
    kind(503, "keys_unavailable", Scope::Keyed, "The API keys cannot be read at the moment, so the key may be valid.", AGAIN),
    kind(503, "fenced_off", Scope::Events, "A later start on a copy of this instance's spool has taken over.", ELSEWHERE),
    kind(503, "too_many_connections", Scope::Placed, "No further connection can be served.", "Connect again after the seconds in Retry-After, and keep connections for several requests."),
    kind(503, "cannot_store", Scope::Events, "Events cannot be stored until an operator mends the database.", AGAIN),
    kind(503, "stopping", Scope::Events, "The instance is stopping.", ELSEWHERE),
];

/// A code in the answer to `committed`, for a row in quarantine.
pub(crate) const QUARANTINE_KINDS: [(&str, &str); 4] = [
    (
        "IN001",
        "More new partitions are needed than may be made in an hour. The event is stored as soon as one may be made.",
    ),
    (
        "IN002",
        "Postgres took the row without an error and did not store it: a trigger returned no row, or a rule left it out.",
    ),
    (
        "IN003",
        "The event came so late that what is kept of its table begins after it: partitions of its time were removed.",
    ),
    (
        "SQLSTATE",
        "Any other code is the one by which Postgres refused the row. An operator finds it with recsys-ingest quarantine.",
    ),
];

impl ProblemKind {
    /// Whether a request to a path with this scope may meet it.
    pub(crate) fn is_met_by(&self, scopes: &[Scope]) -> bool {
        scopes.contains(&self.scope)
    }
}
