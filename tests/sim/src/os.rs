//! The operating system as simulated threads see it: clocks that stand still unless the simulation
//! moves them, and randomness that follows from the seed.
//!
//! The three C functions through which Rust programs ask for time and randomness are defined here
//! and so take the place of the C library's. On threads that do not simulate they ask the kernel.
//! Inside a host's turn the time is that host's own, as its paused tokio runtime tells it, so that
//! `std` and tokio never disagree.
//!
//! This is the only place with unsafe code: the functions are called by C's rules.
#![expect(unsafe_code, reason = "takes the place of functions of the C library")]

use std::cell::Cell;
use std::time::Instant;

use libc::{c_int, c_long, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};

/// What the monotonic clock shows when a simulation begins, nanoseconds.
const BEGIN: u64 = 1_000_000_000_000;
/// What the wall clock shows then: 2026-01-01.
const EPOCH: u64 = 1_767_225_600_000_000_000;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
    /// Nanoseconds since the simulation began, outside of hosts' turns.
    static NOW: Cell<u64> = const { Cell::new(0) };
    /// Nanoseconds by which the wall clock of the present host is wrong.
    static SKEW: Cell<i64> = const { Cell::new(0) };
    /// A host has its turn, and nobody is asking its clock already.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Where a panic happened on this thread.
    static PANICKED: Cell<Option<(&'static str, u32)>> = const { Cell::new(None) };
    static ORIGIN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// This thread simulates from now on, with randomness from `seed`.
pub fn simulate(seed: u64) {
    RANDOM.set(seed);
    NOW.set(0);
    ACTIVE.set(true);
    ORIGIN.set(Some(Instant::now()));
}

/// Where a program of this thread panicked since the last call, if one did. Runtimes catch panics of
/// tasks, so nobody else would see them.
pub fn panicked() -> Option<(&'static str, u32)> {
    PANICKED.take()
}

/// Notes panics of simulating threads instead of printing them.
pub fn watch_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let simulates = ACTIVE.try_with(Cell::get).unwrap_or(false);
            match info.location().filter(|_| simulates) {
                // A path is leaked for each panic, and a panic ends the run.
                Some(at) => {
                    let file = Box::leak(at.file().to_owned().into_boxed_str());
                    let _ = PANICKED.try_with(|cell| cell.set(Some((file, at.line()))));
                    if std::env::var_os("RUST_BACKTRACE").is_some() {
                        before(info);
                    }
                }
                None => before(info),
            }
        }));
    });
}

/// Sets the time that holds outside of hosts' turns, nanoseconds since the beginning.
pub fn set_now(nanos: u64) {
    NOW.set(nanos);
}

/// Runs one host's turn, whose wall clock is `skew` nanoseconds ahead.
pub fn turn<T>(skew: i64, run: impl FnOnce() -> T) -> T {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            INSIDE.set(false);
            SKEW.set(0);
        }
    }
    SKEW.set(skew);
    INSIDE.set(true);
    let _over = Over;
    run()
}

/// Nanoseconds since the beginning.
pub fn elapsed() -> u64 {
    if !INSIDE.replace(false) {
        return NOW.get();
    }
    let now = tokio::time::Instant::now().into_std();
    INSIDE.set(true);
    let passed = ORIGIN.get().map_or(0, |origin| now.duration_since(origin).as_nanos());
    u64::try_from(passed).unwrap_or(u64::MAX)
}

fn random() -> u64 {
    // SplitMix64.
    let state = RANDOM.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// # Safety
/// `buffer` is valid for writes of `length` bytes.
unsafe fn fill(buffer: *mut c_void, length: size_t) {
    // SAFETY: as promised by the caller.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&random().to_le_bytes()[..chunk.len()]);
    }
}

/// # Safety
/// As the kernel demands of the call `number`.
#[cfg(target_arch = "x86_64")]
unsafe fn kernel(number: c_long, args: [c_long; 6]) -> c_long {
    let result: c_long;
    // SAFETY: the registers are those of the kernel's convention; the caller answers for the rest.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2],
            in("r10") args[3], in("r8") args[4], in("r9") args[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// # Safety
/// As the kernel demands of the call `number`.
#[cfg(target_arch = "aarch64")]
unsafe fn kernel(number: c_long, args: [c_long; 6]) -> c_long {
    let result: c_long;
    // SAFETY: the registers are those of the kernel's convention; the caller answers for the rest.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] => result,
            in("x1") args[1], in("x2") args[2], in("x3") args[3],
            in("x4") args[4], in("x5") args[5],
            options(nostack)
        );
    }
    result
}

/// The C library's way to tell an error.
fn answer(result: c_long) -> c_long {
    if (-4095..0).contains(&result) {
        // SAFETY: the address of this thread's errno is always valid.
        unsafe { *libc::__errno_location() = c_int::try_from(-result).unwrap_or(libc::EIO) };
        return -1;
    }
    result
}

/// # Safety
/// As `getrandom(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    if ACTIVE.get() {
        // SAFETY: the buffer is valid, says the caller.
        unsafe { fill(buffer, length) };
        return length.cast_signed();
    }
    let args = [buffer as c_long, length as c_long, c_long::from(flags), 0, 0, 0];
    // SAFETY: the arguments are passed on as they came.
    answer(unsafe { kernel(libc::SYS_getrandom, args) }) as ssize_t
}

/// # Safety
/// As `clock_gettime(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if !ACTIVE.get() {
        let args = [c_long::from(clock), time as c_long, 0, 0, 0, 0];
        // SAFETY: the arguments are passed on as they came.
        return answer(unsafe { kernel(libc::SYS_clock_gettime, args) }) as c_int;
    }
    let passed = elapsed();
    let nanos = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            (EPOCH + passed).saturating_add_signed(SKEW.get())
        }
        _ => BEGIN + passed,
    };
    // SAFETY: the pointer is valid, says the caller.
    unsafe {
        (*time).tv_sec = (nanos / 1_000_000_000) as libc::time_t;
        (*time).tv_nsec = (nanos % 1_000_000_000) as c_long;
    }
    0
}

/// # Safety
/// As `syscall(2)`. Variadic in C; integers are passed the same way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    if number == libc::SYS_getrandom && ACTIVE.get() {
        // SAFETY: the buffer is valid, says the caller.
        unsafe { fill(a as *mut c_void, b as size_t) };
        return b;
    }
    // SAFETY: the arguments are passed on as they came.
    answer(unsafe { kernel(number, [a, b, c, d, e, f]) })
}
