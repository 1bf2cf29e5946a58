//! The forms in which metrics are answered: Prometheus text, or OpenMetrics text for who asks.

use std::collections::HashSet;

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The form for a request with these Accept headers, by its content type, of a text in OpenMetrics'.
pub(crate) fn of<'a>(
    openmetrics: String,
    mut accepted: impl Iterator<Item = &'a str>,
) -> (&'static str, String) {
    match accepted.any(|accept| accept.contains("application/openmetrics-text")) {
        true => (OPENMETRICS, openmetrics),
        false => (PROMETHEUS, to_prometheus(&openmetrics)),
    }
}

/// OpenMetrics text as Prometheus text: help and type of a counter name its `_total`, and there is
/// no end mark. Source: the Prometheus exposition formats, version 0.0.4.
fn to_prometheus(openmetrics: &str) -> String {
    let counters: HashSet<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len() + 16 * counters.len());
    for line in openmetrics.lines() {
        let meta = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|kind| Some((kind, line.strip_prefix(kind)?.split_once(' ')?)));
        match meta {
            Some((kind, (name, rest))) if counters.contains(name) => {
                text.push_str(&format!("{kind}{name}_total {rest}\n"));
            }
            _ if line == "# EOF" || line.starts_with("# UNIT ") => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_and_type_of_a_counter_stand_at_its_total() {
        let openmetrics = "# HELP events Events.\n# TYPE events counter\nevents_total{table=\"a\"} 3\n\
                           # HELP rows Rows.\n# TYPE rows gauge\nrows 2\n# EOF\n";
        let text = "# HELP events_total Events.\n# TYPE events_total counter\nevents_total{table=\"a\"} 3\n\
                    # HELP rows Rows.\n# TYPE rows gauge\nrows 2\n";
        assert_eq!(to_prometheus(openmetrics), text);
    }
}
