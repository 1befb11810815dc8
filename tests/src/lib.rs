//! Skeleton.

pub mod decoders;
pub mod interop;
pub mod process;
pub mod program;
pub mod world;
