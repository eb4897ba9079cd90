//! The core's relay on real sockets, frame by frame, and with whole clients and edges.

mod capture;
mod faults;
mod game;
mod harness;
mod lag;
mod limits;
mod operator;
mod protocol;
mod reload;
mod stock;
mod whole;
