//! Event stream: EV-1 to EV-10.
