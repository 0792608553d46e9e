//! Lifecycle of subagents: the SA rows.
