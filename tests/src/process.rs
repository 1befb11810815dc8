//! Real processes of one Countersign: a relay, a gate, admins and those who ask, each with a home of its own in a temporary folder. A
//! process is killed by its id when its guard is dropped. What happens to them is in the tests (`crashes`).

mod child;
mod party;
mod relay;

pub use child::{Bell, DEADLINE, Process};
pub use party::{Admin, Asking, Gate, World, beside, countersign};
pub use relay::Relay;

/// Waits until `met` holds, looking again every few milliseconds.
///
/// # Panics
/// If it doesn't hold within [`DEADLINE`].
pub fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + DEADLINE;
    while !met() {
        assert!(std::time::Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
