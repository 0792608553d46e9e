//! Code that runs when an instance is made, before any call: it has no end.

/// Called by whoever makes an instance.
// SAFETY: nothing else in this component has the name; linking by name is the only way to be called at the start.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub extern "C" fn _initialize() {
    let mut at = 0_u64;
    loop {
        at = std::hint::black_box(at.wrapping_add(1));
    }
}
