//! x
mod mailbox;
mod store;
