//! Skeleton.

pub mod decoders;
pub mod interop;
