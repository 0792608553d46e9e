//! The rules of SPEC section 5, one file a noun, one test a rule at least, named for it.

mod authority;
mod bounds;
mod cancel;
mod component_fault;
mod gate;
mod identity;
mod load_and_fault;
mod plan_end;
mod plan_shape;
mod random;
mod report;
mod table;
mod time_and_retry;
