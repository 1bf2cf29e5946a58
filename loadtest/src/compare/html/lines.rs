//! Latency percentiles as lines over a logarithmic scale, inline SVG.

use super::chart::text;
use super::escape;
use crate::report::{Latency, PERCENTILES, float};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 80.0;
/// Room for the names at the lines' ends.
const RIGHT: f64 = 640.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 290.0;
/// Names closer than this would overlap.
const NAME_GAP: f64 = 22.0;

#[derive(Clone, Debug)]
pub struct Line {
    pub name: String,
    /// Medians over the rounds, of each percentile.
    pub latency: Latency,
    pub class: &'static str,
}

pub fn lines(title: &str, lines: &[Line]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    // Whole powers of ten, so that the grid has round names.
    let all = || {
        lines
            .iter()
            .flat_map(|line| line.latency.0.map(|value| value.max(0.01)))
    };
    let low = all().fold(f64::INFINITY, f64::min).log10().floor();
    let high = all().fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let y = |value: f64| {
        let share = (value.max(0.01).log10() - low) / (high - low);
        BOTTOM - (BOTTOM - TOP) * share
    };
    let x = |at: usize| {
        let at = float(u64::try_from(at).expect("five percentiles"));
        LEFT + (RIGHT - LEFT) * (at + 0.5) / 5.0
    };
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
        escape(title)
    );
    let mut power = low;
    while power <= high + 0.5 {
        let value = 10_f64.powf(power);
        let at = y(value);
        svg +=
            &format!(r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1}" y2="{at:.1}"/>"#);
        svg += &text("name", LEFT - 12.0, at, &format!("{value} ms"));
        power += 1.0;
    }
    for (at, name) in PERCENTILES.iter().enumerate() {
        svg += &text("tick", x(at), BOTTOM + 26.0, name);
    }
    let places = spread_out(lines.iter().map(|line| y(line.latency.0[4])).collect());
    for (line, name_y) in lines.iter().zip(places) {
        let class = line.class;
        let (mut path, mut dots) = (String::new(), String::new());
        for (at, value) in line.latency.0.iter().enumerate() {
            let (x, y) = (x(at), y(*value));
            path += &format!("{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" });
            dots += &format!(r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#);
            dots += &text("tick", x, y - 12.0, &format!("{value:.1}"));
        }
        svg += &format!(r#"<path class="line {class}" d="{path}"/>{dots}"#);
        svg += &text(&format!("legend {class}"), RIGHT + 16.0, name_y, &line.name);
    }
    svg + "</svg>\n"
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
