//! Numbers with their units, as a table for people, as JSON, and as a picture of simple bars. Not here: where they come from.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

/// One number.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// What must be known to read it.
    note: String,
}

/// Bars that are to be compared with each other.
struct Chart {
    title: String,
    unit: &'static str,
    bars: Vec<(String, f64)>,
}

/// Everything measured in a run.
pub struct Sheet {
    machine: Vec<(String, String)>,
    parts: Vec<(String, Vec<Figure>)>,
    charts: Vec<Chart>,
}

impl Sheet {
    pub fn new(machine: Vec<(String, String)>) -> Self {
        Self {
            machine,
            parts: Vec::new(),
            charts: Vec::new(),
        }
    }

    /// Begins a part of the table.
    pub fn part(&mut self, title: impl Into<String>) {
        self.parts.push((title.into(), Vec::new()));
    }

    pub fn put(&mut self, name: impl Into<String>, value: f64, unit: &'static str, note: impl Into<String>) {
        let figure = Figure {
            name: name.into(),
            value,
            unit,
            note: note.into(),
        };
        if let Some((_, figures)) = self.parts.last_mut() {
            figures.push(figure);
        }
    }

    pub fn chart(&mut self, title: impl Into<String>, unit: &'static str, bars: Vec<(String, f64)>) {
        self.charts.push(Chart {
            title: title.into(),
            unit,
            bars,
        });
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.machine {
            let _ = writeln!(text, "{name:<12} {value}");
        }
        for (title, figures) in &self.parts {
            let _ = writeln!(text, "\n{title}");
            for Figure {
                name,
                value,
                unit,
                note,
            } in figures
            {
                let line = format!("  {name:<46} {:>11} {unit:<10} {note}", short(*value));
                let _ = writeln!(text, "{}", line.trim_end());
            }
        }
        text
    }

    pub fn json(&self) -> String {
        let part = |(title, figures): &(String, Vec<Figure>)| {
            let figures: Vec<_> = figures
                .iter()
                .map(|figure| json!({"name": figure.name, "value": figure.value, "unit": figure.unit, "note": figure.note}))
                .collect();
            json!({"title": title, "figures": figures})
        };
        let machine: serde_json::Map<_, _> = self
            .machine
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        let parts: Vec<_> = self.parts.iter().map(part).collect();
        format!("{}\n", json!({"v": 1, "machine": machine, "parts": parts}))
    }

    /// Horizontal bars, each chart on a scale of its own, with the number beside each bar.
    pub fn svg(&self) -> String {
        const BAR: usize = 22;
        let mut body = String::new();
        let mut y = 30;
        for Chart { title, unit, bars } in &self.charts {
            let most = bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
            let _ = writeln!(
                body,
                "<text x=\"10\" y=\"{y}\" font-weight=\"bold\">{}</text>",
                plain(title)
            );
            y += 12;
            for (name, value) in bars {
                let width = if most > 0.0 { value / most * 330.0 } else { 0.0 };
                let middle = y + 14;
                let _ = writeln!(
                    body,
                    "<text x=\"290\" y=\"{middle}\" text-anchor=\"end\">{}</text>",
                    plain(name)
                );
                let _ = writeln!(
                    body,
                    "<rect x=\"300\" y=\"{}\" width=\"{width:.1}\" height=\"16\" fill=\"#4a7a9c\"/>",
                    y + 2
                );
                let _ = writeln!(
                    body,
                    "<text x=\"{:.1}\" y=\"{middle}\">{} {unit}</text>",
                    306.0 + width,
                    short(*value)
                );
                y += BAR;
            }
            y += 30;
        }
        let machine = self
            .machine
            .iter()
            .take(3)
            .map(|(name, value)| format!("{name} {value}"))
            .collect::<Vec<_>>()
            .join(", ");
        let _ = writeln!(
            body,
            "<text x=\"10\" y=\"{y}\" fill=\"#666\">{}</text>",
            plain(&machine)
        );
        let height = y + 15;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"760\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
        )
    }
}

fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Milliseconds.
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Microseconds.
pub fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The value below which so many hundredths of the sorted times lie.
pub fn percentile(times: &mut [Duration], hundredths: usize) -> Duration {
    times.sort();
    let at = (times.len() * hundredths).div_ceil(100).saturating_sub(1);
    times.get(at).copied().unwrap_or_default()
}

/// The smallest and the largest, as words: how much the rounds differ.
pub fn spread(rounds: &[f64], unit: &str) -> String {
    let (least, most) = rounds.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
        (least.min(*value), most.max(*value))
    });
    format!("rounds from {} to {} {unit}", short(least), short(most))
}
