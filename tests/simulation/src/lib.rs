//! Seeded simulation of whole domains: random plans, agents and people that err, a host that loses and repeats and dies, and
//! a model apart from the core that audits everything that becomes durable and everything that goes out.
//!
//! One seed is one domain and replays exactly. Runs the core natively, and a share of the runs through the component as
//! well. Times nothing and asserts nothing about speed.

pub mod action;
pub mod audit;
pub mod exhaust;
pub mod mutation;
pub mod plan;
pub mod random;
pub mod runner;
pub mod shrink;
pub mod target;
pub mod vector;
pub mod world;
