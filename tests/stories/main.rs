//! Whole approvals in one process, one story a function: what must happen, and what mustn't though somebody tries. The vocabulary is `world`.

mod ending;
mod hostile;
mod pairing;
mod quorum;
mod restarts;
mod roster;
mod soak;
