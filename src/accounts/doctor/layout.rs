//! How the partitions lie in time: gaps, their end, names, rows in a DEFAULT partition, partitions
//! that were never sealed.

use anyhow::Result;
use tokio_postgres::Client;

use super::diagnosis::{Diagnosis, Examination, Mend};
use super::probe::{rows, size};
use crate::event::table::Table;
use crate::event::time::Micros;
use crate::finding::{Finding, Severity};
use crate::partitions::catalog::{
    Bound, Partition, begin, coverage_of, end, read_parent, read_partitions,
};
use crate::partitions::coverage::Coverage;
use crate::partitions::error::Error;
use crate::partitions::indexes::{IndexState, state};
use crate::partitions::layout::read_interval;
use crate::partitions::leaf::{Leaf, leaves};
use crate::partitions::range::{Interval, Range};
use crate::postgres::ident::{qualified, quoted};

const DAY_US: i64 = 86_400_000_000;
/// Local midnight is at most this far from midnight UTC.
const ZONE_US: u64 = 14 * 3_600_000_000;
/// Partitions that are made at once for a gap; a longer one is a decision.
const GAP_PARTITIONS_MAX: usize = 400;
/// As many partitions as a service has ready beyond the current one.
const AHEAD: u32 = 3;
/// Rows of a DEFAULT partition that are counted.
const COUNTED_MAX: i64 = 1_000_000;

/// Looks at all event tables.
pub(super) async fn look(client: &mut Client, now: Micros, examination: &mut Examination) {
    for table in Table::ALL {
        let found = look_at(client, table, now).await;
        examination.add(&format!("the partitions of {table}"), found);
    }
}

async fn look_at(client: &mut Client, table: Table, now: Micros) -> Result<Vec<Diagnosis>> {
    let tx = begin(client, table, true).await?;
    let parent = match read_parent(&tx, table).await {
        // The checks of the schema say so already.
        Err(Error::NotPartitioned { .. }) => return Ok(Vec::new()),
        parent => parent?,
    };
    let partitions = read_partitions(&tx, &parent).await?;
    end(tx, table).await?;
    let interval = read_interval(client, table).await?;
    let coverage = coverage_of(&partitions);
    let mut found = Vec::new();
    found.extend(ending(table, &coverage, interval, now.0));
    found.extend(gaps(table, &partitions, &coverage, interval));
    found.extend(partitions.iter().filter_map(|one| misnamed(table, one)));
    found.extend(partitions.iter().filter_map(|one| detaching(table, one)));
    found.extend(unsealed(table, &leaves(client, table).await?, now.0));
    for partition in partitions.iter().filter(|one| one.bound == Bound::Default) {
        found.push(default_rows(client, table, partition).await?);
    }
    Ok(found)
}

/// Whether partitions go on beyond tomorrow.
fn ending(table: Table, coverage: &Coverage, interval: Interval, now_us: i64) -> Option<Diagnosis> {
    let end_us = coverage.end_from(now_us);
    if end_us > now_us.saturating_add(DAY_US) {
        return None;
    }
    let (severity, seen) = match end_us == now_us {
        true => (
            Severity::Degraded,
            format!("{table} has no partition for now"),
        ),
        false => (
            Severity::Note,
            format!("the partitions of {table} end at {}", Micros(end_us)),
        ),
    };
    let finding = Finding::new(
        severity,
        "partitions_end",
        seen,
        "a batch has to make the next one while its rows wait; where the role may not, rows go to quarantine",
        "a running service that may create makes them ahead of time; if one runs, its log says why it does not",
    );
    let ranges = coverage.missing(interval.ranges_ahead(now_us, AHEAD));
    Some(Diagnosis::new(
        finding.about(table),
        Mend::Partitions(ranges),
    ))
}

/// Times between the first and the last partition that have none.
fn gaps(
    table: Table,
    partitions: &[Partition],
    coverage: &Coverage,
    interval: Interval,
) -> Vec<Diagnosis> {
    let ranges = partitions.iter().filter_map(|one| match one.bound {
        Bound::Range(range) => Some(range),
        Bound::Default => None,
    });
    let ends = ranges.reduce(|all, range| Range {
        from_us: all.from_us.min(range.from_us),
        to_us: all.to_us.max(range.to_us),
    });
    let Some(all) = ends else { return Vec::new() };
    let gap = |gap: Range| {
        let wanted = coverage.missing(ranges_within(interval, gap));
        let finding = Finding::new(
            Severity::Note,
            "partition_gap",
            format!("{table} has no partition for {gap}"),
            "an event of that time has to wait until one is made, which counts against \
             --partitions-per-hour; where the role may not create, it waits in quarantine",
            match wanted.len() > GAP_PARTITIONS_MAX {
                true => {
                    "if events of that time are to come, make its partitions by hand; else leave it"
                }
                false => "make them ahead of the events; if none of that time will come, leave it",
            },
        );
        let mend = match wanted.len() > GAP_PARTITIONS_MAX {
            true => Mend::Words,
            false => Mend::Partitions(wanted),
        };
        Diagnosis::new(finding.about(table), mend)
    };
    coverage.gaps(all).into_iter().map(gap).collect()
}

/// The interval's ranges that a gap needs, one more than may be made at most.
fn ranges_within(interval: Interval, gap: Range) -> Vec<Range> {
    let mut ranges = Vec::new();
    let mut at_us = gap.from_us;
    while at_us < gap.to_us && ranges.len() <= GAP_PARTITIONS_MAX {
        let range = interval.range_of(at_us);
        at_us = range.to_us;
        ranges.push(range);
    }
    ranges
}

/// A partition that is named after another time than its bounds.
fn misnamed(table: Table, partition: &Partition) -> Option<Diagnosis> {
    let Bound::Range(range) = partition.bound else {
        return None;
    };
    let named_us = named_time(table, &partition.name)?;
    if range.from_us == i64::MIN || named_us.abs_diff(range.from_us) <= ZONE_US {
        return None;
    }
    let (name, right) = (&partition.name, range.partition_name(table));
    let finding = Finding::new(
        Severity::Note,
        "partition_name",
        format!("the partition {name} of {table} holds {range}"),
        "the service goes by the bounds; people and scripts that go by the name look in the wrong place",
        "rename it, once the name is free",
    );
    let place = qualified(&partition.schema, name);
    let sql = format!("ALTER TABLE {place} RENAME TO {};", quoted(&right));
    Some(Diagnosis::new(finding.about(table), Mend::Sql(vec![sql])))
}

/// The time that a name says: `_2026_05_24`, `_p20260524`, `_2026_05`.
fn named_time(table: Table, name: &str) -> Option<i64> {
    let suffix = name.strip_prefix(table.as_str())?;
    let digits: String = suffix.chars().filter(char::is_ascii_digit).collect();
    let rest = suffix.trim_start_matches(['_', 'p']);
    if !rest
        .chars()
        .all(|letter| letter.is_ascii_digit() || letter == '_')
    {
        return None;
    }
    let day = match digits.len() {
        6 => "01",
        8 => &digits[6..],
        _ => return None,
    };
    let date = format!("{}-{}-{day}T00:00:00Z", &digits[..4], &digits[4..6]);
    let at: jiff::Timestamp = date.parse().ok()?;
    Some(at.as_microsecond())
}

/// A detach that was begun and not ended.
fn detaching(table: Table, partition: &Partition) -> Option<Diagnosis> {
    partition.is_detaching.then(|| {
        let name = qualified(&partition.schema, &partition.name);
        let finding = Finding::new(
            Severity::Degraded,
            "partition_detaching",
            format!("{name} is being detached from {table}, or that was interrupted"),
            "it takes no rows, and no other partition can take those of its time: they wait in quarantine",
            "if nothing is detaching it any more, finish that",
        );
        let sql = format!("ALTER TABLE {table} DETACH PARTITION {name} FINALIZE;");
        Diagnosis::new(finding.about(table), Mend::Sql(vec![sql]))
    })
}

/// Partitions that ended a day ago or earlier.
fn unsealed(table: Table, leaves: &[Leaf], now_us: i64) -> Option<Diagnosis> {
    let is_late = |leaf: &&Leaf| {
        let since_us = leaf.range.to_us.max(leaf.made_us.unwrap_or(i64::MIN));
        leaf.range.to_us != i64::MAX
            && since_us.saturating_add(DAY_US) < now_us
            && state(table, &leaf.indexes) != IndexState::Sealed
    };
    let late: Vec<&Leaf> = leaves.iter().filter(is_late).collect();
    let oldest = late.iter().min_by_key(|leaf| leaf.range.from_us)?;
    let finding = Finding::new(
        Severity::Note,
        "partitions_unsealed",
        format!(
            "{} partitions of {table} whose time is over are not sealed; the oldest is {}",
            late.len(),
            oldest.name
        ),
        "queries on them read all their rows, as their indexes beside the key are missing",
        "seal them with `recsys-ingest partitions seal`, as a role that owns them; events go on coming in",
    );
    let command = "recsys-ingest partitions seal".to_owned();
    Some(Diagnosis::new(finding.about(table), Mend::Command(command)))
}

/// A DEFAULT partition, with its rows or without.
async fn default_rows(client: &Client, table: Table, partition: &Partition) -> Result<Diagnosis> {
    let name = qualified(&partition.schema, &partition.name);
    let count = format!(
        "SELECT count(*), min(occurred_at), max(occurred_at), pg_total_relation_size($1::oid::regclass)
           FROM (SELECT occurred_at FROM {name} LIMIT {COUNTED_MAX}) AS held"
    );
    let counted = rows(client, &count, &[&partition.oid]).await?;
    let row = &counted[0];
    let held: i64 = row.get(0);
    if held == 0 {
        let finding = Finding::new(
            Severity::Note,
            "default_partition",
            format!("{table} has a DEFAULT partition, {name}, without rows"),
            "a new partition has to wait for every reader of it, and rows that land there are in the \
             way of the partitions that they belong to",
            "remove it with `recsys-ingest adopt --lean`, which shows its SQL before it does anything",
        );
        let command = "recsys-ingest adopt --lean".to_owned();
        return Ok(Diagnosis::new(finding.about(table), Mend::Command(command)));
    }
    let (from, to): (Micros, Micros) = (row.get(1), row.get(2));
    let at_least = if held == COUNTED_MAX { "at least " } else { "" };
    let finding = Finding::new(
        Severity::Degraded,
        "default_rows",
        format!(
            "{at_least}{held} rows of {table}, from {from} to {to}, are in its DEFAULT partition {name} ({})",
            size(row.get(3))
        ),
        "queries by time read all of them, no retention by partition reaches them, and a partition \
         for their time has to take them over first",
        "a running service that owns the table moves them into partitions of their own, a range at a \
         time; `recsys-ingest adopt --lean` removes the empty one then",
    );
    Ok(Diagnosis::new(finding.about(table), Mend::Words))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        let at: jiff::Timestamp = format!("{text}T00:00:00Z").parse().unwrap();
        at.as_microsecond()
    }

    fn partition(name: &str, from: &str, to: &str) -> Partition {
        Partition {
            oid: 1,
            schema: "public".to_owned(),
            name: name.to_owned(),
            bound: Bound::Range(Range {
                from_us: at(from),
                to_us: at(to),
            }),
            is_detaching: false,
        }
    }

    const TABLE: Table = Table::Exposures;

    #[test]
    fn gaps_are_found_between_partitions_and_nowhere_else() {
        let days = [
            partition("a", "2026-05-01", "2026-05-02"),
            partition("b", "2026-05-05", "2026-05-06"),
            partition("c", "2026-05-02", "2026-05-03"),
        ];
        let found = gaps(TABLE, &days, &coverage_of(&days), Interval::Day);
        assert_eq!(found.len(), 1, "{found:?}");
        let Mend::Partitions(ranges) = &found[0].mend else {
            panic!("{found:?}");
        };
        assert_eq!(
            (ranges[0].from_us, ranges[1].to_us),
            (at("2026-05-03"), at("2026-05-05"))
        );
        // A gap of years is not filled without a decision.
        let years = [
            partition("a", "2016-05-01", "2016-05-02"),
            partition("b", "2026-05-05", "2026-05-06"),
        ];
        let found = gaps(TABLE, &years, &coverage_of(&years), Interval::Day);
        assert_eq!(found[0].mend, Mend::Words);
        for few in [&days[..1], &[]] {
            assert!(gaps(TABLE, few, &coverage_of(few), Interval::Day).is_empty());
        }
    }

    #[test]
    fn the_end_is_near_within_a_day_and_worse_where_it_has_come() {
        let days = [partition("a", "2026-05-01", "2026-05-03")];
        let coverage = coverage_of(&days);
        let ends = |now: &str| ending(TABLE, &coverage, Interval::Day, at(now) + 1);
        assert_eq!(ends("2026-05-01"), None);
        assert_eq!(ends("2026-05-02").unwrap().finding.severity, Severity::Note);
        let over = ends("2026-05-03").unwrap();
        assert_eq!(over.finding.severity, Severity::Degraded);
        let Mend::Partitions(ranges) = over.mend else {
            panic!("it can be mended");
        };
        assert_eq!(ranges.len(), 4);
    }

    #[test]
    fn a_name_of_another_time_is_found_in_every_form_and_other_names_say_nothing() {
        for (name, wrong) in [
            ("exposure_events_2026_05_24", false),
            ("exposure_events_2026_05_23", true),
            ("exposure_events_p20260524", false),
            ("exposure_events_p2026_05_20", true),
            ("exposure_events_2026_06", true),
            ("exposure_events_old", false),
            ("history_2026_05_23", false),
            ("exposure_events_20260524_x", false),
            ("exposure_events_2026_05_24_120000", false),
        ] {
            let one = partition(name, "2026-05-24", "2026-05-25");
            assert_eq!(misnamed(TABLE, &one).is_some(), wrong, "{name}");
        }
        // Midnight elsewhere.
        let mut one = partition("exposure_events_2026_05", "2026-05-01", "2026-06-01");
        one.bound = Bound::Range(Range {
            from_us: at("2026-05-01") - 2 * 3_600_000_000,
            to_us: at("2026-06-01") - 2 * 3_600_000_000,
        });
        assert_eq!(misnamed(TABLE, &one), None);
    }
}
