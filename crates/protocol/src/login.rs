//! Logins: how clients ask for their characters, and what they are told of worlds and edges.
//!
//! - [`http`]: logins over HTTP.

pub mod http;
