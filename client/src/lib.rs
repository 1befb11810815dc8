//! Skeleton.
pub mod home;
pub mod channel;
