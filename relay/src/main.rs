//! The program `countersign-relay`. All of it is in the library, so that `countersign` can run a relay too.

use std::process::ExitCode;

fn main() -> ExitCode {
    countersign_relay::cli::main()
}
