//! The whole topology over slow, lossy networks, with real kernels' TCP.
//!
//! [`link`] is what a link does to packets, pure; [`host`] a network namespace; [`simulator`] joins
//! hosts by links; [`topology`] has the real program on hosts of their own; [`traffic`] plays over it
//! and judges. The tests are in [`faults`]; [`bans`] has the kernel drop what banned addresses send; [`figures`] measures and is
//! run by hand.
//!
//! Root and `/dev/net/tun` are needed.

mod bans;
mod faults;
mod figures;
mod host;
mod link;
mod simulator;
mod topology;
mod traffic;
