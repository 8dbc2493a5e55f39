//! What the allocator keeps for later goes back to the system.
#![allow(unsafe_code)]

/// Gives back what is free: of this thread all of it, of the others what they are done with as a whole, which is most of it.
pub fn give_back() {
    // SAFETY: mimalloc is the allocator of this process (`main.rs`), and lets any thread call this at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
