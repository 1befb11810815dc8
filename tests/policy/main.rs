//! The policy and what stands, held against many, and what admins read of it (`display`): what people type and what attackers make of it (`corpus`), what may happen in
//! a gate's life (`histories`), and many hands at the same leave (`races`). How long they take is said by the environment:
//! COUNTERSIGN_HISTORIES and COUNTERSIGN_RACES are numbers, CI stands for many, COUNTERSIGN_HISTORY_SEED repeats one history.

mod corpus;
mod display;
mod histories;
mod races;

/// How many of something this run does: by its own variable, else many in CI, else few.
fn how_many(variable: &str, in_ci: u64, else_: u64) -> u64 {
    let asked = std::env::var(variable).ok().map(|text| text.parse().expect("a number"));
    let usual = if std::env::var_os("CI").is_some() { in_ci } else { else_ };
    asked.unwrap_or(usual)
}
