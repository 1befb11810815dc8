//! A report as a table and as a picture: first what is to be reached, then each work with all servers. Not here: what the numbers are
//! worth (`report`, `bounds`).

use crate::bounds::{self, Bound, Verdict, median};
use crate::crowd::Stranger;
use crate::deep::{Depth, Prices};
use crate::figures::{Sheet, ms, percentile, spread, us};
use crate::flood::Felt;
use crate::picture::{Chart, Hue, thousands};
use crate::report::{Price, Report, Row, memory, p50, p99, price, put, stranger, take};
use crate::server::Kind;
use crate::start::SETTINGS;
use crate::works::Round;

const CPU: &str = "server CPU for each message; less is better";

/// A row's name, and what its picture says.
fn names(row: Row) -> (&'static str, &'static str) {
    match row {
        Row::LiveMany => ("live, 16 pairs with 16 in flight", CPU),
        Row::LiveOne => ("live, 64 pairs with one in flight", CPU),
        Row::PingPong => ("ping-pong, one pair", "there and back, the median; less is better"),
        Row::Enqueue => (
            "durable, for 16 readers who are away",
            "messages a second, 64 in flight for each; more is better",
        ),
        Row::Durable => ("live and durable, until safe and delivered", CPU),
        Row::Drain => ("drain, when the 16 readers are back", CPU),
    }
}

/// A server's name, with what it does in this row.
fn name(row: Row, kind: Kind) -> String {
    let does = match (row, kind) {
        (Row::LiveMany | Row::LiveOne | Row::PingPong, Kind::Mosquitto) => ", QoS 0",
        (_, Kind::Mosquitto) => " QoS 1, no flush",
        (_, Kind::Redis) => ", AOF always",
        (_, Kind::JetStream) => ", no flush",
        _ => "",
    };
    format!("{}{does}", kind.name())
}

fn short_name(row: Row, kind: Kind) -> String {
    name(row, kind)
        .replace("countersign-relay", "countersign")
        .replace(", default", "")
}

fn hue(kind: Kind) -> Hue {
    match kind {
        Kind::Ours => Hue::Own,
        Kind::OursTls | Kind::OursPostgres => Hue::Kin,
        Kind::Floor => Hue::Floor,
        _ => Hue::Other,
    }
}

/// Everything, with the machine it was measured on.
pub fn sheet(report: &Report, machine: Vec<(String, String)>) -> Sheet {
    let flushes: Vec<_> = report.flushes.iter().map(|flush| us(*flush)).collect();
    let own = [
        (
            "flush",
            format!(
                "{:.0} us for 4 KiB on this disk, {}",
                median(&flushes),
                spread(&flushes, "us")
            ),
        ),
        ("noise", report.noise()),
        (
            "spoken",
            "ours and the floor over websocket, the others their own protocols over plain TCP".to_owned(),
        ),
        ("our settings", SETTINGS.to_owned()),
    ];
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let mut sheet = Sheet::new(machine.into_iter().chain(report.versions.clone()).chain(own).collect());
    sheet.part(
        "what is to be reached, with login, capabilities, quotas, sequence and acknowledgement switched on for us",
    );
    for verdict in report.verdicts() {
        sheet.put(verdict.bound.name, verdict.median, verdict.bound.unit, verdict.words());
    }
    for row in Row::ALL {
        messages(report, row, &mut sheet);
    }
    weights(report, &mut sheet);
    if let Some((shallow, deep, depth)) = &report.depth {
        depths(*shallow, *deep, depth, &mut sheet);
    }
    if let Some(storm) = &report.storm {
        sheet.part("reconnect storm");
        let verdict = storm.verdict();
        let back = format!("{} clients back after", storm.clients);
        sheet.put(back, storm.time.as_secs_f64(), "s", verdict.words());
        sheet.put("server CPU for each", us(storm.cpu), "us", "handshake, login and read");
        let clients = thousands(storm.clients as f64);
        let mut chart = Chart::new(
            format!("reconnect storm: {clients} clients at once"),
            "until all are logged in and reading; less is better",
            "s",
        );
        chart.bar("countersign", storm.time.as_secs_f64(), Hue::Own);
        let most = bounds::STORM.goal / 1e3 * storm.clients as f64;
        chart.line(most, "to reach, at most");
        sheet.draw(chart);
    }
    if let Some(felt) = &report.felt {
        flooded(felt, &mut sheet);
    }
    sheet
}

fn messages(report: &Report, row: Row, sheet: &mut Sheet) {
    if report.of(row, Kind::Ours).is_empty() {
        return;
    }
    let (title, about) = names(row);
    let (show, unit): (Price, _) = match row {
        Row::PingPong => (p50, "µs"),
        Row::Enqueue => (Round::rate, "/s"),
        _ => (Round::cpu_us, "µs"),
    };
    let mut chart = Chart::new(title, about, unit);
    sheet.part(title);
    for kind in Kind::ALL.into_iter().filter(|kind| !report.of(row, *kind).is_empty()) {
        lines(report, row, kind, sheet);
        chart.bar(short_name(row, kind), report.median(row, kind, show), hue(kind));
    }
    for verdict in report.verdicts_of(row) {
        sheet.put(verdict.bound.name, verdict.median, verdict.bound.unit, verdict.words());
    }
    let ours = report.median(row, Kind::Ours, show);
    for verdict in report.verdicts_of(row) {
        // Where it is on this chart's scale; a price isn't on one of rates.
        if verdict.bound.least == (row == Row::Enqueue) {
            chart.line(ours / verdict.median * verdict.bound.goal, reach(verdict.bound));
        }
    }
    sheet.draw(chart);
}

fn reach(bound: &Bound) -> String {
    let side = if bound.least { "at least" } else { "at most" };
    format!("to reach, {side} {} {}", bound.goal, bound.unit)
}

fn lines(report: &Report, row: Row, kind: Kind, sheet: &mut Sheet) {
    let rounds = report.of(row, kind);
    let ratios = report.over_floor(row, kind);
    let name = name(row, kind);
    let note = format!("{:.2} x floor, {}", median(&ratios), spread(&ratios, "x"));
    let value = report.median(row, kind, price(row));
    if row == Row::PingPong {
        let mut times: Vec<_> = rounds.iter().flat_map(|round| round.times.iter().copied()).collect();
        sheet.put(format!("{name}, p50"), value, "us", note);
        sheet.put(format!("{name}, p99"), us(percentile(&mut times, 99)), "us", "");
    } else {
        let rates: Vec<_> = rounds.iter().map(Round::rate).collect();
        sheet.put(format!("{name}, CPU"), value, "us", note);
        sheet.put(format!("{name}, messages"), median(&rates), "/s", spread(&rates, "/s"));
    }
}

fn weights(report: &Report, sheet: &mut Sheet) {
    if report.weights.is_empty() {
        return;
    }
    let title = "memory of an idle socket";
    let mut chart = Chart::new(title, "of the server, for each; less is better", "KiB");
    sheet.part(title);
    for (kind, kib) in &report.weights {
        let words = Verdict::new(&bounds::IDLE, &[*kib]).words();
        sheet.put(
            kind.name(),
            *kib,
            "KiB",
            if *kind == Kind::Ours { words } else { String::new() },
        );
        chart.bar(
            kind.name().replace("countersign-relay", "countersign"),
            *kib,
            hue(*kind),
        );
    }
    for (how, kib) in &report.strangers {
        let name = match how {
            Stranger::Connected => "says nothing",
            Stranger::Upgraded => "not logged in",
        };
        sheet.put(
            format!("countersign-relay, {name}"),
            *kib,
            "KiB",
            stranger(*how, *kib).words(),
        );
        chart.bar(format!("countersign, {name}"), *kib, Hue::Kin);
    }
    if let Some(fresh) = report.fresh {
        sheet.put(
            "countersign-relay, just started",
            fresh as f64 / 1024.0,
            "MiB",
            "all of it",
        );
    }
    chart.line(bounds::IDLE.goal, "to reach, at most");
    sheet.draw(chart);
}

fn depths(shallow: u64, deep: u64, depth: &Depth, sheet: &mut Sheet) {
    let levels = [shallow, deep].map(|level| thousands(level as f64));
    let title = format!("one mailbox that holds {}, and {}", levels[0], levels[1]);
    sheet.part(title.clone());
    let mut chart = Chart::new(title, CPU, "µs");
    for (works, verdict, name) in [
        (prices(|prices| &prices.put, depth), put(depth), "put"),
        (prices(|prices| &prices.take, depth), take(depth), "delivery, ack"),
    ] {
        for (level, value, hue) in [(&levels[0], works.0, Hue::Kin), (&levels[1], works.1, Hue::Own)] {
            sheet.put(format!("{name} at {level}, CPU"), value, "us", "");
            chart.bar(format!("{name} at {level}"), value, hue);
        }
        sheet.put(verdict.bound.name, verdict.median, verdict.bound.unit, verdict.words());
    }
    sheet.put("filling it, CPU", depth.filled.cpu_us(), "us", "");
    sheet.put("filling it, messages", depth.filled.rate(), "/s", "");
    sheet.put("memory for each that waits", depth.memory, "bytes", "");
    sheet.put(
        "disk for each that waits",
        depth.disk,
        "bytes",
        "of 1024 in an envelope",
    );
    sheet.put(
        "start, until it serves",
        ms(depth.start),
        "ms",
        format!("with {} waiting", levels[1]),
    );
    chart.line(
        bounds::DEEP_TAKE.goal * prices(|prices| &prices.take, depth).0,
        "to reach, delivery at most 1.2 x the nearly empty",
    );
    sheet.draw(chart);
}

/// The medians at both levels.
fn prices(of: impl Fn(&Prices) -> &Vec<Round>, depth: &Depth) -> (f64, f64) {
    let price = |prices| median(&of(prices).iter().map(Round::cpu_us).collect::<Vec<_>>());
    (price(&depth.shallow), price(&depth.deep))
}

fn flooded(felt: &Felt, sheet: &mut Sheet) {
    let pairs = [("alone", &felt.quiet), ("in the flood", &felt.flooded)];
    let mut chart = Chart::new(
        "flood: there and back for honest clients",
        "99 of 100 are faster; less is better",
        "ms",
    );
    sheet.part("flood");
    for (when, times) in pairs {
        let at = |hundredths| ms(percentile(&mut times.clone(), hundredths));
        sheet.put(format!("honest exchange, p50, {when}"), at(50), "ms", "");
        let verdict = if when == "alone" {
            String::new()
        } else {
            p99(felt).words()
        };
        sheet.put(format!("honest exchange, p99, {when}"), at(99), "ms", verdict);
        chart.bar(when, at(99), if when == "alone" { Hue::Kin } else { Hue::Own });
    }
    let memory = memory(felt);
    sheet.put("memory in the flood", memory.median, "MiB", memory.words());
    sheet.put("junk puts refused meanwhile", felt.junk as f64, "", "");
    sheet.put("frames of 16 MiB announced meanwhile", felt.huge as f64, "", "");
    sheet.put("it took", felt.took.as_secs_f64(), "s", "");
    let busy = 100.0 * felt.cpu.as_secs_f64() / felt.took.as_secs_f64();
    sheet.put("server CPU meanwhile", busy, "% of a core", "");
    chart.line(bounds::FLOOD.goal, "to reach, at most");
    sheet.draw(chart);
}
