//! The rules of SPEC section 5, one file a noun, one test a rule at least, named for it.

mod added;
mod arbitration;
mod authority;
mod bounds;
mod cancel;
mod child;
mod claim;
mod component_fault;
mod gate;
mod hook;
mod human;
mod human_wait;
mod identity;
mod inputs;
mod inputs_host;
mod lease;
mod load_and_fault;
mod plan_end;
mod plan_shape;
mod random;
mod redone;
mod report;
mod shared_bounds;
mod shared_table;
mod table;
mod time_and_retry;
