//! Log lines on stdout that survive a reader who went away: `println!` would panic then, and a
//! web server should outlive its log collector.

use std::fmt::Arguments;
use std::io::Write;

/// Writes one line to stdout; a failure is ignored, there is nowhere to tell it.
pub fn say(line: Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
