//! The byte hit ratios as an SVG: one line per row of the tables, cache sizes left to right.

use std::fmt::Write;

/// A line of the chart.
#[derive(Debug)]
pub(crate) struct Line {
    /// The row's name.
    pub(crate) name: &'static str,
    /// One point per cache size: the share of the footprint, and the ratio.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws lines over cache sizes on a logarithmic scale; the ratio goes from 0 to the highest point.
pub(crate) fn svg(title: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (low, high) =
        points().fold((f64::MAX, f64::MIN), |(low, high), (share, _)| (low.min(*share), high.max(*share)));
    let most = points().map(|(_, ratio)| *ratio).fold(1e-9, f64::max);
    let across = |share: f64| 60.0 + 500.0 * (share / low).ln() / (high / low).ln().max(1e-9);
    let down = |ratio: f64| 380.0 - 340.0 * ratio / most;

    let mut out = String::from(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 800 440' font-family='sans-serif' font-size='12'>\n\
         <rect width='800' height='440' fill='white'/>\n",
    );
    // Writing to a string does not fail.
    let _ = writeln!(out, "<text x='60' y='24' font-size='14'>{}: byte hit ratio</text>", escaped(title));
    for step in 0..=4 {
        let ratio = most * f64::from(step) / 4.0;
        let y = down(ratio);
        let _ =
            writeln!(out, "<path d='M60 {y:.1}H560' stroke='#ddd'/><text x='24' y='{:.1}'>{ratio:.2}</text>", y + 4.0);
    }
    for (share, _) in lines.first().map_or(&[][..], |line| &line.points) {
        let _ =
            writeln!(out, "<text x='{:.1}' y='400' text-anchor='middle'>{} %</text>", across(*share), share * 100.0);
    }
    let _ = writeln!(out, "<text x='310' y='425' text-anchor='middle'>cache, share of the footprint</text>");
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let path: Vec<String> =
            line.points.iter().map(|(share, ratio)| format!("{:.1},{:.1}", across(*share), down(*ratio))).collect();
        let _ = writeln!(out, "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2'/>", path.join(" "));
        let _ = writeln!(out, "<text x='575' y='{}' fill='{colour}'>{}</text>", 50 + 18 * index, escaped(line.name));
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

const COLOURS: [&str; 12] = [
    "#888888", "#bbbbbb", "#8c564b", "#e377c2", "#17becf", "#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e",
    "#bcbd22", "#000000",
];
