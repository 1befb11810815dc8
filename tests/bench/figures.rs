//! Numbers with their units, as a table for people and as JSON. Not here: where they come from, and how they are drawn (`picture`).

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::picture::{self, Chart, Hue};

/// One number.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// What must be known to read it.
    note: String,
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

    /// Draws numbers of our own.
    pub fn chart(&mut self, title: impl Into<String>, unit: &'static str, bars: Vec<(String, f64)>) {
        let mut chart = Chart::new(title, "", unit);
        for (name, value) in bars {
            let floor = name.starts_with("bare ") || name.contains("floor");
            chart.bar(name, value, if floor { Hue::Floor } else { Hue::Own });
        }
        self.draw(chart);
    }

    pub fn draw(&mut self, chart: Chart) {
        self.charts.push(chart);
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.machine {
            let _ = writeln!(text, "{name:<20} {value}");
        }
        for (title, figures) in &self.parts {
            let _ = writeln!(text, "\n{title}");
            let widest = |width: fn(&Figure) -> usize| figures.iter().map(width).max().unwrap_or(0);
            let names = widest(|figure| figure.name.chars().count()).max(46);
            let units = widest(|figure| figure.unit.chars().count()).max(10);
            for figure in figures {
                let Figure { name, unit, note, .. } = figure;
                let line = format!("  {name:<names$} {:>11} {unit:<units$} {note}", short(figure.value));
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

    pub fn svg(&self) -> String {
        picture::draw(&self.charts, &self.machine)
    }
}

/// Three digits that matter.
pub fn short(value: f64) -> String {
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
