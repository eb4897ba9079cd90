//! The bodies of the fuzz targets: one plain function of bytes for each, which panics if the program is wrong.
//!
//! `fuzz/targets` passes them to libFuzzer; `tests/it/corpus` runs them on stored and random inputs, with stable Rust.

// Each target is a program of its own and needs one of these.
#![allow(dead_code, reason = "no target uses all of it")]

pub mod config;
pub mod expect;
pub mod frames;
pub mod game_packet;
pub mod http_login;
pub mod login;
mod pieces;
pub mod player;
pub mod proxy_header;
pub mod session_machine;
pub mod status;
pub mod trunk;
