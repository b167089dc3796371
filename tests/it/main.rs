//! Black-box scenarios on real processes and real containers.

mod bad_input;
mod failures;
mod folders;
mod images;
mod services;
mod strangers;
mod traffic;
