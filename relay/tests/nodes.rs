//! Several nodes of one relay, as processes of their own, on a real PostgreSQL and a real NATS server: any node serves any
//! mailbox, and whatever dies costs time, never an envelope (`PROTOCOL.md`, section 5).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "nodes/client.rs"]
mod client;
#[path = "nodes/loss.rs"]
mod loss;
#[path = "nodes/mischief.rs"]
mod mischief;
#[path = "nodes/namespaces.rs"]
mod namespaces;
#[path = "nodes/servers.rs"]
mod servers;
#[path = "nodes/stories.rs"]
mod stories;
