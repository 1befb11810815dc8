//! Skeleton.

pub mod decoders;
pub mod interop;
pub mod program;
pub mod process;
pub mod world;
