//! Hints to the processor.

use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Asks the processor to load the first cache line of `value`, to be read soon. A loop that
/// asks for many before it reads the first waits for memory once.
#[inline(always)]
pub fn prefetch<T: ?Sized>(value: &T) {
    // SAFETY: a hint, which may name any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(value).cast::<i8>()) };
}
