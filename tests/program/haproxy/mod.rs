//! Beside the real HAProxy, where it is installed.

mod access_log;
mod beside;
mod oracle;
mod real;
