//! The rules of SPEC section 5, one file a noun, one test a rule at least, named for it.

mod authority;
mod identity;
mod plan_shape;
