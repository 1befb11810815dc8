//! What an approval and an audit cost, beside the cryptography that they can't do without, measured in the same run:
//!
//!     cargo run --release -p countersign-tests --bin bench -- [approval|audit|open|permit|all] [--json] [--svg FILE] [--quick]
//!
//! The programs measured are the real ones, as processes of their own, but for `permit`. Not here: judging the numbers (but for `permit`, which has bounds); that a machine was busy
//! shows in the spread between rounds.

mod approval;
mod audit;
mod figures;
mod floor;
mod machine;
mod open;
mod permit;
#[expect(dead_code, reason = "the relay's bench uses the rest")]
mod picture;
mod transcript;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use figures::Sheet;

/// What is asked for on the command line.
#[derive(Default)]
struct Wish {
    what: Vec<String>,
    json: bool,
    quick: bool,
    svg: Option<PathBuf>,
}

impl Wish {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut wish = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--json" => wish.json = true,
                "--quick" => wish.quick = true,
                "--svg" => wish.svg = Some(arguments.next().context("--svg takes a file")?.into()),
                "approval" | "audit" | "open" | "permit" => wish.what.push(argument),
                "all" => wish
                    .what
                    .extend(["approval", "audit", "open", "permit"].map(str::to_owned)),
                _ => bail!("usage: bench [approval|audit|open|permit|all] [--json] [--svg FILE] [--quick]"),
            }
        }
        if wish.what.is_empty() {
            wish.what.push("approval".to_owned());
            wish.what.push("audit".to_owned());
            wish.what.push("open".to_owned());
            wish.what.push("permit".to_owned());
        }
        Ok(wish)
    }
}

fn main() -> Result<()> {
    let wish = Wish::read(std::env::args().skip(1))?;
    if cfg!(debug_assertions) {
        eprintln!("note: not a release build; the numbers mean nothing");
    }
    let mut sheet = Sheet::new(machine::describe()?);
    for what in &wish.what {
        match what.as_str() {
            "approval" => approval::measure(&mut sheet, wish.quick)?,
            "audit" => audit::measure(&mut sheet, wish.quick)?,
            "permit" => permit::measure(&mut sheet, wish.quick)?,
            _ => open::measure(&mut sheet, wish.quick)?,
        }
    }
    print!("{}", if wish.json { sheet.json() } else { sheet.text() });
    if let Some(file) = wish.svg {
        std::fs::write(file, sheet.svg())?;
    }
    Ok(())
}
