//! Durable queue: DQ-1 to DQ-19.
