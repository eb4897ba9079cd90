//! The client's side of the protocol: against recordings of a real client, against a small model
//! of the core without I/O, and against the same model on real sockets.

mod captures;
mod client;
mod fake_core;
mod machine;
mod model_core;
