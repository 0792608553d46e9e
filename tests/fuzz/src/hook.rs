//! The parts of the host's `hook` that read text, under the names that it has there. Runs nothing.

#[path = "../../../host-harness/src/hook/bounds.rs"]
#[allow(dead_code)]
mod bounds;
#[path = "../../../host-harness/src/hook/printed.rs"]
mod printed;

pub(crate) use self::bounds::{check_command, check_handler, is_asked};
pub(crate) use self::printed::{OUTPUT_BYTES_MAX, cut, verdict};
