//! One of several nodes: any of them serves any mailbox, because what a mailbox is stands in a PostgreSQL database that they
//! share, and nowhere else.
//!
//! Sessions give the same orders as to a relay that keeps its store alone (see `office`, in the crate's root): `office`
//! gathers them, `writer` has the `ledger` decide them inside a transaction that holds their mailboxes locked, and `seats`
//! give this node's readers what `fetch` finds. The `bus` tells other nodes to look sooner than they would by themselves;
//! nothing else passes between nodes. `sweep` is done by one at a time.

mod address;
mod bus;
mod copy;
mod database;
mod fetch;
mod job;
mod ledger;
mod office;
mod seats;
mod sweep;
mod totals;
mod writer;

pub use address::{BadAddress, BusUrl, DatabaseUrl};
pub(crate) use copy::Database;
pub(crate) use database::Failure;
pub(crate) use office::Office;

/// The largest envelope, in bytes: what a reader must have room for to be given one whose length isn't known yet.
const LARGEST: u64 = 65_536;
