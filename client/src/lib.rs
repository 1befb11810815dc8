//! The parts of the program `countersign`: the gate beside the agent, the admin's and auditor's device, and the
//! commands around them. What is said and who may say yes is in `approval`; what the relay sees is in `wire`.
//!
//! | to | read |
//! |---|---|
//! | follow one approval at the gate | [`gate`], then `gate/ask.rs`, `gate/members.rs`, `gate/work.rs`, [`runner`] |
//! | follow it at the admin | [`member`] |
//! | see what is kept | [`party`], [`store`], [`home`] |
//! | see how bytes leave | [`channel`], [`outbox`], [`link`] |
//! | ask the gate from this machine | [`local`], [`caller`], [`http`]; be told of the answer: [`wake`] |

pub mod audit;
pub mod caller;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod gate;
pub mod home;
pub mod http;
pub mod link;
pub mod local;
pub mod member;
pub mod outbox;
pub mod pace;
pub mod party;
pub mod runner;
pub mod show;
pub mod store;
pub mod wake;
