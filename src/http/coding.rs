//! Content codings, decoded while they stream.
