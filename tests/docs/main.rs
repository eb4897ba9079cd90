//! The documents, held against the code.

mod haproxy;
mod limits;
mod paths;
