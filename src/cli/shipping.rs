//! What `import` and `ship` share: positions, rejects and a courier from their settings.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::upstream::{Compression, ShipAck, Upstream};
use crate::ship::client::{Client, ClientSettings, Coding};
use crate::ship::deliver::Courier;
use crate::ship::pipeline::Pipeline;
use crate::ship::positions::Positions;
use crate::ship::rejects::Rejects;
use crate::ship::status::{Status, get};

/// The time, in microseconds since 1970.
pub(super) fn now_us() -> i64 {
    clock::now().0
}

/// Most bytes of a line.
pub(super) fn line_bytes_max(upstream: &Upstream) -> usize {
    usize::try_from(upstream.line_bytes_max.as_u64()).unwrap_or(usize::MAX / 2)
}

/// Opens positions and rejects, and makes what delivers.
pub(super) fn pipeline(
    upstream: &Upstream,
    state_dir: &Path,
    rejects: &Path,
    status: &Arc<Status>,
    is_patient: bool,
    stop: &CancellationToken,
) -> Result<Pipeline> {
    let client = Client::new(&ClientSettings {
        url: &upstream.url,
        key: upstream.api_key.0.expose(),
        tenant: upstream.tenant.as_deref(),
        ca: upstream.tls_ca.as_deref(),
    })?;
    let mut positions = Positions::open(state_dir)?;
    let rejects = std::path::absolute(rejects)
        .with_context(|| format!("cannot tell where {} is", rejects.display()))?;
    let known = (positions.rejects_path == rejects).then_some(positions.rejects_bytes);
    let (rejects, bytes) = Rejects::open(rejects, known)?;
    positions.rejects_path = rejects.path().to_owned();
    positions.rejects_bytes = bytes;
    positions.snapshot().write()?;
    let coding = match upstream.compression {
        Compression::Auto if client.is_local() => Coding::Identity,
        Compression::Auto | Compression::Zstd => Coding::Zstd,
        Compression::Gzip => Coding::Gzip,
        Compression::None => Coding::Identity,
    };
    let courier = Courier {
        client,
        status: Arc::clone(status),
        query: match upstream.ack {
            ShipAck::Durable => "ack=durable",
            ShipAck::Committed => "ack=committed",
        },
        coding,
        is_patient,
        stop: stop.clone(),
    };
    Ok(Pipeline {
        courier: Arc::new(courier),
        positions,
        rejects,
        now_us,
    })
}

/// What was done, as JSON.
pub(super) fn report(status: &Status, rejects: &Path, ack: ShipAck) -> Value {
    let mut report = json!({
        "files": get(&status.files),
        "lines": get(&status.lines),
        "accepted": get(&status.accepted),
        "rejected": get(&status.rejected),
        "rejects": rejects.display().to_string(),
        "posts": get(&status.posts),
        "retries": get(&status.retries),
    });
    if ack == ShipAck::Committed {
        report["duplicates"] = get(&status.duplicates).into();
        report["quarantined"] = get(&status.quarantined).into();
    }
    report
}
