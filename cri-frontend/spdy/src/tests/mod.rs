//! Sessions over connections in memory, with a peer that speaks in single frames.
//!
//! Time is paused: it jumps to the next timer when every task waits. So "nothing happens for 50 ms" means that all
//! tasks stand still, on the slowest machine too.

mod flow_control;
mod hostile;
mod life;
mod peer;
