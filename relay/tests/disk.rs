//! The relay as a process on a disk that fails: an error at every write, flush, rename and open of one full cycle, a disk
//! that is full or can't be written for a while, files that were damaged. What was said to be stored is never lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

// Nodes and disks need different parts of it.
#[path = "nodes/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "disk/cycle.rs"]
mod cycle;
#[path = "disk/damage.rs"]
mod damage;
#[path = "disk/faults.rs"]
mod faults;
#[path = "disk/full.rs"]
mod full;
#[path = "disk/program.rs"]
mod program;
