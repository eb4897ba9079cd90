//! The tunnel between edges and a core, both as `main` starts them: who gets through, in which order they start, and
//! what becomes of players when one of them goes.

mod edges;
mod errands;
mod hostile;
mod logins;
mod players;
mod reload;
mod streams;
mod targets;
mod visits;
