//! Whoever else comes to the tunnel's ports.
