//! Whole approvals in one process, one story a function: what must happen, and what mustn't though somebody tries. The vocabulary is `world`.

mod asynchronous;
mod attention;
mod ending;
mod grants;
mod hostile;
mod pairing;
mod policy;
mod quorum;
mod restarts;
mod roster;
mod soak;
