//! Survival of real processes: killed at any moment, stopped in good order, started on bad files; and what the relay holds of what it carried.
//! The processes themselves are in `countersign_tests::process`.

mod canary;
mod dice;
mod ending;
mod midway;
mod reckoning;
mod refusals;
mod rounds;
mod stream;
