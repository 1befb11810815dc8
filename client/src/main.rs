//! The program `countersign`. Everything it does is in the library; here is only the door to it.

use std::process::ExitCode;

use countersign::{cli, runner};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything else looks at arguments, environment or configuration: what becomes a command must not be steered by them.
    match (arguments.next(), arguments.next()) {
        (Some(only), None) if only == runner::LAUNCH => runner::launch_main(),
        // The demo's relay: the relay's own program, as a process of its own.
        (Some(first), Some(_)) if first == cli::demo::RELAY => cli::demo::relay_main(),
        _ => cli::main(),
    }
}
