//! Bars as inline SVG: values with their whiskers, stacks of values, and values
//! against a target.
//!
//! Colours and fonts are the page's (by class), so that light and dark are its
//! business. Every number that is drawn also stands next to its bar.

use super::escape;
use crate::compare::sample::Spread;
use crate::report::float;

/// Width of a chart in its own units; the page scales it.
const WIDTH: f64 = 960.0;
/// Where bars begin: room for the longest name.
const LEFT: f64 = 290.0;
/// Where bars end: room for the number.
const RIGHT: f64 = 790.0;
const ROW: f64 = 34.0;
const BAR: f64 = 18.0;
const TOP: f64 = 8.0;
/// A part of a stack narrower than this has no room for its number.
const INSIDE_MIN: f64 = 38.0;

/// One bar, or a stack of values.
#[derive(Clone, Debug)]
pub struct Bar {
    pub name: String,
    /// Classes of the page, and values.
    pub parts: Vec<(&'static str, f64)>,
    /// From the least to the most of all rounds.
    pub whisker: Option<Spread>,
    /// The number as it is shown.
    pub label: String,
}

impl Bar {
    /// Where it ends, with its whisker.
    fn end(&self) -> f64 {
        let sum: f64 = self.parts.iter().map(|(_, value)| value.max(0.0)).sum();
        self.whisker.map_or(sum, |spread| spread.max)
    }
}

pub fn bars(title: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(Bar::end).fold(0.0, f64::max);
    draw(title, bars, if most > 0.0 { most } else { 1.0 }, None)
}

/// Bars as multiples of their targets, which are a line through all of them.
pub fn against(title: &str, target: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(Bar::end).fold(1.25, f64::max);
    // A figure far beyond its target must not squeeze the others.
    draw(title, bars, most.min(3.0), Some(target))
}

fn draw(title: &str, bars: &[Bar], most: f64, target: Option<&str>) -> String {
    if bars.is_empty() {
        return String::new();
    }
    let x = |value: f64| LEFT + (RIGHT - LEFT) * (value / most).clamp(0.0, 1.0);
    let rows = float(u64::try_from(bars.len()).expect("few bars"));
    let height = TOP + rows * ROW + TOP;
    let mut svg = format!(
        r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}"><line class="axis" x1="{LEFT}" x2="{LEFT}" y1="0" y2="{height}"/>"#,
        escape(title)
    );
    let mut top = TOP;
    for bar in bars {
        let (middle, bar_top) = (top + ROW / 2.0, top + (ROW - BAR) / 2.0);
        svg += &text("name", LEFT - 12.0, middle, &bar.name);
        let mut from = 0.0;
        for (class, value) in &bar.parts {
            let to = from + value.max(0.0);
            let (left, width) = (x(from), x(to) - x(from));
            svg += &format!(
                r#"<rect class="{class}" x="{left:.1}" y="{bar_top:.1}" width="{width:.1}" height="{BAR}" rx="2"/>"#
            );
            if bar.parts.len() > 1 && width > INSIDE_MIN {
                let inside = format!("inside on-{class}");
                svg += &text(&inside, left + width / 2.0, middle, &format!("{value:.1}"));
            }
            from = to;
        }
        if let Some(Spread { min, max, .. }) = bar.whisker {
            svg += &whisker(middle, x(min), x(max));
        }
        // Numbers next to the bars would stand on the line of the targets.
        let after = if target.is_some() {
            RIGHT
        } else {
            x(bar.end())
        };
        svg += &text("number", after + 10.0, middle, &bar.label);
        top += ROW;
    }
    if let Some(target) = target {
        let (x, bottom) = (x(1.0), height - 4.0);
        svg += &format!(
            r#"<line class="target" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom:.1}"><title>{}</title></line>"#,
            escape(target)
        );
    }
    svg + "</svg>\n"
}

/// A text at a place, in a class of the page.
pub fn text(class: &str, x: f64, y: f64, text: &str) -> String {
    let text = escape(text);
    format!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#)
}

fn whisker(middle: f64, from: f64, to: f64) -> String {
    // Ends that coincide would be a mark without a meaning.
    if to - from < 1.0 {
        return String::new();
    }
    let (top, bottom) = (middle - 5.0, middle + 5.0);
    format!(
        r#"<path class="whisker" d="M{from:.1} {top}V{bottom}M{from:.1} {middle}H{to:.1}M{to:.1} {top}V{bottom}"/>"#
    )
}
