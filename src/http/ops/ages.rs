//! How far the lanes are behind: from the receipt of a row to its COMMIT.

use std::time::Duration;

use crate::accounts::status::LaneStatus;
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::http::app::App;

/// Age of the oldest row of a table that is not stored; `None` if there is none.
pub(in crate::http) fn oldest_unstored(app: &App, table: Table, now: Micros) -> Option<Duration> {
    let log = app.admission.log();
    let age = |lane: &LaneStatus| {
        let usage = log.usage_of(lane.stream.log, lane.stream.number);
        lane.oldest_age(usage.items, now)
    };
    lanes(app, table).filter_map(age).max()
}

/// Records of a table that are in the log and not stored.
pub(super) fn unstored_records(app: &App, table: Table) -> u64 {
    let log = app.admission.log();
    let of_lane = |lane: &LaneStatus| log.usage_of(lane.stream.log, lane.stream.number).records;
    lanes(app, table).map(of_lane).sum()
}

/// How long the oldest row of a table's last batch took from its receipt to its COMMIT; of several
/// lanes the slowest.
pub(in crate::http) fn last_lag(app: &App, table: Table, now: Micros) -> Option<Duration> {
    lanes(app, table)
        .filter_map(|lane| lane.last_lag(now))
        .max()
}

fn lanes(app: &App, table: Table) -> impl Iterator<Item = &LaneStatus> {
    let all = app.lanes.iter().map(AsRef::as_ref);
    all.filter(move |lane: &&LaneStatus| lane.stream.table == table)
}
