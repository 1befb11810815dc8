//! Frozen vectors (tests only).
