//! Tasks: moves, signals, exits, sessions. The service that speaks them declares them here.

crate::messages! {}
