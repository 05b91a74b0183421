//! TLS without I/O: client configurations, sessions, certificate facts and failure classes.
