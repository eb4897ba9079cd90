//! Logins over HTTP: a client posts JSON to a web service, and the answer has its session, its characters, and the worlds
//! with the addresses to play at.
//!
//! - [`rewrite`]: puts edges into the answer of a login service, and changes what it says of the worlds' addresses.

mod answer;
mod text;

pub use answer::{MAX_ANSWER, MAX_GROWTH, Unchanged, WorldAddress, rewrite};
