//! History: the figures of the last hour by the second, and of the last day by the minute, in rings of a fixed size.
//!
//! One task makes a row of figures each second ([`History::push`]); the API reads columns of them ([`History::columns`]). All of
//! it is in memory, and a restart begins anew.

mod figure;
mod series;
mod table;

pub use figure::{EDGE_FIGURES, EdgeFigure, FIGURES, Figure, Fold, WORLD_FIGURES, WorldFigure};
pub use series::{DAY, HOUR, SERIES_BYTES};
pub use table::{Columns, History, MAX_BYTES, MAX_EDGES, MAX_WORLDS, Row, Step};
