//! The vocabulary of the tests: worlds, processes, decoders and other people's programs. What is told with it is in the folders beside.

pub mod decoders;
pub mod emulator;
pub mod interop;
pub mod process;
pub mod program;
pub mod world;
