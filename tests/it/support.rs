//! Fakes of the two ports, and the real servers that tests start.
