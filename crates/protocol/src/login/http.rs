//! Logins over HTTP: a client posts JSON to a web service, and the answer has its session, its characters, and the worlds
//! with the addresses to play at.
//!
//! - [`rewrite`]: puts edges into the answer of a login service, and changes what it says of the worlds' addresses.
//! - [`Client`]: which clients are told to play over links.
//! - [`Request`], [`from_classic`] and [`error_body`]: a login service for a game server that has none.

mod answer;
mod characters;
mod client;
mod error;
mod request;
mod text;

pub use answer::{MAX_ANSWER, MAX_GROWTH, Unchanged, WorldAddress, rewrite};
pub use characters::from_classic;
pub use client::{Client, Headers};
pub use error::{ErrorCode, error_body};
pub use request::{LoginRequest, MAX_REQUEST, Request};
