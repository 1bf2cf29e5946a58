//! Latency percentiles as lines over a logarithmic scale, inline SVG.

use super::chart::put;
use super::escape;
use crate::compare::sample::Latency;
use crate::report::float;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 80.0;
/// Room for the names at the lines' ends.
const RIGHT: f64 = 640.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 290.0;
/// Names closer than this would overlap.
const NAME_GAP: f64 = 22.0;

/// The percentiles of one way.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// Medians over the rounds, of each percentile.
    pub(super) latency: Latency,
    pub(super) class: &'static str,
}

/// A percentile's name, and where it is.
type Point = (&'static str, fn(&Latency) -> f64);

const POINTS: [Point; 5] = [
    ("p50", |latency| latency.p50),
    ("p90", |latency| latency.p90),
    ("p99", |latency| latency.p99),
    ("p99.9", |latency| latency.p999),
    ("max", |latency| latency.max),
];

/// Draws them.
pub(super) fn lines(title: &str, lines: &[Line]) -> String {
    let values = || {
        lines
            .iter()
            .flat_map(|line| POINTS.iter().map(|(_, pick)| pick(&line.latency)))
            .map(|value| value.max(0.01))
    };
    // Whole powers of ten, so that the grid has round names.
    let low = values().fold(f64::INFINITY, f64::min).log10().floor();
    let high = values().fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let y = |value: f64| {
        let share = (value.max(0.01).log10() - low) / (high - low);
        BOTTOM - (BOTTOM - TOP) * share
    };
    let x = |at: usize| {
        let at = float(u64::try_from(at).expect("five points"));
        LEFT + (RIGHT - LEFT) * (at + 0.5) / 5.0
    };
    let mut svg = String::new();
    put(
        &mut svg,
        format_args!(
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
            escape(title)
        ),
    );
    let mut power = low;
    while power <= high + 0.5 {
        let value = 10_f64.powf(power);
        let (at, name_x) = (y(value), LEFT - 12.0);
        put(
            &mut svg,
            format_args!(
                r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1}" y2="{at:.1}"/><text class="name" x="{name_x}" y="{at:.1}">{value} ms</text>"#
            ),
        );
        power += 1.0;
    }
    for (at, (name, _)) in POINTS.iter().enumerate() {
        let (x, below) = (x(at), BOTTOM + 26.0);
        put(
            &mut svg,
            format_args!(r#"<text class="tick" x="{x:.1}" y="{below}">{name}</text>"#),
        );
    }
    let places = spread_out(lines.iter().map(|line| y(line.latency.max)).collect());
    for (line, name_y) in lines.iter().zip(places) {
        let points: Vec<(f64, f64, f64)> = POINTS
            .iter()
            .enumerate()
            .map(|(at, (_, pick))| (x(at), y(pick(&line.latency)), pick(&line.latency)))
            .collect();
        let path: Vec<String> = points
            .iter()
            .map(|(x, y, _)| format!("{x:.1} {y:.1}"))
            .collect();
        put(
            &mut svg,
            format_args!(
                r#"<path class="line {}" d="M{}"/>"#,
                line.class,
                path.join("L")
            ),
        );
        for (x, y, value) in &points {
            let above = y - 12.0;
            put(
                &mut svg,
                format_args!(
                    r#"<circle class="dot {}" cx="{x:.1}" cy="{y:.1}" r="4"/><text class="tick" x="{x:.1}" y="{above:.1}">{value:.1}</text>"#,
                    line.class
                ),
            );
        }
        let name_x = RIGHT + 16.0;
        put(
            &mut svg,
            format_args!(
                r#"<text class="legend {}" x="{name_x}" y="{name_y:.1}">{}</text>"#,
                line.class,
                escape(&line.name)
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Moves places down until none is too close to the one above it.
fn spread_out(places: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    let mut spread = places;
    let mut free = f64::NEG_INFINITY;
    for at in order {
        spread[at] = spread[at].max(free);
        free = spread[at] + NAME_GAP;
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_the_same_height_are_moved_apart_in_their_order() {
        assert_eq!(spread_out(vec![100.0, 99.0, 300.0]), [121.0, 99.0, 300.0]);
    }
}
