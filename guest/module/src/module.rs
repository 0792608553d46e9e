//! How texts cross the boundary of a core module: `alloc`, `call`, `free`, and one import of the same shape, `qm2.call`.
//!
//! Holds no logic and no form: requests, answers and what is handed out are those of `qm2_core::door`.
//!
//! 1. The host takes a buffer with `alloc(len)`, writes a request into it, and calls `call(ptr, len)`, which takes the buffer
//!    over.
//! 2. Meanwhile the module calls `qm2.call(ptr, len)` with what it hands out; the text is there only during that call. 0
//!    says that it was taken, anything else that it was not. Nothing may be called from inside it.
//! 3. The answer of `call` is a text: its address in the upper 32 bits, its length in the lower. The host reads it and gives
//!    the buffer back with `free(ptr, len)`.
//!
//! An instance that trapped is spent: make a new one and replay the ledger.
#![allow(unsafe_code)] // Texts cross as addresses; nothing else here is unsafe.

use qm2_core::door::{self, TextHost};
use qm2_core::machine::Machine;
use std::cell::RefCell;
use std::ptr;

thread_local! {
    // It lives as long as the module, so nothing has to be kept ready for its end.
    static MACHINE: &'static RefCell<Machine> = Box::leak(Box::default());
}

#[link(wasm_import_module = "qm2")]
unsafe extern "C" {
    #[link_name = "call"]
    fn host_call(ptr: *const u8, len: usize) -> u32;
}

/// A buffer of so many bytes for a request.
#[unsafe(no_mangle)]
pub extern "C" fn alloc(len: usize) -> *mut u8 {
    Box::into_raw(vec![0_u8; len].into_boxed_slice()).cast()
}

/// Gives a buffer back: one of `alloc` that was not handed to `call`, or an answer.
///
/// # Safety
/// It is of this module, has this length, and is not given back yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(ptr: *mut u8, len: usize) {
    // SAFETY: that is what the caller promises.
    drop(unsafe { buffer(ptr, len) });
}

/// Makes the call that a request names; gives the place of the answer.
///
/// # Safety
/// As for [`free`]; the buffer is taken over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn call(ptr: *mut u8, len: usize) -> u64 {
    // SAFETY: that is what the caller promises.
    let request = unsafe { buffer(ptr, len) };
    let mut host = TextHost(|text: &str| {
        // SAFETY: the text outlives the call, and the host only reads it.
        unsafe { host_call(text.as_ptr(), text.len()) == 0 }
    });
    let answer = MACHINE.with(|machine| {
        door::answer_bytes(&request, &mut |call| {
            machine.borrow_mut().call(&mut host, call)
        })
    });
    let answer = answer.into_bytes().into_boxed_slice();
    let len = answer.len() as u64;
    let ptr: *mut u8 = Box::into_raw(answer).cast();
    // Addresses have 32 bits here.
    (ptr as usize as u64) << 32 | len
}

/// SAFETY: the caller says that it is a whole buffer of this module that nobody else gives back.
unsafe fn buffer(ptr: *mut u8, len: usize) -> Box<[u8]> {
    // SAFETY: as above.
    unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(ptr, len)) }
}
