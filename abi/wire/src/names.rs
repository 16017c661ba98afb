//! Names: (kind, key) to object, and the registrars. The service that speaks them declares them here.

crate::messages! {}
