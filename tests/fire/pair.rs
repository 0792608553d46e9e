//! Two processes in one data directory.
