//! What the fuzz targets do with their input: one plain function of bytes for each, which panics
//! where the program is wrong.
//!
//! `fuzz/targets` gives them to libFuzzer, `tests/it/corpus` runs them on what is written down and on
//! chance, with stable Rust.

// Each target is a program of its own and needs one of these.
#![allow(dead_code, reason = "no target uses all of it")]

pub mod config;
pub mod expect;
pub mod frames;
pub mod game_packet;
mod pieces;
pub mod player;
pub mod proxy_header;
pub mod session_machine;
pub mod status;
