//! Files: what a remote file, directory, pipe or terminal is asked. The service that speaks them declares them here.

crate::messages! {}
