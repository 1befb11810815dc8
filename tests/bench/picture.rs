//! Charts as one picture (SVG) that can be read in light and in dark surroundings: groups of bars in two columns, each on a scale of its
//! own, with the number beside each bar and, where there is something to reach, a line. Not here: where the numbers come from.

use std::fmt::Write as _;

use crate::figures::short;

/// How a bar is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hue {
    Own,
    /// A variant of our own.
    Kin,
    /// The least that is possible.
    Floor,
    Other,
}

impl Hue {
    fn class(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Kin => "kin",
            Self::Floor => "floor",
            Self::Other => "other",
        }
    }
}

struct Bar {
    name: String,
    value: f64,
    hue: Hue,
}

/// Bars that are to be compared with each other.
pub struct Chart {
    title: String,
    /// What the numbers are, and which are good.
    about: String,
    unit: &'static str,
    bars: Vec<Bar>,
    /// What is to be reached: where on the scale, and in words.
    lines: Vec<(f64, String)>,
}

impl Chart {
    pub fn new(title: impl Into<String>, about: impl Into<String>, unit: &'static str) -> Self {
        Self {
            title: title.into(),
            about: about.into(),
            unit,
            bars: Vec::new(),
            lines: Vec::new(),
        }
    }

    pub fn bar(&mut self, name: impl Into<String>, value: f64, hue: Hue) {
        self.bars.push(Bar {
            name: name.into(),
            value,
            hue,
        });
    }

    pub fn line(&mut self, value: f64, words: impl Into<String>) {
        self.lines.push((value, words.into()));
    }

    fn height(&self) -> usize {
        HEAD + self.bars.len() * STEP + self.lines.len() * LINE + FOOT
    }

    fn draw(&self, x: usize, y: usize, out: &mut String) {
        text(out, x, y + 14, "title", &self.title);
        text(out, x, y + 30, "about", &self.about);
        let most = self.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        let most = self.lines.iter().map(|(value, _)| *value).fold(most, f64::max);
        let scale = |value: f64| if most > 0.0 { value / most * BARS as f64 } else { 0.0 };
        let (start, top) = (x + NAMES, y + HEAD);
        for (at, bar) in self.bars.iter().enumerate() {
            let edge = top + at * STEP;
            let (width, class) = (scale(bar.value).max(1.0), bar.hue.class());
            text(out, x, edge + 12, "name", &bar.name);
            let _ = writeln!(
                out,
                "<rect x=\"{start}\" y=\"{edge}\" width=\"{width:.1}\" height=\"16\" rx=\"2\" class=\"{class}\"/>"
            );
        }
        let end = top + self.bars.len() * STEP;
        for (number, (value, words)) in self.lines.iter().enumerate() {
            let (at, above) = (start as f64 + scale(*value), top - 4);
            let _ = writeln!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{above}\" y2=\"{end}\" class=\"goal\"/>"
            );
            let words = format!("┆ {words}: {} {}", thousands(*value), self.unit);
            text(out, x, end + 12 + number * LINE, "reach", &words);
        }
        for (at, bar) in self.bars.iter().enumerate() {
            let value = format!("{} {}", thousands(bar.value), self.unit);
            let mut beside = scale(bar.value) + 7.0;
            // Not under a line.
            for (line, _) in &self.lines {
                let line = scale(*line);
                if (beside - 2.0..beside + LETTER * value.chars().count() as f64).contains(&line) {
                    beside = line + 6.0;
                }
            }
            text(out, start + beside as usize, top + at * STEP + 12, "value", &value);
        }
    }
}

/// Of the picture and of a column in it, in pixels.
const WIDTH: usize = 960;
const COLUMN: usize = 450;
const MARGIN: usize = 24;
/// Room for names, and for the longest bar.
const NAMES: usize = 178;
const BARS: usize = 180;
/// Above the bars, from bar to bar, below them.
const HEAD: usize = 42;
const STEP: usize = 20;
const FOOT: usize = 30;
/// From line to line of small letters, how many go on one, and how wide the larger are.
const LINE: usize = 16;
const LETTERS: usize = 150;
const LETTER: f64 = 7.0;

const STYLE: &str = "\
.page{fill:#fff}.title{fill:#1f2328;font-size:14px;font-weight:600}.about,.foot{fill:#59636e;font-size:11px}\
.name,.value{fill:#1f2328;font-size:12px}.reach{fill:#bc4c00;font-size:11px}.goal{stroke:#bc4c00;stroke-width:1.5;stroke-dasharray:3 2}\
.own{fill:#0969da}.kin{fill:#80b3f0}.floor{fill:#9aa4af}.other{fill:#c8ced5}\
@media (prefers-color-scheme:dark){.page{fill:#0d1117}.title,.name,.value{fill:#f0f6fc}.about,.foot{fill:#9198a1}\
.reach{fill:#f0883e}.goal{stroke:#f0883e}.own{fill:#4493f8}.kin{fill:#1f5fb0}.floor{fill:#656c76}.other{fill:#3d444d}}";

/// All charts, two beside each other, and what must be known of the machine below them.
pub fn draw(charts: &[Chart], machine: &[(String, String)]) -> String {
    let mut body = String::new();
    let mut y = MARGIN;
    for pair in charts.chunks(2) {
        for (at, chart) in pair.iter().enumerate() {
            chart.draw(MARGIN + at * (COLUMN + MARGIN / 2), y, &mut body);
        }
        y += pair.iter().map(Chart::height).max().unwrap_or(0);
    }
    let words = machine.iter().map(|(name, value)| format!("{name}: {value}"));
    for line in lines(words) {
        y += LINE;
        text(&mut body, MARGIN, y, "foot", &line);
    }
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif\">\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" class=\"page\"/>\n{body}</svg>\n"
    )
}

/// Puts as many on a line as it holds.
fn lines(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() + 3 <= LETTERS => {
                line.push_str(" · ");
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

fn text(out: &mut String, x: usize, y: usize, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{words}</text>");
}

/// Large numbers in groups of three digits.
pub fn thousands(value: f64) -> String {
    if value < 1000.0 {
        return short(value);
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
