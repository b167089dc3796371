//! Between protobuf and the model: decoding refuses with a field path, encoding never fails.
//!
//! Only this crate knows both sides. Here also: the table of error codes that clients may rely on.
//! Never here: rules of the domain (they are the model's), transport, I/O.

pub mod dispatch;
pub mod error;
pub mod object;
pub mod spec;

pub use error::{Code, Failure};
pub use spec::DecodeError;
