//! Bars as inline SVG: one value with its whiskers, stacks of values, and values
//! against what is asked.
//!
//! Colours and fonts are the page's (by class), so that light and dark are its
//! business. Every number that is drawn also stands beside its bar.

use std::fmt::Write as _;

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

/// One bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: Spread,
    /// The number as it is shown.
    pub(super) label: String,
    /// What it looks like: a class of the page.
    pub(super) class: &'static str,
}

/// Values on top of one another.
#[derive(Clone, Debug)]
pub(super) struct Stack {
    pub(super) name: String,
    /// Class and value.
    pub(super) parts: Vec<(&'static str, f64)>,
    pub(super) label: String,
}

/// Bars from zero, with whiskers from the least to the most.
pub(super) fn bars(title: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value.max).fold(0.0, f64::max);
    let scale = Scale::to(most);
    let mut svg = open(title, bars.len());
    for (at, bar) in bars.iter().enumerate() {
        let y = row_y(at);
        draw(&mut svg, y, bar, &scale);
        number(&mut svg, y, scale.x(bar.value.max), &bar.label);
    }
    close(svg)
}

/// A bar with its name and whisker, without its number.
fn draw(svg: &mut String, y: f64, bar: &Bar, scale: &Scale) {
    name(svg, y, &bar.name);
    rect(svg, bar.class, LEFT, y, scale.x(bar.value.median) - LEFT);
    whisker(svg, y, scale.x(bar.value.min), scale.x(bar.value.max));
}

/// Stacks from zero.
pub(super) fn stacks(title: &str, stacks: &[Stack]) -> String {
    let total = |stack: &Stack| stack.parts.iter().map(|(_, value)| value).sum::<f64>();
    let scale = Scale::to(stacks.iter().map(total).fold(0.0, f64::max));
    let mut svg = open(title, stacks.len());
    for (at, stack) in stacks.iter().enumerate() {
        let y = row_y(at);
        name(&mut svg, y, &stack.name);
        let mut from = 0.0;
        for (class, value) in &stack.parts {
            let to = from + value.max(0.0);
            let (left, right) = (scale.x(from), scale.x(to));
            rect(&mut svg, class, left, y, right - left);
            if right - left > INSIDE_MIN {
                let (x, y) = (f64::midpoint(left, right), y + ROW / 2.0);
                put(
                    &mut svg,
                    format_args!(
                        r#"<text class="inside on-{class}" x="{x:.1}" y="{y}">{value:.1}</text>"#
                    ),
                );
            }
            from = to;
        }
        number(&mut svg, y, scale.x(from), &stack.label);
    }
    close(svg)
}

/// Bars as multiples of what is asked, which is a line through all of them.
pub(super) fn against(title: &str, asked: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value.max).fold(1.25, f64::max);
    // A figure far beyond what is asked must not squeeze the others.
    let scale = Scale::to(most.min(3.0));
    let mut svg = open(title, bars.len());
    for (at, bar) in bars.iter().enumerate() {
        let y = row_y(at);
        draw(&mut svg, y, bar, &scale);
        // All in one column: beside the bars they would stand on the line.
        number(&mut svg, y, RIGHT, &bar.label);
    }
    let (x, bottom) = (scale.x(1.0), height(bars.len()) - 4.0);
    put(
        &mut svg,
        format_args!(
            r#"<line class="asked" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom:.1}"><title>{}</title></line>"#,
            escape(asked)
        ),
    );
    close(svg)
}

/// From values to places.
#[derive(Clone, Copy, Debug)]
struct Scale {
    most: f64,
}

impl Scale {
    fn to(most: f64) -> Self {
        Self {
            most: if most > 0.0 { most } else { 1.0 },
        }
    }

    fn x(self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * (value / self.most).clamp(0.0, 1.0)
    }
}

fn row_y(at: usize) -> f64 {
    TOP + float(u64::try_from(at).expect("few rows")) * ROW
}

fn height(rows: usize) -> f64 {
    row_y(rows) + TOP
}

fn open(title: &str, rows: usize) -> String {
    let height = height(rows);
    let title = escape(title);
    let mut svg = String::new();
    put(
        &mut svg,
        format_args!(
            r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}"><line class="axis" x1="{LEFT}" x2="{LEFT}" y1="0" y2="{height}"/>"#
        ),
    );
    svg
}

fn close(mut svg: String) -> String {
    svg.push_str("</svg>\n");
    svg
}

fn name(svg: &mut String, y: f64, text: &str) {
    let (x, y) = (LEFT - 12.0, y + ROW / 2.0);
    put(
        svg,
        format_args!(
            r#"<text class="name" x="{x}" y="{y}">{}</text>"#,
            escape(text)
        ),
    );
}

fn number(svg: &mut String, y: f64, after: f64, text: &str) {
    let (x, y) = (after + 10.0, y + ROW / 2.0);
    put(
        svg,
        format_args!(
            r#"<text class="number" x="{x:.1}" y="{y}">{}</text>"#,
            escape(text)
        ),
    );
}

fn rect(svg: &mut String, class: &str, x: f64, y: f64, width: f64) {
    let (y, width) = (y + (ROW - BAR) / 2.0, width.max(0.0));
    put(
        svg,
        format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{BAR}" rx="2"/>"#
        ),
    );
}

fn whisker(svg: &mut String, y: f64, from: f64, to: f64) {
    // Ends that coincide would be a mark without a meaning.
    if to - from < 1.0 {
        return;
    }
    let middle = y + ROW / 2.0;
    let (top, bottom) = (middle - 5.0, middle + 5.0);
    put(
        svg,
        format_args!(
            r#"<path class="whisker" d="M{from:.1} {top}V{bottom}M{from:.1} {middle}H{to:.1}M{to:.1} {top}V{bottom}"/>"#
        ),
    );
}

/// Writes into a drawing.
pub(super) fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text)
        .expect("writing to a String cannot fail");
}
