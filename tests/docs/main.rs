//! The documents, held against the code.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unchecked_time_subtraction,
    clippy::unwrap_used,
    reason = "a test fails by a panic"
)]

mod course;
mod doctor;
mod fleet;
mod haproxy;
mod layers;
mod limits;
mod login;
mod operations;
mod paths;
