#![no_main]

use cluster_fuzz::Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = cluster_fuzz::find("state_file").expect("a target of this name");
    (target.run)(data);
});
