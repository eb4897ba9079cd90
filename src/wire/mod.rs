//! Formats on the wire. Pure: functions of bytes, with no I/O, no clock and no state of their own.
//!
//! A parser tells what is incomplete (`None`: read more) from what is wrong (an error).

pub mod expect;
pub mod frame;
pub mod game_packet;
pub mod partial;
pub mod player_address;
pub mod proxy_header;
pub mod status;
