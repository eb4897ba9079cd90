//! Hostile peers, against the program as a process: what they cost it in memory, descriptors and
//! time, and what the players that it serves notice of them.

#[path = "../common/mod.rs"]
mod common;

mod descriptors;
mod memory;
#[allow(dead_code)]
mod process;
mod slow;
mod tunnel;
