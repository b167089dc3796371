//! An allocator that refuses what no input of a target may cause.

use std::alloc::{GlobalAlloc, Layout, System};

/// Largest allocation that a target may make. The largest that is meant to be made is the buffer
/// of 16 MiB through which a state is read.
pub const LARGEST: usize = 64 << 20;

/// The system's allocator; what is larger than [`LARGEST`] ends the process with a message, so
/// that a small input that asks for gigabytes counts as a crash and not as a busy machine.
pub struct Bounded;

fn check(size: usize) {
    if size > LARGEST {
        // Printing may allocate, but nothing of this size.
        eprintln!("an input caused an allocation of {size} bytes, more than {LARGEST}");
        std::process::abort();
    }
}

#[expect(unsafe_code, reason = "an allocator is unsafe by its trait; it only passes calls on")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as our caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as our caller promised.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as our caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        // SAFETY: as our caller promised.
        unsafe { System.realloc(at, layout, size) }
    }
}
