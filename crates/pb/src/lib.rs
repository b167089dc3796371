//! Generated protobuf types and gRPC stubs, and the descriptor set. No hand-written logic but the size
//! of buffers.
#![allow(clippy::all, clippy::unwrap_used)] // The code is generated.

mod codec;

/// Encoded `FileDescriptorSet` of everything below.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! package {
    ($name:ident) => {
        pub mod $name {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/cluster.", stringify!($name), ".v1.rs"));
            }
        }
    };
}

package!(types);
package!(control);
package!(dispatcher);
package!(ca);
package!(peer);
package!(raft);
