//! The registry by raw HTTP: the endpoints of the distribution specification, and what goes wrong with each.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod access;
mod attacks;
mod cache;
mod endpoints;
mod limits;
mod tls;
mod uploads;
mod wire;
