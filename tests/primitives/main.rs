//! The primitives of an agent host, row by row: lanes, durable queue, event stream, hooks, lifecycle of subagents.
//!
//! One module a table; a test is named for its row (`cq_03_…`). What each row says and whether it is followed is in
//! `rows.json`, and `PRIMITIVES.md` is made of both.

mod events;
mod lanes;
mod lifecycle;
mod queue;
mod table;
