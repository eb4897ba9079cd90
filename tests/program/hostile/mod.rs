//! Hostile peers, against the program as a process: what they cost it in memory, descriptors and
//! time, and what the players that it serves notice of them.

mod descriptors;
mod memory;
mod slow;
mod tunnel;
