//! Lanes: CQ-1 to CQ-30, LN-1 to LN-6.
